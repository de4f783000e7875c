package nakadi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/nakadi"
	fake "github.com/ackwise/ackwise/test/nakadi"
)

// begin is a subscription from the begin on, with streams that end at once.
const begin = mine + "&read_from=begin&drain=10ms"

func offset(n int) string {
	if n < 0 {
		return "001-0001--1"
	}
	return fmt.Sprintf("001-0001-%018d", n)
}

// trim drops the events below an ordinal, of which so many are there.
func (b *bed) trim(before, there int) {
	b.Helper()
	if n := b.s.Trim("orders", "0", before); n != there {
		b.Fatalf("%d events have gone, want %d", n, there)
	}
}

// losses collects what a source tells of events that are gone.
type losses struct {
	mu     sync.Mutex // guards events
	events []ackwise.Event
}

func (l *losses) watch(o *nakadi.SourceOptions) {
	o.Log.Observe = func(e ackwise.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if e.Kind == "trimmed" {
			l.events = append(l.events, e)
		}
	}
}

// check wants one loss of orders/0, or none where it is the zero value.
func (l *losses) check(t *testing.T, want nakadi.TrimmedError) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if want == (nakadi.TrimmedError{}) {
		if len(l.events) > 0 {
			t.Errorf("told %v", l.events)
		}
		return
	}
	if len(l.events) != 1 || l.events[0].ID != "orders/0" {
		t.Fatalf("told %v", l.events)
	}
	if got, ok := errors.AsType[*nakadi.TrimmedError](l.events[0].Err); !ok || *got != want {
		t.Errorf("told %v, want %v", l.events[0].Err, &want)
	}
}

// next receives some messages; no error may say that more will never come.
func next(t *testing.T, src ackwise.Source) []*ackwise.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		ds, err := src.Receive(ctx, 1)
		var f interface{ Final() bool }
		if ctx.Err() != nil || errors.As(err, &f) && f.Final() {
			t.Fatalf("nothing comes: %v", err)
		}
		if len(ds) > 0 {
			return ds
		}
	}
}

// handle receives and settles so many messages, one after the other, and names them.
func handle(t *testing.T, src ackwise.Source, n int) string {
	t.Helper()
	var names []string
	for len(names) < n {
		ds := next(t, src)
		settle(t, src, ds...)
		names = append(names, ds[0].ID)
	}
	return strings.Join(names, " ")
}

// refused wants a source to end with a loss, again and again.
func refused(t *testing.T, src ackwise.Source, want nakadi.TrimmedError) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for n := 0; n < 2; {
		ds, err := src.Receive(ctx, 9)
		var f interface{ Final() bool }
		if n == 0 && ctx.Err() == nil && len(ds) == 0 && !errors.As(err, &f) {
			continue // the one before still has its slot
		}
		n++
		got, ok := errors.AsType[*nakadi.TrimmedError](err)
		if len(ds) > 0 || !ok || *got != want || !errors.As(err, &f) || !f.Final() {
			t.Fatalf("%d deliveries, %v, want %v", len(ds), err, &want)
		}
		for _, part := range []string{want.EventType, "partition 0", want.After, want.Before,
			"on_trimmed=skip"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("no %q in %v", part, err)
			}
		}
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
}

// away settles some messages of six, and trims others while nobody reads.
func away(t *testing.T, settled, before int) *bed {
	t.Helper()
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.oneKey(6)
	src := b.source(begin, nil)
	handle(t, src, settled)
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	b.trim(before, before)
	return b
}

func loss(after, before int) nakadi.TrimmedError {
	return nakadi.TrimmedError{EventType: "orders", Partition: "0",
		After: offset(after), Before: offset(before)}
}

// TestTrimmedStops: events that went while nobody read end the source, which moves nothing; with
// on_trimmed=skip it is told once, and what is left comes.
func TestTrimmedStops(t *testing.T) {
	t.Parallel()
	b := away(t, 2, 4)
	var told losses
	refused(t, b.source(begin, told.watch), loss(1, 4))
	told.check(t, nakadi.TrimmedError{})
	cursors := "/subscriptions/" + b.subscription() + "/cursors"
	if text := b.ask(cursors); !strings.Contains(text, offset(1)) {
		t.Errorf("committed %s", text)
	}

	src := b.source(begin+"&on_trimmed=skip", told.watch)
	if d := next(t, src)[0]; d.ID != "m4" {
		t.Errorf("got %s", d.ID)
	}
	b.cut(1)
	if got := handle(t, src, 2); got != "m4 m5" {
		t.Errorf("again %s", got)
	}
	told.check(t, loss(1, 4))
	if err := src.Close(); err != nil {
		t.Error(err)
	}

	b.oneKey(1)
	handle(t, b.source(begin, nil), 1) // all is well again
	if text := b.ask(cursors); !strings.Contains(text, offset(6)) {
		t.Errorf("committed %s", text)
	}
}

// TestTrimmedToTheEnd: nothing is left, so nothing is behind, though Nakadi counts what is gone.
func TestTrimmedToTheEnd(t *testing.T) {
	t.Parallel()
	b := away(t, 2, 6)
	refused(t, b.source(begin, nil), loss(1, 6))
	var told losses
	src := b.source(begin+"&on_trimmed=skip", told.watch)
	if stats := b.ask("/subscriptions/" + b.subscription() + "/stats"); !strings.Contains(stats,
		`"unconsumed_events":4`) {
		t.Errorf("stats %s", stats)
	}
	lag := func(want int64) {
		t.Helper()
		until(t, fmt.Sprintf("the lag is %d", want), func() bool {
			n, _, err := src.(lagging).Lag(t.Context())
			return err == nil && n == want
		})
	}
	lag(0)
	told.check(t, loss(1, 6))
	b.oneKey(1)
	lag(1)
	handle(t, src, 1)
	lag(0)
	b.oneKey(1)
	lag(1)
}

// TestTrimmedBehindTheCursor: what was settled may go.
func TestTrimmedBehindTheCursor(t *testing.T) {
	t.Parallel()
	for _, before := range []int{3, 4, 6} {
		settled := before
		if before == 3 {
			settled = 4
		}
		b := away(t, settled, before)
		b.oneKey(1)
		var told losses
		src := b.source(begin, told.watch)
		handle(t, src, 7-settled)
		told.check(t, nakadi.TrimmedError{})
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestTrimmedBeforeAnybodyRead: a subscription has lost what went since its place was fixed, though
// nobody had read; and nothing of what went before it.
func TestTrimmedBeforeAnybodyRead(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"subscribed before": true, "subscribed later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, fake.Options{})
			b.kind("orders", 1, nil)
			b.oneKey(6)
			if before {
				b.subscribe("begin")
			}
			b.trim(4, 4)
			if before {
				refused(t, b.source(begin, nil), loss(-1, 4))
				return
			}
			var told losses
			src := b.source(begin, told.watch)
			if d := next(t, src)[0]; d.ID != "m4" {
				t.Errorf("got %s", d.ID)
			}
			b.cut(3)
			if got := handle(t, src, 2); got != "m4 m5" {
				t.Errorf("again %s", got)
			}
			told.check(t, nakadi.TrimmedError{})
		})
	}
}

// TestTrimmedBeforeTheFirstSettlement: what was handed out and never settled may be lost too; and a
// subscription from the end has a place of its own from the start.
func TestTrimmedBeforeTheFirstSettlement(t *testing.T) {
	t.Parallel()
	t.Run("handed out", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, fake.Options{})
		b.kind("orders", 1, nil)
		b.oneKey(6)
		query := begin + "&notes=file:" + t.TempDir()
		src := b.source(query, nil)
		next(t, src)
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
		b.trim(4, 4)
		refused(t, b.source(query, nil), loss(-1, 4))
		var told losses
		src = b.source(query+"&on_trimmed=skip", told.watch)
		if got := handle(t, src, 2); got != "m4 m5" {
			t.Errorf("got %s", got)
		}
		told.check(t, loss(-1, 4))
		if text := b.ask("/subscriptions/" + b.subscription() + "/cursors"); !strings.Contains(text,
			offset(5)) {
			t.Errorf("committed %s", text)
		}
	})
	t.Run("from the end", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, fake.Options{})
		b.kind("orders", 1, nil)
		b.oneKey(3)
		b.subscribe("end")
		b.oneKey(3)
		b.trim(3, 3)
		src := b.source(mine, nil)
		next(t, src) // what is behind the end is there
		if err := src.Close(); err != nil {
			t.Fatal(err)
		}
		b.trim(5, 2)
		refused(t, b.source(mine, nil), loss(2, 5))
	})
}

// TestTrimmedWhileLookedUp: what a stream has sent is not gone, though the server has dropped it.
func TestTrimmedWhileLookedUp(t *testing.T) {
	t.Parallel()
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.oneKey(1)
	src := b.source(mine, nil)
	handle(t, src, 1)
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	b.oneKey(3)
	b.s.Inject(fake.Fault{Kind: fake.Slow, On: "partitions", Times: 1, Delay: 2 * time.Second})
	src = b.source(mine+"&max_uncommitted=1", nil)
	until(t, "its partition is looked up", func() bool { return b.s.Fired(fake.Slow) > 0 })
	b.trim(3, 3)
	for _, want := range []int{1, 3} {
		ds := next(t, src)
		if ds[0].Position != ackwise.Position(offset(want)) {
			t.Errorf("got %s, want %s", ds[0].Position, offset(want))
		}
		settle(t, src, ds...)
	}
}

// subscribe makes the subscription that mine asks for, and nobody reads it.
func (b *bed) subscribe(from string) {
	b.Helper()
	b.send(http.MethodPost, "/subscriptions", `{"owning_application":"test",`+
		`"event_types":["orders"],"consumer_group":"default","read_from":"`+from+`"}`)
}

// cut ends the stream, and leaves the cursor where it is committed.
func (b *bed) cut(committed int) {
	b.Helper()
	b.send(http.MethodPatch, "/subscriptions/"+b.subscription()+"/cursors",
		`{"items":[{"event_type":"orders","partition":"0","offset":"`+offset(committed)+`"}]}`)
}

func (b *bed) send(method, path, body string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, "http://"+b.host+path,
		strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		b.Fatal(res.Status)
	}
}

// TestTrimmedOption reads it from a URL.
func TestTrimmedOption(t *testing.T) {
	for text, want := range map[string]bool{"": false, "&on_trimmed=stop": false,
		"&on_trimmed=skip": true} {
		o, err := nakadi.ParseSource("nakadi://h?subscription=a" + text)
		if err != nil || o.SkipTrimmed != want {
			t.Errorf("%s: %t, %v", text, o.SkipTrimmed, err)
		}
	}
	_, err := nakadi.ParseSource("nakadi://h?subscription=a&on_trimmed=skp")
	if err == nil || !strings.Contains(err.Error(), `did you mean "skip"?`) {
		t.Errorf("%v", err)
	}
}
