package nakadi_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/nakadi"
	fake "github.com/ackwise/ackwise/test/nakadi"
)

// seen collects what a source tells its observer.
type seen struct {
	mu    sync.Mutex // guards kinds
	kinds []string
}

func (s *seen) observe(e ackwise.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds = append(s.kinds, e.Kind)
}

func (s *seen) has(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.kinds, kind)
}

func (b *bed) ask(path string) string {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://"+b.host+path, nil)
	if err != nil {
		b.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return string(text)
}

// subscription returns the ID of the only subscription.
func (b *bed) subscription() string {
	b.Helper()
	text := b.ask("/subscriptions?owning_application=test")
	_, rest, _ := strings.Cut(text, `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// oneKey publishes n messages of one key, which are in one partition.
func (b *bed) oneKey(n int) {
	b.Helper()
	sink := b.sink(plain)
	for i := range n {
		if got := classes(b.T, sink, object(i, "k")); got != "accepted" {
			b.Fatal(got)
		}
	}
}

// TestCursorNeverPassesUnsettled: messages that are settled out of order commit no cursor beyond
// the first that is not.
func TestCursorNeverPassesUnsettled(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	if got := classes(t, b.sink(plain), objects(5)...); strings.Count(got, "accepted") != 5 {
		t.Fatal(got)
	}
	src := b.source(mine, nil)
	ds := receive(t, src, 5)
	settle(t, src, ds[1], ds[2], ds[4])
	cursors := "/subscriptions/" + b.subscription() + "/cursors"
	if text := b.ask(cursors); !strings.Contains(text, "001-0001--1") {
		t.Errorf("committed %s", text)
	}
	settle(t, src, ds[0])
	if text := b.ask(cursors); !strings.Contains(text, "000000000000000002") {
		t.Errorf("committed %s", text)
	}
	settle(t, src, ds[3])
	if text := b.ask(cursors); !strings.Contains(text, "000000000000000004") {
		t.Errorf("committed %s", text)
	}
}

// TestCausesWithoutNotes: what was there before the source is unknown, what came later is first;
// and what this source has counted lives as long as it does, through its streams.
func TestCausesWithoutNotes(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.oneKey(1)
	src := b.source(mine+"&commit_timeout=3s&read_from=begin", nil)
	d := receive(t, src, 1)[0]
	if d.Cause != ackwise.CauseUnknown {
		t.Errorf("in the backlog: %s", d.Cause)
	}
	src.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token, Outcome: ackwise.OutcomeNack,
		Reason: "no", Delay: 7 * time.Second}}) // longer than a stream lives
	d = receive(t, src, 1)[0]
	if d.Cause != ackwise.CauseFailed || d.Counts.Failures != 1 || d.Attempt != 2 {
		t.Errorf("through a stream: %s, %+v", d.Cause, d.Counts)
	}
	settle(t, src, d)
	if got := classes(t, b.sink(plain), object(7, "k")); got != "accepted" {
		t.Fatal(got)
	}
	if d = receive(t, src, 1)[0]; d.Cause != ackwise.CauseFirst {
		t.Errorf("later: %s", d.Cause)
	}
	if f := src.Features(); f.Counts || f.Causes || f.Extend || f.Lease != 3*time.Second {
		t.Errorf("features %+v", f)
	}
}

// TestCommitTimeout: a handler that takes longer loses its stream, is told so, and the message
// comes again; its late ack is refused.
func TestCommitTimeout(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.oneKey(2)
	var told seen
	src := b.source(mine+"&commit_timeout=3s&notes=file:"+t.TempDir(),
		func(o *nakadi.SourceOptions) { o.Log.Observe = told.observe })
	d := receive(t, src, 1)[0]
	if d.Cause != ackwise.CauseFirst {
		t.Errorf("first: %s", d.Cause)
	}
	until(t, "told", func() bool {
		select {
		case <-d.Lost():
			return true
		default:
			return false
		}
	})
	again := receive(t, src, 1)[0]
	if again.ID != d.ID || again.Cause != ackwise.CauseRebalanced {
		t.Errorf("again: %s %s", again.ID, again.Cause)
	}
	if r := src.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}}); !errors.Is(r[0].Err,
		ackwise.ErrLeaseLost) {
		t.Errorf("late ack: %v", r[0].Err)
	}
	settle(t, src, again)
	if !told.has("stream-ended") {
		t.Errorf("told %v", told.kinds)
	}
}

// TestBusySlot: with more members than partitions Receive says why nothing comes, and goes on when
// there is a slot.
func TestBusySlot(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	first := b.source(mine, nil)
	until(t, "taken", func() bool {
		return strings.Contains(b.ask("/subscriptions/"+b.subscription()+"/stats"), `"assigned"`)
	})
	var told seen
	second := b.source(mine, func(o *nakadi.SourceOptions) { o.Log.Observe = told.observe })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := second.Receive(ctx, 1)
	if err == nil || !strings.Contains(err.Error(), "No free slots") ||
		!strings.Contains(err.Error(), "hint") || !told.has("slot-busy") {
		t.Errorf("told %v: %v", told.kinds, err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	b.oneKey(1)
	settle(t, second, receive(t, second, 1)...)
}

// TestNotesFence: a member whose partition went to another one and came back, without its knowing,
// does not hand out on its old note.
func TestNotesFence(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.oneKey(1)
	dir := t.TempDir()
	src := b.source(strings.Replace(mine, "100ms", "1h", 1)+"&notes=file:"+dir, nil)
	settle(t, src, receive(t, src, 1)...)
	notes, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, e := range notes { // another member's, from between
		if strings.HasSuffix(e.Name(), ".0.note") {
			changed++
			if err := os.WriteFile(dir+"/"+e.Name(), []byte("another"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if changed != 1 {
		t.Fatalf("%d notes", changed)
	}
	b.oneKey(1)
	d := receive(t, src, 1)[0]
	if d.Cause != ackwise.CauseUnknown { // the note is not readable, and it was heeded
		t.Errorf("handed out as %s", d.Cause)
	}
	settle(t, src, d)
}

// TestSecondMember: partitions move, nothing is lost, nothing is handled by two.
func TestSecondMember(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 4, nil)
	notes := "&notes=file:" + t.TempDir()
	first := b.source(mine+notes, nil)
	if got := classes(t, b.sink(plain), objects(40)...); strings.Contains(got, "un") {
		t.Fatal(got)
	}
	held := receive(t, first, 40)
	second := b.source(mine+notes, nil)
	stats := func(state string) bool {
		return strings.Contains(b.ask("/subscriptions/"+b.subscription()+"/stats"), state)
	}
	until(t, "reassigning", func() bool { return stats("reassigning") })
	// A partition may be seen to have moved before the commit that let it move was heard of: its acks
	// are then called lost. None of them comes again, which the causes below would show.
	var acks []ackwise.Settlement
	for _, d := range held {
		acks = append(acks, ackwise.Settlement{Token: d.Token})
	}
	for i, res := range first.Settle(t.Context(), acks) {
		if res.Err != nil && !errors.Is(res.Err, ackwise.ErrLeaseLost) {
			t.Fatalf("settle %s: %v", held[i].ID, res.Err)
		}
	}
	until(t, "moved", func() bool { return !stats("reassigning") })
	sink := b.sink(plain)
	got := map[string]bool{}
	for n, more := 40, 0; more < 4; n++ {
		m := object(n, fmt.Sprintf("k%d", n))
		if c := classes(t, sink, m); c != "accepted" {
			t.Fatal(c)
		}
		for name, src := range map[string]ackwise.Source{"first": first, "second": second} {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			ds, _ := src.Receive(ctx, 10)
			cancel()
			for _, d := range ds {
				if d.Cause != ackwise.CauseFirst {
					t.Errorf("%s: %s", d.ID, d.Cause)
				}
				got[name+d.Partition] = true
			}
			settle(t, src, ds...)
		}
		if len(got) >= 4 {
			more++ // somebody else may come yet
		}
		if n > 400 {
			t.Fatalf("who has what: %v", got)
		}
	}
	has := map[string]int{}
	for key := range got {
		has[strings.SplitN(key, "orders", 2)[0]]++
	}
	if len(got) != 4 || has["first"] != 2 || has["second"] != 2 {
		t.Errorf("who has what: %v", got)
	}
}

// TestForeignEvents: what another producer wrote has an ID, a key and headers all the same.
func TestForeignEvents(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	event := `{"metadata":{"eid":"00000000-0000-4000-8000-000000000001","occurred_at":` +
		`"2026-01-02T03:04:05.5Z","span_ctx":{"b":"2","a":"1"}},"key":"AA 1"}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+b.host+"/event-types/orders/events", strings.NewReader("["+event+"]"))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	src := b.source(mine, nil)
	d := receive(t, src, 1)[0]
	if d.ID != "00000000-0000-4000-8000-000000000001" || d.Key != "AA 1" || d.Topic != "orders" ||
		!d.Time.Equal(time.Date(2026, 1, 2, 3, 4, 5, 500_000_000, time.UTC)) ||
		len(d.Headers) != 2 || d.Headers[0].Name != "a" ||
		!strings.Contains(string(d.Body), "received_at") {
		t.Errorf("%+v %s", d.Message, d.Body)
	}
	// Relayed to another type it keeps its ID: the metadata of the first is replaced.
	b.kind("copies", 1, nil)
	m := d.Message
	m.Topic = "copies"
	if got := classes(t, b.sink("?tls=false"), m); got != "accepted" {
		t.Error(got)
	}
	if b.s.Copies("copies")[d.ID] != 1 {
		t.Error("it has another ID")
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	b := newBed(t, fake.Options{})
	for query, want := range map[string]string{
		"subscription=nope":                             "no subscription",
		"event_types=orders&application=test":           "create=true",
		"event_types=none&application=test&create=true": "not found",
	} {
		if strings.HasPrefix(query, "event_types=orders") {
			b.kind("orders", 1, nil)
		}
		o, err := nakadi.ParseSource("nakadi://" + b.host + "?tls=false&" + query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nakadi.OpenSource(t.Context(), o); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", query, err)
		}
	}
	o, err := nakadi.ParseSink("nakadi://" + b.host + "/none?tls=false")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nakadi.OpenSink(t.Context(), o); err == nil ||
		!strings.Contains(err.Error(), "event type none") {
		t.Errorf("sink: %v", err)
	}
	if o, err = nakadi.ParseSink("nakadi://" + b.host + "/orders?tls=false&wrap=data"); err != nil {
		t.Fatal(err)
	}
	if _, err := nakadi.OpenSink(t.Context(), o); err == nil ||
		!strings.Contains(err.Error(), "category business") {
		t.Errorf("wrap: %v", err)
	}
}

// TestTLSFailureIsSaid: a plain server behind an address that asks for TLS.
func TestTLSFailureIsSaid(t *testing.T) {
	b := newBed(t, fake.Options{})
	o, err := nakadi.ParseSink("nakadi://" + b.host + "/orders")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nakadi.OpenSink(t.Context(), o); err == nil ||
		!strings.Contains(err.Error(), "HTTPS") {
		t.Errorf("%v", err)
	}
}

// TestDeletedSubscription ends the source for good.
func TestDeletedSubscription(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	src := b.source(mine, nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete,
		"http://"+b.host+"/subscriptions/"+b.subscription(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = src.Receive(ctx, 1)
	var final interface{ Final() bool }
	if !errors.As(err, &final) || !final.Final() || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
}

// TestConnectionThatEndsIsNoEnd: an EOF of the network is told, and the source goes on.
func TestConnectionThatEndsIsNoEnd(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.s.Inject(fake.Fault{Kind: fake.Down, On: "stream", Times: 2})
	src := b.source(mine, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := src.Receive(ctx, 1); err == nil {
		t.Error("that the connection has ended is not told")
	}
	b.oneKey(1)
	settle(t, src, receive(t, src, 1)...)
	if b.s.Fired(fake.Down) == 0 {
		t.Error("no connection has ended")
	}
}
