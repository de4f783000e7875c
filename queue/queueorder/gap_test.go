package queueorder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// events keeps what a resequencer tells.
type events struct {
	mu  sync.Mutex // guards all
	all []ackwise.Event
}

func (e *events) observe(x ackwise.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, x)
}

// words returns the events as short texts.
func (e *events) words() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var words []string
	for _, x := range e.all {
		if gap, ok := errors.AsType[*ordering.GapError](x.Err); ok {
			words = append(words, fmt.Sprintf("%s %s %d-%d %s", x.Kind, x.Key, gap.Gap.First,
				gap.Gap.Last, gap.Gap.State))
			continue
		}
		words = append(words, x.Kind+" "+x.ID)
	}
	slices.Sort(words)
	return words
}

func (e *events) want(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, func() string {
		if got := e.words(); !slices.Equal(got, want) {
			return fmt.Sprintf("told %q, want %q", got, want)
		}
		return ""
	})
}

func newStore(t *testing.T) *queue.Store {
	t.Helper()
	s := openStore(t, t.TempDir())
	setUpStore(t, s)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// take receives what the source has, before a resequencer does, and settles it.
func take(t *testing.T, s *queue.Store, n int,
	settle func(d *ackwise.Delivery) ackwise.Settlement) {
	t.Helper()
	r, err := s.Receiver(t.Context(), in, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		ds, err := r.Receive(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		st := settle(ds[0])
		st.Token = ds[0].Token
		if res := r.Settle(t.Context(), []ackwise.Settlement{st}); res[0].Err != nil {
			t.Fatal(res[0].Err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// but gives every key a policy but those that wait.
func but(p ordering.Policy) func(string) ordering.Policy {
	return func(key string) ordering.Policy {
		if strings.HasPrefix(key, "wait") {
			return ordering.Policy{}
		}
		return p
	}
}

func oldest(t *testing.T, r *running, want string) {
	t.Helper()
	eventually(t, func() string {
		gap := r.Report().Oldest
		if gap == nil || gap.String() != want {
			return fmt.Sprintf("the oldest gap is %v, want %s", gap, want)
		}
		return ""
	})
}

// A missing number that is a dead letter of the source is told as parked; redriven, its key goes on
// in order.
func TestADeadLetterIsParkedAndComesBack(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("wait", 1))
	take(t, s, 1, func(*ackwise.Delivery) ackwise.Settlement {
		return ackwise.Settlement{Outcome: ackwise.OutcomeDead, Reason: "poison"}
	})
	publish(t, s, numbered("wait", 3), numbered("wait", 2))
	r := start(t, s, Options{Order: ordering.ResequencerOptions{Ask: time.Millisecond}})
	oldest(t, r, `number 1 of key "wait" is missing (parked)`)
	n, err := s.Redrive(t.Context(), in, sub, queue.DeadFilter{}, false)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	wantKey(t, receive(t, s, 3), "wait", numbers("wait", 3)...)
	wantNothing(t, s)
	r.end(t)
}

// Late, parked and lost are told apart, and each key's policy is followed: here all but the waiting
// one go on, and say without what.
func TestLateParkedAndLostAreToldApart(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("late", 1), numbered("parked", 1), numbered("lost", 1),
		numbered("wait", 1))
	take(t, s, 4, func(d *ackwise.Delivery) ackwise.Settlement {
		return map[string]ackwise.Settlement{
			"late":   {Outcome: ackwise.OutcomeSnooze, Delay: time.Hour},
			"parked": {Outcome: ackwise.OutcomeDead, Reason: "poison"},
			"lost":   {Outcome: ackwise.OutcomeDrop, Reason: "test"},
			"wait":   {Outcome: ackwise.OutcomeDrop, Reason: "test"},
		}[d.Key]
	})
	var told events
	for _, key := range []string{"late", "parked", "lost", "wait"} {
		publish(t, s, numbered(key, 2))
	}
	o := Options{Observe: told.observe, Order: ordering.ResequencerOptions{Ask: time.Millisecond,
		Policy: but(ordering.Policy{GiveUpAfter: 20 * time.Millisecond})}}
	r := start(t, s, o)
	got := receive(t, s, 3)
	for _, key := range []string{"late", "parked", "lost"} {
		wantKey(t, got, key, key+"/2")
	}
	told.want(t, "gave-up late 1-1 late", "gave-up lost 1-1 lost", "gave-up parked 1-1 parked")
	oldest(t, r, `number 1 of key "wait" is missing (lost)`)
	rep := r.Report()
	if rep.GivenUp[ordering.Late] != 1 || rep.GivenUp[ordering.Parked] != 1 ||
		rep.GivenUp[ordering.Lost] != 1 || rep.Held != 1 {
		t.Errorf("report %+v", rep)
	}
	// A dead letter that comes back after that is late: it goes, and is marked; once.
	if _, err := s.Redrive(t.Context(), in, sub, queue.DeadFilter{}, false); err != nil {
		t.Fatal(err)
	}
	wantKey(t, receive(t, s, 1), "parked", "parked/1 late")
	// A person's order lets the waiting key go.
	gaps, err := r.GiveUp(t.Context(), "wait", 5)
	if err != nil || len(gaps) != 1 || gaps[0].Last != 1 {
		t.Errorf("gave up %v, %v", gaps, err)
	}
	wantKey(t, receive(t, s, 1), "wait", "wait/2")
	r.end(t)
	verify(t, s)
}

// A number that is known to be somewhere is waited for longer than one that is lost.
func TestKnownNumbersGetMoreTime(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("parked", 1))
	take(t, s, 1, func(*ackwise.Delivery) ackwise.Settlement {
		return ackwise.Settlement{Outcome: ackwise.OutcomeDead, Reason: "poison"}
	})
	publish(t, s, numbered("parked", 2), numbered("lost", 2))
	r := start(t, s, Options{Order: ordering.ResequencerOptions{Ask: time.Millisecond,
		Policy: but(ordering.Policy{GiveUpAfter: time.Millisecond,
			Known: time.Hour})}})
	wantKey(t, receive(t, s, 1), "lost", "lost/2")
	oldest(t, r, `number 1 of key "parked" is missing (parked)`)
	r.end(t)
}

// What comes after its number was given up can be dropped, with a reason that is counted.
func TestLateCanBeDropped(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("k", 2))
	var told events
	r := start(t, s, Options{Observe: told.observe, Order: ordering.ResequencerOptions{DropLate: true,
		Ask: time.Millisecond, Policy: but(ordering.Policy{GiveUpAfter: time.Millisecond})}})
	wantKey(t, receive(t, s, 1), "k", "k/2")
	publish(t, s, numbered("k", 1))
	told.want(t, "gave-up k 1-1 lost", "late k-1")
	wantNothing(t, s)
	r.end(t)
	subs, err := s.Subscriptions(t.Context(), in)
	if err != nil || subs[0].Books.Dropped != 1 || len(subs[0].Books.DroppedFor) != 1 {
		t.Errorf("%+v, %v", subs[0].Books, err)
	}
}

// The policy that stops does so, and goes on when the number has come.
func TestStopAndGoOn(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("k", 2))
	o := Options{Order: ordering.ResequencerOptions{Ask: 300 * time.Millisecond,
		Policy: but(ordering.Policy{StopAfter: time.Millisecond})}}
	r := start(t, s, o)
	err := <-r.done
	stop, ok := errors.AsType[*ordering.GapError](err)
	if !ok || stop.Gap.Key != "k" || stop.Gap.State != ordering.Lost {
		t.Fatalf("it ended with %v", err)
	}
	publish(t, s, numbered("k", 1))
	r = start(t, s, o) // it is given its time to see what has come
	wantKey(t, receive(t, s, 2), "k", numbers("k", 2)...)
	r.end(t)
}

// Messages whose order must be wrong become dead letters with a reason; plain repeats are settled;
// what has no key goes through.
func TestWrongOrderIsDeadLettered(t *testing.T) {
	s := newStore(t)
	bare := ackwise.Message{Topic: in, ID: "bare", Key: "k", Body: []byte("bare")}
	words := numbered("k", 1)
	words.ID, words.Headers[0].Value = "words", []byte("one")
	again := numbered("k", 1)
	again.ID = "again" // the same body under another ID
	other := numbered("k", 1)
	other.ID, other.Body = "other", []byte("another body")
	early := numbered("k", 3)
	early.ID, early.Body = "early", []byte("another body of what is held")
	free := ackwise.Message{Topic: in, ID: "free", Body: []byte("no key")}
	publish(t, s, numbered("k", 1), numbered("k", 3), bare, words, again, other, early, free,
		numbered("k", 5_000_000), numbered("k", 2))
	var told events
	r := start(t, s, Options{Observe: told.observe, Batch: 1})
	got := receive(t, s, 4)
	wantKey(t, got, "k", numbers("k", 3)...)
	wantKey(t, got, "", "no key")
	told.want(t, "refused bare", "refused early", "refused k-5000000", "refused other",
		"refused words")
	letters, err := s.DeadLetters(t.Context(), in, sub, queue.DeadFilter{})
	if err != nil || len(letters) != 5 {
		t.Fatalf("%d dead letters, %v", len(letters), err)
	}
	for i, reason := range []string{"no header", "cannot be read", "another body", "another body",
		"jumps"} {
		if !strings.Contains(letters[i].Error, reason) {
			t.Errorf("%s is dead because of %q, want %q", letters[i].Message.ID, letters[i].Error,
				reason)
		}
	}
	if rep := r.Report(); rep.Duplicates != 1 {
		t.Errorf("report %+v", rep)
	}
	r.end(t)
}

// At its bound a resequencer pushes back: nothing is dropped, and the missing number is found
// behind what there is no room for.
func TestAFullResequencerPushesBack(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	var ms []ackwise.Message
	for n := 150; n > 0; n-- {
		ms = append(ms, numbered("k", n))
	}
	publish(t, s, ms...)
	r := start(t, s, Options{Batch: 50, Order: ordering.ResequencerOptions{MaxHeld: 60}})
	wantKey(t, receive(t, s, 150), "k", numbers("k", 150)...)
	if rep := r.Report(); rep.PushedBack == 0 {
		t.Errorf("nothing was pushed back: %+v", rep)
	}
	wantNothing(t, s)
	r.end(t)
}

// A message that the out topic can never take becomes a dead letter of the source, and the others
// go on.
func TestPoisonOfTheOutTopic(t *testing.T) {
	s := newStore(t)
	used := numbered("k", 2)
	used.Topic, used.Body = out, []byte("of somebody else")
	publish(t, s, used, numbered("k", 1), numbered("k", 2), numbered("k", 3), numbered("j", 1))
	r := start(t, s, Options{Order: ordering.ResequencerOptions{Ask: time.Millisecond}})
	got := receive(t, s, 3)
	wantKey(t, got, "k", "of somebody else", "k/1")
	wantKey(t, got, "j", "j/1")
	oldest(t, r, `number 2 of key "k" is missing (parked)`)
	r.end(t)
}

// A second resequencer takes over; the first one stops and does no harm.
func TestTakeOver(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("k", 1), numbered("k", 3))
	first := start(t, s, Options{})
	wantKey(t, receive(t, s, 1), "k", "k/1")
	second := start(t, s, Options{})
	publish(t, s, numbered("k", 2), numbered("k", 4))
	got := receive(t, s, 3)
	wantKey(t, got, "k", "k/2", "k/3", "k/4")
	for n := 5; ; n++ { // the first one finds out when it has something to commit
		publish(t, s, numbered("k", n))
		wantKey(t, receive(t, s, 1), "k", fmt.Sprint("k/", n))
		select {
		case err := <-first.done:
			if !errors.Is(err, ErrTakenOver) {
				t.Errorf("the first one ended with %v", err)
			}
			second.end(t)
			return
		default:
		}
	}
}

// By stamp, what came within the waiting time is in order.
func TestByStampOnTheEngine(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	stamped := func(ms int64) ackwise.Message {
		m := numbered("k", int(ms))
		m.Headers = []ackwise.Header{{Name: ackwise.HeaderStamp,
			Value: []byte(ackwise.Stamp{Millis: ms, Node: "a"}.String())}}
		return m
	}
	publish(t, s, stamped(3), stamped(1), stamped(4), stamped(2))
	o := Options{Order: ordering.ResequencerOptions{ByStamp: true, Wait: 200 * time.Millisecond}}
	r := start(t, s, o)
	eventually(t, func() string { return waitingIn(t, s, in, sub) })
	r.end(t) // what is held is on disk
	r = start(t, s, o)
	wantKey(t, receive(t, s, 4), "k", numbers("k", 4)...)
	publish(t, s, stamped(5), stamped(2)) // again, too long ago to be told from a late one
	wantKey(t, receive(t, s, 1), "k", "k/5")
	r.end(t)
}

// What cannot work is refused when it is opened.
func TestOpenRefuses(t *testing.T) {
	s := newStore(t)
	if err := s.CreateSubscription(t.Context(), in, "ordered",
		queue.SubscriptionOptions{Ordered: true}); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"nothing":         {},
		"no subscription": {Topic: in, Subscription: "other", Out: out},
		"no topic":        {Topic: "other", Subscription: sub, Out: out},
		"out is in":       {Topic: in, Subscription: sub, Out: in},
		"ordered":         {Topic: in, Subscription: "ordered", Out: out},
		"a huge batch":    {Topic: in, Subscription: sub, Out: out, Batch: 1 << 20},
		"bad order": {Topic: in, Subscription: sub, Out: out,
			Order: ordering.ResequencerOptions{MaxHeld: -1}},
	} {
		if _, err := Open(t.Context(), s, o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// A Finder that fails makes nobody give up.
func TestNothingIsGivenUpOnAGuess(t *testing.T) {
	s := newStore(t)
	publish(t, s, numbered("k", 2))
	asked := make(chan struct{}, 1000)
	r := start(t, s, Options{Finder: findFunc(func(ms []ordering.Missing) ([]ordering.Whereabouts,
		error) {
		asked <- struct{}{}
		return nil, errors.New("the books are closed")
	}), Order: ordering.ResequencerOptions{Ask: time.Millisecond,
		Policy: but(ordering.Policy{GiveUpAfter: time.Millisecond})}})
	for range 5 {
		<-asked
	}
	if rep := r.Report(); rep.Held != 1 || len(rep.GivenUp) != 0 {
		t.Errorf("report %+v", rep)
	}
	r.end(t)
}

type findFunc func(ms []ordering.Missing) ([]ordering.Whereabouts, error)

func (f findFunc) Find(_ context.Context, ms []ordering.Missing) ([]ordering.Whereabouts, error) {
	return f(ms)
}

// O1: a message that is nacked, or held by a consumer that leaves, is handed out behind later ones
// of its key. Behind the resequencer it has its place.
func TestO1NackedMessageKeepsItsPlace(t *testing.T) {
	s := newStore(t)
	var ms []ackwise.Message
	for n := 1; n <= 8; n++ {
		ms = append(ms, numbered("k", n))
	}
	publish(t, s, ms...)
	take(t, s, 1, func(*ackwise.Delivery) ackwise.Settlement {
		return ackwise.Settlement{Outcome: ackwise.OutcomeNack, Delay: 3 * time.Second}
	})
	leaving, err := s.Receiver(t.Context(), in, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := leaving.Receive(t.Context(), 3)
	if err != nil || len(ds) != 3 || ds[0].ID != "k-2" {
		t.Fatalf("%d deliveries, %v", len(ds), err)
	}
	r := start(t, s, Options{})
	eventually(t, func() string { // what came behind them is held
		if held := r.Report().Held; held != 4 {
			return fmt.Sprintf("%d are held, want 4", held)
		}
		return ""
	})
	if err := leaving.Lost(); err != nil {
		t.Fatal(err)
	}
	wantKey(t, receive(t, s, 8), "k", numbers("k", 8)...)
	wantNothing(t, s)
	r.end(t)
}

// broken is a store whose commits fail at random, before they take effect or after.
type broken struct {
	*queue.Store
	rng    *rand.Rand
	before int
	after  int
}

var errBroken = errors.New("cut off")

func (b *broken) Commit(ctx context.Context, c queue.Commit) ([]ackwise.Result, error) {
	if b.rng.IntN(6) == 0 {
		b.before++
		return nil, errBroken
	}
	rs, err := b.Store.Commit(ctx, c)
	if err == nil && b.rng.IntN(6) == 0 {
		b.after++
		return nil, errBroken
	}
	return rs, err
}

// A commit whose answer never came, carried out or not, leaves nothing lost and nothing twice.
func TestCommitsOfUnknownFate(t *testing.T) {
	t.Parallel()
	for seed := range uint64(runs(2, 100)) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			s := newStore(t)
			rng := rand.New(rand.NewPCG(seed, 21))
			var ms []ackwise.Message
			for k := range 3 {
				for n := 1; n <= 60; n++ {
					ms = append(ms, numbered(fmt.Sprint("k", k), n))
				}
			}
			rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
			publish(t, s, ms...)
			b := &broken{Store: s, rng: rng}
			o := Options{Topic: in, Subscription: sub, Out: out, Batch: 10,
				Receiver: func(ctx context.Context, topic, name string, ro queue.ReceiverOptions) (
					ackwise.Source, error) {
					return s.Receiver(ctx, topic, name, ro)
				}}
			for waitingIn(t, s, in, sub) != "" || waitingIn(t, s, out+heldSuffix, heldSub) != "" {
				r, err := Open(t.Context(), b, o)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				if err := r.Run(ctx); err != nil && !errors.Is(err, errBroken) {
					t.Errorf("it ended with %v", err)
				}
				cancel()
			}
			if b.before == 0 || b.after == 0 {
				t.Errorf("%d commits failed before, %d after they took effect", b.before, b.after)
			}
			wantSorted(t, s, len(ms))
			verify(t, s)
		})
	}
}
