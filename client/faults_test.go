package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// TestAStoppedOwner: an owner that does not answer is named, calls end within their bound, and when
// it goes on, everything goes on, sessions and leases included.
func TestAStoppedOwner(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	rec := newRecord()
	owner := rec.start(t, "idle", dir, "")
	rec.wait(t, "ready", 1)
	const wait = 400 * time.Millisecond
	o := owning()
	o.WaitOwner = wait
	c := open(t, dir, o)
	r, err := c.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, c, "a/1")
	ds, err := r.Receive(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}

	owner.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	began := time.Now()
	_, err = r.Receive(ctx, 1)
	silent(t, "receive", err, owner.cmd.Process.Pid)
	res := c.Publish(ctx, []ackwise.Message{{ID: "b/1", Topic: topic, Key: "b"}})[0]
	silent(t, "publish", res.Err, owner.cmd.Process.Pid)
	if res.Class == ackwise.ResultAccepted || res.Class == ackwise.ResultRejected {
		t.Errorf("publish: %+v", res)
	}
	_, err = c.Books(ctx)
	silent(t, "books", err, owner.cmd.Process.Pid)
	if _, err := client.Open(ctx, dir, o); err == nil {
		t.Error("opened a directory whose owner is stopped")
	} else {
		silent(t, "open", err, owner.cmd.Process.Pid)
	}
	if took := time.Since(began); took > 8*wait || took < wait {
		t.Errorf("four calls took %s, each is to wait %s", took, wait)
	}

	owner.signal(syscall.SIGCONT)
	eventually(t, "the owner goes on", func() bool {
		_, err := c.Books(t.Context())
		return err == nil
	})
	if got := r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token}}); got[0].Err != nil {
		t.Errorf("the lease across the owner's stop: %+v", got)
	}
	publish(t, c, "b/1") // a repeat, or not
	if ds, err := r.Receive(t.Context(), 1); err != nil || ds[0].ID != "b/1" {
		t.Errorf("received %v, %v", ds, err)
	}

	owner.signal(syscall.SIGSTOP)
	owner.signal(syscall.SIGKILL)
	eventually(t, "somebody has taken over", func() bool {
		m := ackwise.Message{ID: "c/1", Topic: topic, Key: "c", Body: []byte("c/1")}
		return c.Publish(t.Context(), []ackwise.Message{m})[0].Class == ackwise.ResultAccepted
	})
	if !c.Owner() {
		t.Error("nobody took over from a stopped owner that was killed")
	}
}

// eventually tries again what a busy machine may not do within a client's own patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if pause.For(t.Context(), 10*time.Millisecond); time.Now().After(end) {
			t.Fatalf("waited for 30 s: %s", what)
		}
	}
}

// silent checks that an error names the owner that does not answer, since when, and what to do.
func silent(t *testing.T, what string, err error, pid int) {
	t.Helper()
	var e *client.OwnerError
	var hint *ackwise.HintError
	if !errors.As(err, &e) || !errors.As(err, &hint) {
		t.Fatalf("%s: %v, want an *OwnerError with a hint", what, err)
	}
	if e.PID != pid || !e.Alive || time.Since(e.Since) > time.Minute {
		t.Errorf("%s: %+v of process %d", what, e, pid)
	}
	for _, part := range []string{fmt.Sprintf("process %d", pid), "since", "kill -CONT"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %q does not say %q", what, err, part)
		}
	}
}

func TestADirectoryThatIsNotThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	o := owning()
	o.Create = false
	var hint *ackwise.HintError
	_, err := client.Open(t.Context(), missing, o)
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &hint) ||
		!strings.Contains(err.Error(), missing) {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	empty := t.TempDir()
	if _, err := client.Open(t.Context(), empty, o); !errors.As(err, &hint) {
		t.Errorf("empty: %v", err)
	}
	file := filepath.Join(empty, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(t.Context(), file, o); err == nil {
		t.Error("opened a file as a directory")
	}
	open(t, missing, owning())
}

// TestAReadOnlyDirectory uses a place where the kernel lets nobody make files, not even root.
func TestAReadOnlyDirectory(t *testing.T) {
	const dir = "/sys/kernel"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no read-only directory here")
	}
	began := time.Now()
	_, err := client.Open(t.Context(), dir, owning())
	if err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("open: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to say so", took)
	}
}

// TestNobodyToOwn: a client that may not own the directory says that nobody does.
func TestNobodyToOwn(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	o := client.Options{WaitOwner: 50 * time.Millisecond}
	var e *client.OwnerError
	if _, err := client.Open(t.Context(), dir, o); !errors.As(err, &e) || e.PID != 0 {
		t.Errorf("an owner that left: %v", err)
	}
	rec := newRecord()
	owner := rec.start(t, "idle", dir, "")
	rec.wait(t, "ready", 1)
	owner.signal(syscall.SIGKILL)
	_, err := client.Open(t.Context(), dir, o)
	if !errors.As(err, &e) || e.PID != owner.cmd.Process.Pid || e.Alive ||
		!strings.Contains(err.Error(), "has ended") {
		t.Errorf("an owner that was killed: %v", err)
	}
}

func TestLongPaths(t *testing.T) {
	runtimeDir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtimeDir)
	long := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	owner := open(t, long, owning())
	other := open(t, long, client.Options{})
	if err := other.CreateTopic(t.Context(), topic, queue.TopicOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := lockfile.Read(long)
	if err != nil || filepath.Dir(info.Socket) != runtimeDir {
		t.Errorf("the socket is %s, %v; want it in %s", info.Socket, err, runtimeDir)
	}
	if err := errors.Join(other.Close(), owner.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(runtimeDir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(runtimeDir, strings.Repeat("r", 110)))
	var hint *ackwise.HintError
	_, err = client.Open(t.Context(), long, owning())
	if !errors.As(err, &hint) || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("no place for a socket: %v", err)
	}
}

// TestAClosedClient: nothing works after Close, and nothing hangs.
func TestAClosedClient(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	c := open(t, dir, owning())
	r, err := c.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { // ends with Close
		_, err := r.Receive(t.Context(), 1)
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, ackwise.ErrClosed) {
		t.Errorf("the waiting Receive: %v", err)
	}
	if _, err := c.Books(t.Context()); !errors.Is(err, ackwise.ErrClosed) {
		t.Errorf("books: %v", err)
	}
	if res := r.Settle(t.Context(), []ackwise.Settlement{{}}); !errors.Is(res[0].Err,
		ackwise.ErrClosed) {
		t.Errorf("settle: %v", res)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close the receiver again: %v", err)
	}
}

// TestACancelledCall: a call that its ctx ends is unknown, or was not attempted.
func TestACancelledCall(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	c := open(t, dir, owning())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res := c.Publish(ctx, []ackwise.Message{{Topic: topic}})[0]
	if res.Class != ackwise.ResultNotAttempted && res.Class != ackwise.ResultUnknown ||
		!errors.Is(res.Err, context.Canceled) || res.ID == "" {
		t.Errorf("a cancelled publish: %+v", res)
	}
	unknown := 0
	for i := range 400 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		ms := []ackwise.Message{{ID: fmt.Sprint("m", i), Topic: topic, Body: []byte{1}}}
		res := c.Publish(ctx, ms)[0]
		cancel()
		switch res.Class {
		case ackwise.ResultUnknown:
			unknown++
		case ackwise.ResultAccepted, ackwise.ResultNotAttempted:
		default:
			t.Errorf("publish %d: %+v", i, res)
		}
		if res = c.Publish(t.Context(), ms)[0]; res.Class != ackwise.ResultAccepted {
			t.Errorf("sent again: %+v", res)
		}
	}
	if unknown == 0 {
		t.Error("no call was cut off: the test shows nothing")
	}
	all, err := c.Books(t.Context())
	if err != nil || all[0].Accepted != 400 {
		t.Errorf("books %+v, %v; want 400 accepted once each", all, err)
	}
}

// TestAStoreThatStopsIsOpenedAgain: Serve and the store belong to one ownership; when the store
// stops, the next one is opened from the disk. Here it is closed under the client.
func TestAStoreThatStopsIsOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	var stores []*queue.Store
	o := owning()
	o.Serve = func(s *queue.Store) (io.Closer, error) {
		stores = append(stores, s)
		return server.Local(s)
	}
	c := open(t, dir, o)
	publish(t, c, "a/1")
	if err := stores[0].Close(); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "a/2")
	all, err := c.Books(t.Context())
	if err != nil || len(stores) != 2 || all[0].Accepted != 2 {
		t.Errorf("%d stores, books %+v, %v", len(stores), all, err)
	}
}

// TestAnOwnerThatIsStillOpening is told from one that does not answer.
func TestAnOwnerThatIsStillOpening(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockfile.Acquire(dir) // and no socket, as while a long log is read
	if err != nil {
		t.Fatal(err)
	}
	o := owning()
	o.WaitOwner = 50 * time.Millisecond
	var e *client.OwnerError
	_, err = client.Open(t.Context(), dir, o)
	if !errors.As(err, &e) || !e.Opening || e.PID != os.Getpid() ||
		!strings.Contains(err.Error(), "has not opened it yet") {
		t.Errorf("open: %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, owning())
}

// TestAServeThatFails gives the directory back.
func TestAServeThatFails(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	o := owning()
	broken := errors.New("no socket today")
	o.Serve = func(*queue.Store) (io.Closer, error) { return nil, broken }
	if _, err := client.Open(t.Context(), dir, o); !errors.Is(err, broken) {
		t.Errorf("open: %v", err)
	}
	open(t, dir, owning())
}

// TestLostDeliveries: a delivery whose lease is gone says so.
func TestLostDeliveries(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	c := open(t, dir, owning())
	publish(t, c, "a/1", "b/1", "c/1")
	r, err := c.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := r.Receive(t.Context(), 3)
	if err != nil || len(ds) != 3 {
		t.Fatal(len(ds), err)
	}
	rs := r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token},
		{Token: ds[1].Token, Outcome: ackwise.OutcomeExtend, Delay: time.Hour},
		{Token: ds[2].Token, Outcome: ackwise.OutcomeExtend, Delay: 100 * time.Millisecond}})
	if err := errors.Join(rs[0].Err, rs[1].Err, rs[2].Err); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-ds[2].Lost():
	case <-ctx.Done():
		t.Fatal("a delivery whose lease ran out does not say so")
	}
	for i, d := range ds[:2] {
		select {
		case <-d.Lost():
			t.Errorf("delivery %d counts as lost", i)
		default:
		}
	}
	if err := c.DeleteSubscription(t.Context(), topic, sub, "test"); err != nil {
		t.Fatal(err)
	}
	rs = r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[1].Token}})
	if rs[0].Err == nil {
		t.Error("settled on a deleted subscription")
	}
}

// TestBodiesOfEverySize pass through whole, also the largest that the limits allow.
func TestBodiesOfEverySize(t *testing.T) {
	o := client.Options{Create: true, Serve: server.Local}
	c := open(t, t.TempDir(), o)
	if err := errors.Join(c.CreateTopic(t.Context(), topic, queue.TopicOptions{}),
		c.CreateSubscription(t.Context(), topic, sub, queue.SubscriptionOptions{})); err != nil {
		t.Fatal(err)
	}
	ms := make([]ackwise.Message, 15)
	for i := range ms {
		ms[i] = ackwise.Message{ID: fmt.Sprint(i), Topic: topic,
			Body: bytes.Repeat([]byte{byte(i * 17)}, 1<<20)} // zero bytes become six each in JSON
	}
	for _, res := range c.Publish(t.Context(), ms) {
		if res.Err != nil {
			t.Fatal(res.Err)
		}
	}
	r, err := c.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(ms); {
		ds, err := r.Receive(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			if !bytes.Equal(d.Body, ms[n].Body) {
				t.Errorf("body %d changed", n)
			}
			n++
		}
	}
}
