package queueorder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// logged is where an operator looks.
type logged struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// want waits until all words were logged.
func (l *logged) want(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, w := range words {
			if !strings.Contains(l.buf.String(), w) {
				return fmt.Sprintf("nothing is logged of %q: %.1000s", w, l.buf.String())
			}
		}
		return ""
	})
}

// gate is a source that can be shut.
type gate struct {
	ackwise.Source
	shut  *atomic.Bool
	tried chan struct{} // it was asked while it was shut
}

func (g *gate) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	if g.shut.Load() {
		select {
		case g.tried <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return g.Source.Receive(ctx, max)
}

// gates are those of a resequencer.
type gates struct {
	source, held atomic.Bool // shut
	tried        chan struct{}
}

func (g *gates) receiver(s *queue.Store) func(context.Context, string, string,
	queue.ReceiverOptions) (ackwise.Source, error) {
	g.tried = make(chan struct{}, 1)
	return func(ctx context.Context, topic, name string, ro queue.ReceiverOptions) (
		ackwise.Source, error) {
		r, err := s.Receiver(ctx, topic, name, ro)
		if err != nil {
			return nil, err
		}
		if topic == in {
			return &gate{Source: r, shut: &g.source, tried: g.tried}, nil
		}
		return &gate{Source: r, shut: &g.held}, nil
	}
}

func holds(t *testing.T, r *running, n int) {
	t.Helper()
	eventually(t, func() string {
		if held := r.Report().Held; held != n {
			return fmt.Sprintf("%d are held, want %d", held, n)
		}
		return ""
	})
}

// A resequencer that was taken over and does not know it leaves alone what the new one holds.
func TestTakenOverInTheMiddleOfADrain(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var old, fresh gates
	old.held.Store(true) // its drain is slow
	fresh.held.Store(true)
	publish(t, s, numbered("k", 2))
	first := start(t, s, Options{Receiver: old.receiver(s)})
	holds(t, first, 1)
	publish(t, s, numbered("k", 1))
	wantKey(t, receive(t, s, 2), "k", numbers("k", 2)...)
	old.source.Store(true)
	<-old.tried // it takes nothing more from the source: the new one is faster
	second := start(t, s, Options{Receiver: fresh.receiver(s)})
	publish(t, s, numbered("k", 4))
	holds(t, second, 1)
	old.held.Store(false) // and the old one's drain goes on
	eventually(t, func() string {
		select {
		case err := <-first.done:
			if !errors.Is(err, ErrTakenOver) {
				t.Fatalf("the first one ended with %v", err)
			}
			return ""
		default:
		}
		if waitingIn(t, s, out+heldSuffix, heldSub) == "" {
			t.Fatal("the first one acked what the second one holds")
		}
		return "the first one goes on"
	})
	second.end(t)
	third := start(t, s, Options{})
	publish(t, s, numbered("k", 3))
	wantKey(t, receive(t, s, 2), "k", "k/3", "k/4")
	third.end(t)
}

// Where the source is at its own bound with messages that were put off, the missing number behind
// them is let in all the same, and an operator is told.
func TestAMissingNumberEntersPastAFullSource(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const many = 40
	if err := s.DeleteSubscription(t.Context(), in, sub, "test"); err != nil {
		t.Fatal(err)
	}
	err := s.CreateSubscription(t.Context(), in, sub, queue.SubscriptionOptions{MaxWaiting: 20})
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= many; n++ {
		publish(t, s, numbered("k", n))
	}
	publish(t, s, numbered("k", 1))
	var log logged
	r := start(t, s, Options{Batch: 10, Logger: log.logger(),
		Order: ordering.ResequencerOptions{MaxHeld: 10, Ask: time.Millisecond}})
	wantKey(t, receive(t, s, many), "k", numbers("k", many)...)
	log.want(t, "MaxHeld", "MaxWaiting", "number 1 of key")
	r.end(t)
	verify(t, s)
}

// busy is a source that has so much else to hand out that it never comes to one message.
type busy struct {
	ackwise.Source
	id string
}

func (b *busy) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	ds, err := b.Source.Receive(ctx, max)
	return slices.DeleteFunc(ds, func(d *ackwise.Delivery) bool { return d.ID == b.id }), err
}

// Where what was put off comes again before anything new is looked at, the missing number behind it
// is let in all the same.
func TestAMissingNumberEntersPastWhatComesAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const many = 12
	for n := 2; n <= many; n++ {
		publish(t, s, numbered("k", n))
	}
	publish(t, s, numbered("k", 1))
	r := start(t, s, Options{Batch: 4, Receiver: func(ctx context.Context, topic, name string,
		ro queue.ReceiverOptions) (ackwise.Source, error) {
		from, err := s.Receiver(ctx, topic, name, ro)
		return &busy{Source: from, id: "k-1"}, err
	}, Order: ordering.ResequencerOptions{MaxHeld: 4, Ask: time.Millisecond}})
	wantKey(t, receive(t, s, many), "k", numbers("k", many)...)
	r.end(t)
	verify(t, s)
}

// A message that is scheduled, or is a dead letter, is not brought before somebody says so.
func TestOnlyWhatIsDueIsBrought(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	publish(t, s, numbered("dead", 1))
	take(t, s, 1, func(*ackwise.Delivery) ackwise.Settlement {
		return ackwise.Settlement{Outcome: ackwise.OutcomeDead, Reason: "poison"}
	})
	later := []ackwise.Message{numbered("later", 1)}
	if rs := s.Schedule(t.Context(), time.Hour, later); rs[0].Err != nil {
		t.Fatal(rs[0].Err)
	}
	for n := 2; n <= 8; n++ {
		publish(t, s, numbered("dead", n), numbered("later", n), numbered("k", n))
	}
	publish(t, s, numbered("k", 1))
	r := start(t, s, Options{Batch: 4, Order: ordering.ResequencerOptions{MaxHeld: 8,
		Ask: time.Millisecond}})
	wantKey(t, receive(t, s, 8), "k", numbers("k", 8)...)
	if rep := r.Report(); rep.Released != 8 || rep.PushedBack == 0 {
		t.Errorf("report %+v", rep)
	}
	r.end(t)
}

// Where the held topic is full, what there is no room for is put off, and the missing number comes.
func TestAFullHeldTopic(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	err := s.CreateTopic(t.Context(), out+heldSuffix, queue.TopicOptions{MaxMessages: 10,
		DedupWindow: queue.NoDedup})
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= 40; n++ {
		publish(t, s, numbered("k", n))
	}
	var log logged
	r := start(t, s, Options{Batch: 4, Logger: log.logger(),
		Order: ordering.ResequencerOptions{Ask: time.Millisecond}})
	log.want(t, "no room to hold", "number 1 of key")
	publish(t, s, numbered("k", 1))
	wantKey(t, receive(t, s, 40), "k", numbers("k", 40)...)
	r.end(t)
	verify(t, s)
}

// While the out topic is full the held topic is drained, but not of what waits to be let go.
func TestDrainWhileTheOutTopicIsFull(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if err := s.DeleteTopic(t.Context(), out, "test"); err != nil {
		t.Fatal(err)
	}
	err := s.CreateTopic(t.Context(), out, queue.TopicOptions{MaxMessages: 5})
	if err == nil {
		err = s.CreateSubscription(t.Context(), out, reader, queue.SubscriptionOptions{Ordered: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	var g gates
	g.held.Store(true)
	var log logged
	r := start(t, s, Options{Receiver: g.receiver(s), Logger: log.logger()})
	publish(t, s, numbered("k", 2), numbered("k", 3), numbered("k", 4), numbered("k", 5),
		numbered("k", 9))
	holds(t, r, 5)
	publish(t, s, numbered("k", 1))
	holds(t, r, 1)
	publish(t, s, numbered("k", 6), numbered("k", 7), numbered("k", 8))
	log.want(t, "no room, waiting")
	g.held.Store(false)
	eventually(t, func() string {
		if left := waitingIn(t, s, out+heldSuffix, heldSub); !strings.HasPrefix(left, "1 ") {
			return fmt.Sprintf("in the held topic: %q", left)
		}
		return ""
	})
	wantKey(t, receive(t, s, 9), "k", numbers("k", 9)...)
	r.end(t)
}

// choosy is a store whose out topic does not take one message.
type choosy struct {
	*queue.Store
	id   string
	open atomic.Bool // it takes it
	hits atomic.Int64
}

func (c *choosy) Commit(ctx context.Context, x queue.Commit) ([]ackwise.Result, error) {
	for i := range x.Publish {
		if m := &x.Publish[i]; m.Topic == out && m.ID == c.id && !c.open.Load() {
			c.hits.Add(1)
			return nil, fmt.Errorf("message %q: %w", m.ID, ackwise.ErrIDConflict)
		}
	}
	return c.Store.Commit(ctx, x)
}

// A held message that the out topic does not take becomes a dead letter of the held topic, and its
// number is missing as parked. Other keys go on. Redriven, it has its place.
func TestAHeldMessageThatCannotGo(t *testing.T) {
	t.Parallel()
	for _, given := range []bool{false, true} {
		t.Run(fmt.Sprintf("given up %v", given), func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			c := &choosy{Store: s, id: "k-2"}
			o := Options{Receiver: new(gates).receiver(s), Order: ordering.ResequencerOptions{
				Ask: time.Millisecond}}
			publish(t, s, numbered("k", 2), numbered("k", 3))
			r := start(t, c, o)
			holds(t, r, 2)
			publish(t, s, numbered("k", 1), numbered("j", 1))
			got := receive(t, s, 2)
			wantKey(t, got, "k", "k/1")
			wantKey(t, got, "j", "j/1")
			const gap = `number 2 of key "k" is missing (parked)`
			oldest(t, r, gap)
			r.end(t)
			r = start(t, c, o) // it stays so
			oldest(t, r, gap)
			publish(t, s, numbered("j", 2))
			wantKey(t, receive(t, s, 1), "j", "j/2")
			want := []string{"k/2", "k/3"}
			if given {
				if gaps, err := r.GiveUp(t.Context(), "k", 2); err != nil || len(gaps) != 1 {
					t.Fatal(gaps, err)
				}
				wantKey(t, receive(t, s, 1), "k", "k/3")
				want = []string{"k/2 late"}
			}
			c.open.Store(true)
			n, err := s.Redrive(t.Context(), out+heldSuffix, heldSub, queue.DeadFilter{}, false)
			if n != 1 || err != nil {
				t.Fatal(n, err)
			}
			wantKey(t, receive(t, s, len(want)), "k", want...)
			if c.hits.Load() == 0 {
				t.Error("the out topic took everything")
			}
			r.end(t)
			verify(t, s)
		})
	}
}

// cut is a store whose commits fail while it is on.
type cut struct {
	*queue.Store
	on atomic.Bool
}

func (c *cut) Commit(ctx context.Context, x queue.Commit) ([]ackwise.Result, error) {
	if c.on.Load() {
		return nil, errBroken
	}
	return c.Store.Commit(ctx, x)
}

// An order whose Run fails is carried out by the next one. One whose caller has left is not.
func TestAnOrderOutlivesARun(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	publish(t, s, numbered("k", 2), numbered("j", 2))
	c := &cut{Store: s}
	r := start(t, c, Options{Receiver: new(gates).receiver(s)})
	holds(t, r, 2)
	eventually(t, func() string { return waitingIn(t, s, in, sub) }) // it is durable that they are
	c.on.Store(true)
	type answer struct {
		gaps []ordering.Gap
		err  error
	}
	told := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		gaps, err := r.GiveUp(ctx, "k", 1)
		told <- answer{gaps, err}
	})
	if err := <-r.done; !errors.Is(err, errBroken) {
		t.Fatalf("it ended with %v", err)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := r.GiveUp(left, "j", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("an order that nobody waits for: %v", err)
	}
	c.on.Store(false)
	run, stop := context.WithCancel(t.Context())
	wg.Go(func() { r.done <- r.Run(run) })
	if a := <-told; a.err != nil || len(a.gaps) != 1 || a.gaps[0].Last != 1 {
		t.Errorf("gave up %v, %v", a.gaps, a.err)
	}
	wantKey(t, receive(t, s, 1), "k", "k/2")
	holds(t, r, 1)
	stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// A gap as long as it may be holds its key no longer than its policy says, and a few searches.
func TestALongGapIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	publish(t, s, numbered("k", 200_000))
	var told events
	r := start(t, s, Options{Observe: told.observe, Order: ordering.ResequencerOptions{
		Policy: but(ordering.Policy{GiveUpAfter: time.Millisecond})}})
	wantKey(t, receive(t, s, 1), "k", "k/200000")
	if words := told.words(); len(words) > 200_000/maxAsked+1 {
		t.Errorf("told %q", words)
	}
	r.end(t)
}
