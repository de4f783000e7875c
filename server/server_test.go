package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/queue"
)

// Names that the tests use.
const (
	topic = "orders"
	sub   = "billing"
)

// openStore opens a store with the topic and the subscription.
func openStore(t *testing.T, dir string) *queue.Store {
	t.Helper()
	s, err := queue.Open(dir, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	err = errors.Join(s.CreateTopic(t.Context(), topic, queue.TopicOptions{}),
		s.CreateSubscription(t.Context(), topic, sub, queue.SubscriptionOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// api is a served store and the client that the tests call it with.
type api struct {
	*testing.T
	store *queue.Store
	h     *handler
	url   string
}

func serve(t *testing.T, o Options) *api {
	t.Helper()
	store := openStore(t, t.TempDir())
	h := newHandler(store, o)
	s := httptest.NewServer(h)
	t.Cleanup(func() { // the streams first: they are what the server's end waits for
		h.stop()
		s.Close()
	})
	return &api{T: t, store: store, h: h, url: s.URL}
}

// post sends a raw call.
func (a *api) post(ctx context.Context, name wire.Call, body io.Reader) *http.Response {
	a.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		a.url+wire.Prefix+string(name), body)
	if err != nil {
		a.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.Fatalf("%s: %v", name, err)
	}
	return res
}

// call sends a call and reads its answer into out, or returns its error.
func (a *api) call(name wire.Call, in, out any) error {
	a.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		a.Fatal(err)
	}
	return a.result(a.post(a.Context(), name, bytes.NewReader(b)), out)
}

// result reads an answer.
func (a *api) result(res *http.Response, out any) error {
	a.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.Fatal(err)
	}
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(b, out); err != nil {
			a.Fatalf("%s: %v", b, err)
		}
		return nil
	}
	var p wire.Problem
	if err := json.Unmarshal(b, &p); err != nil || res.Header.Get("Content-Type") !=
		wire.ContentType || p.Status != res.StatusCode {
		a.Fatalf("%s: %s, %v", res.Status, b, err)
	}
	return p.Err()
}

// session opens a session; end closes its stream without a word.
func (a *api) session(q wire.OpenReceiver) (end context.CancelFunc, err error) {
	a.Helper()
	ctx, cancel := context.WithCancel(a.Context())
	a.Cleanup(cancel)
	b, err := json.Marshal(q)
	if err != nil {
		a.Fatal(err)
	}
	res := a.post(ctx, wire.Receivers, bytes.NewReader(b))
	a.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		return cancel, a.result(res, nil)
	}
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	var o wire.OpenedReceiver
	if err != nil || json.Unmarshal([]byte(line), &o) != nil || o.Session != q.Options.Session {
		a.Fatalf("opened %q, %v", line, err)
	}
	return cancel, nil
}

func open(name string) wire.OpenReceiver {
	return wire.OpenReceiver{Topic: topic, Subscription: sub,
		Options: queue.ReceiverOptions{Session: name, Foreign: true}}
}

func (a *api) publish(names ...string) {
	a.Helper()
	for _, n := range names {
		r := a.store.Publish(a.Context(), []ackwise.Message{{ID: n, Topic: topic}})[0]
		if r.Err != nil {
			a.Fatal(r.Err)
		}
	}
}

func TestAStreamThatEndsWithoutAWordIsAConsumerLost(t *testing.T) {
	a := serve(t, Options{})
	a.publish("a")
	end, err := a.session(open("s1"))
	if err != nil {
		t.Fatal(err)
	}
	var got wire.Received
	q := wire.SessionRequest{Session: "s1", Seq: 1, Max: 1, WaitMillis: 1000}
	if err := a.call(wire.Receive, q, &got); err != nil || len(got.Deliveries) != 1 {
		t.Fatal(got, err)
	}
	next, err := a.store.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	end()
	ds, err := next.Receive(t.Context(), 1)
	if err != nil || ds[0].Cause != ackwise.CauseConsumerLost {
		t.Fatalf("received %+v, %v", ds, err)
	}
	if err := a.call(wire.Receive, q, &got); !errors.Is(err, wire.ErrNoSession) {
		t.Errorf("receive in a lost session: %v", err)
	}
}

// TestAServerThatStopsLeavesSessionsAlone: their consumers live and go to the next owner.
func TestAServerThatStopsLeavesSessionsAlone(t *testing.T) {
	a := serve(t, Options{})
	a.publish("a")
	end, err := a.session(open("s1"))
	if err != nil {
		t.Fatal(err)
	}
	var got wire.Received
	err = a.call(wire.Receive,
		wire.SessionRequest{Session: "s1", Seq: 1, Max: 1, WaitMillis: 1000}, &got)
	if err != nil || len(got.Deliveries) != 1 {
		t.Fatal(got, err)
	}
	a.h.stop()
	end()
	a.h.streams.Wait()
	infos, err := a.store.Subscriptions(t.Context(), topic)
	if err != nil || len(infos[0].Sessions) != 1 || infos[0].Sessions[0].InFlight != 1 {
		t.Errorf("sessions after the server's stop: %+v, %v", infos, err)
	}
}

func TestASecondStreamTakesTheSessionOver(t *testing.T) {
	a := serve(t, Options{})
	a.publish("a", "b")
	endFirst, err := a.session(open("s1"))
	if err != nil {
		t.Fatal(err)
	}
	var got wire.Received
	q := wire.SessionRequest{Session: "s1", Seq: 1, Max: 2, WaitMillis: 1000}
	if err := a.call(wire.Receive, q, &got); err != nil || len(got.Deliveries) != 2 {
		t.Fatal(got, err)
	}
	again := open("s1")
	again.Held, again.Seq = []ackwise.LeaseToken{got.Deliveries[0].Token}, 1
	if _, err := a.session(again); err != nil {
		t.Fatal(err)
	}
	endFirst() // no longer the session's end
	var rest wire.Received
	q.Seq++
	if err := a.call(wire.Receive, q, &rest); err != nil || len(rest.Deliveries) != 1 ||
		rest.Deliveries[0].Message.ID != got.Deliveries[1].Message.ID ||
		rest.Deliveries[0].Cause != ackwise.CauseReleased {
		t.Errorf("what had not arrived came back as %+v, %v", rest, err)
	}
	var settled wire.Settled
	err = a.call(wire.Settle, wire.SettleRequestOf("s1", []ackwise.Settlement{
		{Token: got.Deliveries[0].Token}, {Token: rest.Deliveries[0].Token}}), &settled)
	if err != nil || settled.Values()[0].Err != nil || settled.Values()[1].Err != nil {
		t.Errorf("settled %+v, %v", settled, err)
	}
}

// TestALateKeepGivesNothingBack: a Keep that was given up, sent again, and then carried out after
// the Receive that followed, does not know what that one has brought.
func TestALateKeepGivesNothingBack(t *testing.T) {
	a := serve(t, Options{})
	end, err := a.session(wire.OpenReceiver{Topic: topic, Subscription: sub,
		Options: queue.ReceiverOptions{Session: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	a.publish("one")
	var got wire.Received
	q := wire.SessionRequest{Session: "s", Seq: 2, Max: 1, WaitMillis: 1000}
	if err := a.call(wire.Receive, q, &got); err != nil || len(got.Values()) != 1 {
		t.Fatalf("Receive = %v, %v, want one", got, err)
	}
	late := wire.SessionRequest{Session: "s", Seq: 1}
	if err := a.call(wire.Keep, late, &done{}); err != nil {
		t.Fatal(err)
	}
	var settled wire.Settled
	ack := wire.SettleRequestOf("s", []ackwise.Settlement{
		{Token: got.Values()[0].Token, Outcome: ackwise.OutcomeAck}})
	if err := a.call(wire.Settle, ack, &settled); err != nil {
		t.Fatal(err)
	}
	if r := settled.Values()[0]; r.Err != nil || r.Already {
		t.Errorf("the ack answered %+v: the late Keep has given the delivery back", r)
	}
}

// TestAKeepEndsReceivesOnTheirWay: a Receive that its client gave up before it arrived here gets
// nothing, whenever it arrives.
func TestAKeepEndsReceivesOnTheirWay(t *testing.T) {
	a := serve(t, Options{})
	a.publish("a")
	if _, err := a.session(open("s1")); err != nil {
		t.Fatal(err)
	}
	q := wire.SessionRequest{Session: "s1", Seq: 1, Max: 1, WaitMillis: 1000}
	if err := a.call(wire.Keep, q, &done{}); err != nil {
		t.Fatal(err)
	}
	var got wire.Received
	if err := a.call(wire.Receive, q, &got); err != nil || len(got.Deliveries) != 0 {
		t.Errorf("a Receive that was given up got %+v, %v", got, err)
	}
	q.Seq = 2
	if err := a.call(wire.Receive, q, &got); err != nil || len(got.Deliveries) != 1 {
		t.Errorf("the next one got %+v, %v", got, err)
	}
}

func TestAReceiveEndsWithItsWait(t *testing.T) {
	a := serve(t, Options{})
	if _, err := a.session(open("s1")); err != nil {
		t.Fatal(err)
	}
	var got wire.Received
	began := time.Now()
	err := a.call(wire.Receive,
		wire.SessionRequest{Session: "s1", Seq: 1, Max: 1, WaitMillis: 50}, &got)
	if err != nil || len(got.Deliveries) != 0 || time.Since(began) < 50*time.Millisecond {
		t.Errorf("%+v, %v after %s", got, err, time.Since(began))
	}
}

// A request with more values than any call can have is refused before they are made.
func TestTooManyValuesAreRefused(t *testing.T) {
	a := serve(t, Options{})
	many := strings.Repeat(`{},`, leastValues) + `{}`
	for call, field := range map[wire.Call]string{wire.Claim: "asks", wire.SettleClaims: "claims",
		wire.Publish: "messages", wire.CommitOnce: "once"} {
		body := fmt.Sprintf(`{"set":"effects","%s":[%s]}`, field, many)
		err := a.result(a.post(t.Context(), call, strings.NewReader(body)), nil)
		if !errors.Is(err, ackwise.ErrTooLarge) || !strings.Contains(err.Error(), "values") {
			t.Errorf("%s: %v, want ErrTooLarge", call, err)
		}
	}
	// Commas in strings are no values.
	err := a.call(wire.Publish, wire.PublishRequest{Messages: []ackwise.Message{
		{Topic: topic, Body: []byte(`\",` + strings.Repeat(`,"`, 500_000))}}}, &wire.Published{})
	if err != nil {
		t.Errorf("a body of commas: %v", err)
	}
}

func TestValuesAreCounted(t *testing.T) {
	for text, want := range map[string]int{``: 1, `{}`: 1, `[1,2]`: 2, `{"a":[1,2],"b":3}`: 3,
		`["a,b","\\","\",",","c"]`: 4, `"open, \`: 1} {
		if n := values([]byte(text)); n != want {
			t.Errorf("%s: %d values, want %d", text, n, want)
		}
	}
}

func TestBoundsComeBeforeWork(t *testing.T) {
	a := serve(t, Options{MaxRequestBytes: 1000, MaxSessions: 1})
	err := a.call(wire.Publish, wire.PublishRequest{Messages: []ackwise.Message{
		{Topic: topic, Body: make([]byte, 1000)}}}, nil)
	if !errors.Is(err, ackwise.ErrTooLarge) {
		t.Errorf("a large request: %v", err)
	}
	end, err := a.session(open("s1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.session(open("s2")); !errors.Is(err, ackwise.ErrFull) {
		t.Errorf("one session too many: %v", err)
	}
	infos, err := a.store.Subscriptions(t.Context(), topic)
	if err != nil || len(infos[0].Sessions) != 1 {
		t.Errorf("the refused session is open in the store: %+v, %v", infos, err)
	}
	end()
	var invalid *ackwise.InvalidError
	for _, body := range []string{"", "{", "[]", `{"messages":[{"headers":7}]}`, "\x00"} {
		res := a.post(t.Context(), wire.Publish, strings.NewReader(body))
		if err := a.result(res, nil); !errors.As(err, &invalid) {
			t.Errorf("request %q: %v", body, err)
		}
	}
	res, err := http.Post(a.url+wire.Prefix+string(wire.Books), "text/plain",
		strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.result(res, nil); !errors.As(err, &invalid) {
		t.Errorf("a request a browser's form could send: %v", err)
	}
}

// TestCallsWaitForASlot: more calls than slots wait, and leave when their client does.
func TestCallsWaitForASlot(t *testing.T) {
	a := serve(t, Options{MaxCalls: 1})
	a.h.calls <- struct{}{} // the only slot is taken
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		a.url+wire.Prefix+string(wire.Books), strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if res, err := http.DefaultClient.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		_ = res.Body.Close()
		t.Errorf("a call without a slot: %v", err)
	}
	<-a.h.calls
	var books []queue.Books
	if err := a.call(wire.Books, struct{}{}, &books); err != nil || len(books) != 1 {
		t.Errorf("with a slot: %+v, %v", books, err)
	}
}

func TestTheOwnerGivesSignsOfLife(t *testing.T) {
	a := serve(t, Options{})
	res := a.post(t.Context(), wire.Owner, strings.NewReader(`{"pulse_millis":20}`))
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	first, err := lines.ReadString('\n')
	var w wire.Welcome
	if err != nil || json.Unmarshal([]byte(first), &w) != nil || w.PID != os.Getpid() ||
		w.Features != a.store.Features() {
		t.Errorf("welcome %q, %v", first, err)
	}
	for range 3 {
		if line, err := lines.ReadString('\n'); line != "\n" {
			t.Fatalf("a sign of life is %q, %v", line, err)
		}
	}
	a.h.stop()
	if rest, err := io.ReadAll(lines); err != nil || strings.Trim(string(rest), "\n") != "" {
		t.Errorf("the end is %q, %v", rest, err)
	}
	if err := a.call(wire.Books, struct{}{}, nil); !errors.Is(err, wire.ErrHandingOver) {
		t.Errorf("a call to an owner that leaves: %v", err)
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	path := filepath.Join(dir, socketName)
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Local(store)
	if err != nil {
		t.Fatalf("with a stale socket: %v", err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket's mode is %v, %v", fi.Mode(), err)
	}
	if info, err := lockfile.Read(dir); err != nil || info.Socket != path {
		t.Errorf("announced %+v, %v; want %s", info, err, path)
	}
	for name, header := range map[string]string{"within": strings.Repeat("x", 15<<10),
		"over": strings.Repeat("x", 21<<10)} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST /v1/books HTTP/1.1\r\nHost: x\r\nContent-Type: "+
			"application/json\r\nContent-Length: 2\r\nX: %s\r\n\r\n{}", header)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		want := map[string]int{"within": 200, "over": 431}[name]
		if err != nil || res.StatusCode != want {
			t.Errorf("a header %s the bound: %v, %v; want %d", name, res, err, want)
		}
		_ = conn.Close()
	}
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after Close: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Local(store); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("something else in the socket's place: %v", err)
	}
}

// TestTheSocketIsNeverOpenToOthers looks at the mode that bind itself gives the file.
func TestTheSocketIsNeverOpenToOthers(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux heeds the mode of a socket before bind")
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := bind(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestRuntimeDirectory(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("TMPDIR", tmp)
	dir, err := runtimeDir()
	if err != nil || filepath.Dir(dir) != tmp {
		t.Fatalf("runtime directory %s, %v", dir, err)
	}
	if again, err := runtimeDir(); err != nil || again != dir {
		t.Errorf("the second time %s, %v", again, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var hint *ackwise.HintError
	if _, err := runtimeDir(); !errors.As(err, &hint) {
		t.Errorf("one that others can read: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(tmp, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := runtimeDir(); !errors.As(err, &hint) {
		t.Errorf("a symbolic link: %v", err)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	b := &boundedListener{Listener: ln, slots: make(chan struct{}, 1), done: make(chan struct{})}
	accepted := make(chan net.Conn)
	go func() { // ends when the listener is closed
		defer close(accepted)
		for {
			c, err := b.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	var clients []net.Conn
	for range 2 {
		c, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
	}
	first := <-accepted
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	select {
	case <-accepted:
		t.Error("a second connection was accepted beside the first")
	case <-ctx.Done():
	}
	if err := errors.Join(first.Close(), first.Close()); err == nil {
		t.Error("closing twice is no error of the connection")
	}
	second, ok := <-accepted
	if !ok {
		t.Fatal("the second connection was not accepted after the first had closed")
	}
	if err := errors.Join(second.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	if _, ok := <-accepted; ok {
		t.Error("accepted after Close")
	}
	for _, c := range clients {
		_ = c.Close()
	}
}
