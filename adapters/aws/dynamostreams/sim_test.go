package dynamostreams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/change"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/pause"
)

// handed is one hand-out, as the client saw it.
type handed struct {
	id, key, member, shard string
	cause                  ackwise.Cause
	at                     time.Time
}

// book is what the test's own clients saw.
type book struct {
	mu      sync.Mutex // guards all below
	written []string   // IDs, in order
	order   map[string][]string
	seen    map[string][]handed
	asked   map[string]bool // an ack was sent, whatever its answer
	acked   map[string]bool
	faults  []string
	events  map[string]int
}

func newBook() *book {
	return &book{order: map[string][]string{}, seen: map[string][]handed{},
		asked: map[string]bool{}, acked: map[string]bool{}, events: map[string]int{}}
}

func (b *book) wrote(key, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written = append(b.written, id)
	b.order[key] = append(b.order[key], id)
}

// took checks a hand-out: what comes before it in its key is done, and its cause is right.
func (b *book) took(d *ackwise.Delivery, member string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := keyIn(d.Key)
	for _, id := range b.order[key] {
		if id == d.ID {
			break
		}
		if !b.asked[id] {
			b.faults = append(b.faults, fmt.Sprintf("%s of %s is handed out before %s is done",
				d.ID, key, id))
		}
	}
	// What nobody has seen may come with another cause: its owner died, or lost it, between the note
	// and the hand-out.
	if len(b.seen[d.ID]) > 0 && d.Cause == ackwise.CauseFirst || d.Cause == ackwise.CauseUnknown {
		b.faults = append(b.faults, fmt.Sprintf("%s comes with cause %s, after %v", d.ID, d.Cause,
			b.seen[d.ID]))
	}
	b.saw(d, member)
}

// returned notes a hand-out that goes back unattempted.
func (b *book) returned(d *ackwise.Delivery) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saw(d, "nobody")
}

func (b *book) saw(d *ackwise.Delivery, member string) {
	b.seen[d.ID] = append(b.seen[d.ID], handed{id: d.ID, key: keyIn(d.Key), member: member,
		shard: d.Partition, cause: d.Cause, at: time.Now()})
}

func keyIn(key string) string {
	_, rest, _ := strings.Cut(key, `{"S":"`)
	name, _, _ := strings.Cut(rest, `"`)
	return name
}

func (b *book) observe(e ackwise.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events[e.Kind]++
}

func (b *book) left() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, id := range b.written {
		if !b.acked[id] {
			n++
		}
	}
	return n
}

// check reports what is wrong at the end.
func (b *book) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range b.written {
		if !b.acked[id] {
			t.Errorf("%s was never acked; hand-outs %v", id, b.seen[id])
		}
	}
	for id := range b.seen {
		if !slices.Contains(b.written, id) {
			t.Errorf("%s was never written", id)
		}
	}
	for i, fault := range b.faults {
		if i < 5 {
			t.Error(fault)
		}
	}
}

// member is one process of the group: a source and a client that acks what it gets.
type member struct {
	name   string
	stream *stream
	source *logsource.Source
	wire   *wire
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type memberOptions struct {
	dies  int
	after bool
	work  time.Duration
	with  func(*SourceOptions)
}

func options(b *book) SourceOptions {
	return SourceOptions{Region: "eu-central-1", Table: "orders", Group: "g", Leases: "leases",
		Lease: 10 * time.Second, Drain: 5 * time.Second, List: 10 * time.Second,
		Observe: b.observe}.withDefaults()
}

func clients(w *wire) (*dynamodb.Client, *dynamodbstreams.Client) {
	c := aws.Config{Region: "eu-central-1", HTTPClient: w, BaseEndpoint: aws.String("http://fake"),
		Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}
	return dynamodb.NewFromConfig(c), dynamodbstreams.NewFromConfig(c)
}

// start lets a member join. One that dies while it opens is nil.
func start(t *testing.T, f *fake, b *book, name string, mo memberOptions) *member {
	t.Helper()
	o := options(b)
	o.Log.Consumer = name
	if mo.with != nil {
		mo.with(&o)
	}
	w := &wire{f: f, dies: mo.dies, after: mo.after}
	db, streams := clients(w)
	l, err := join(t.Context(), o, db, streams)
	if err != nil {
		if w.isDead() {
			return nil
		}
		t.Fatal(err)
	}
	s, err := logsource.New(l, l.o.Log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m := &member{name: name, stream: l, source: s, wire: w, cancel: cancel}
	m.wg.Go(func() { m.work(ctx, b, mo.work) })
	return m
}

// work acks what comes, some at once, in any order; a tenth fails once.
func (m *member) work(ctx context.Context, b *book, takes time.Duration) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		ds, err := m.source.Receive(ctx, 8)
		if err != nil {
			if !pause.For(ctx, time.Second) {
				return
			}
			continue
		}
		runs := map[string][]*ackwise.Delivery{} // of a key: handled and settled in order
		for _, d := range ds {
			runs[d.Key] = append(runs[d.Key], d)
		}
		for _, run := range runs {
			wg.Go(func() { m.handle(ctx, b, run, takes) })
		}
	}
}

// handle handles one run. What follows one that fails goes back unattempted. What was lost while it
// waited for its turn is somebody else's, who may have begun it already.
func (m *member) handle(ctx context.Context, b *book, run []*ackwise.Delivery,
	takes time.Duration) {
	outcome := ackwise.OutcomeAck
	for _, d := range run {
		if _, lost := d.Marked(); lost || m.wire.isDead() {
			return
		}
		if outcome == ackwise.OutcomeAck {
			b.took(d, m.name)
			pause.For(ctx, takes+time.Duration(rand.N(int64(takes)+1)))
			if m.wire.isDead() {
				return
			}
			if d.Counts.Failures == 0 && len(d.ID)%10 == int(d.ID[len(d.ID)-1]-'0') {
				outcome = ackwise.OutcomeNack
			}
		} else {
			b.returned(d)
			outcome = ackwise.OutcomeRelease
		}
		m.settle(ctx, b, d, outcome)
	}
}

func (m *member) settle(ctx context.Context, b *book, d *ackwise.Delivery,
	outcome ackwise.Outcome) {
	s := ackwise.Settlement{Token: d.Token, Outcome: outcome}
	if outcome == ackwise.OutcomeNack {
		s.Delay, s.Reason = time.Second, "the test says no"
	}
	if outcome == ackwise.OutcomeAck {
		b.mu.Lock()
		b.asked[d.ID] = true
		b.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	for range 10 {
		res := m.source.Settle(ctx, []ackwise.Settlement{s})[0]
		if res.Err == nil && outcome == ackwise.OutcomeAck {
			b.mu.Lock()
			b.acked[d.ID] = true
			b.mu.Unlock()
		}
		if res.Err != nil && outcome == ackwise.OutcomeAck && m.wire.isDead() && m.wire.after {
			b.mu.Lock()
			b.acked[d.ID] = true // perhaps: it was carried out, or comes again
			b.mu.Unlock()
		}
		if res.Err == nil || errors.Is(res.Err, ackwise.ErrLeaseLost) || !pause.For(ctx, time.Second) {
			return
		}
	}
}

// leave closes a member in good order.
func (m *member) leave(t *testing.T) {
	t.Helper()
	if m == nil {
		return
	}
	m.cancel()
	m.wg.Wait()
	if err := m.source.Close(); err != nil && !m.wire.isDead() {
		t.Errorf("close %s: %v", m.name, err)
	}
}

// settled waits until all is acked, in the bubble's time.
func settled(t *testing.T, b *book) {
	t.Helper()
	for range 1200 {
		if b.left() == 0 {
			return
		}
		pause.For(t.Context(), 500*time.Millisecond)
	}
	t.Errorf("%d changes are not acked after ten minutes", b.left())
}

// produce writes changes of some keys, while shards split and roll.
func produce(t *testing.T, f *fake, b *book, n int, r *rand.Rand) {
	t.Helper()
	for i := range n {
		key := fmt.Sprintf("key-%d", r.IntN(7))
		b.wrote(key, f.put(key, fmt.Sprint(i)))
		switch i % 20 {
		case 7:
			f.split(r.IntN(8))
		case 17:
			f.roll(r.IntN(8))
		}
		pause.For(t.Context(), time.Duration(r.IntN(1000))*time.Millisecond)
	}
}

// Three members come and go in good order while shards split: nothing is lost, each key in order.
func TestMembersComeAndGo(t *testing.T) {
	for seed := range seeds(1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				f, b := newFake(2), newBook()
				// Slow handlers, and children that are known early, so that they have to wait.
				mo := memberOptions{work: 1500 * time.Millisecond,
					with: func(o *SourceOptions) { o.List = time.Second }}
				one := start(t, f, b, "one", mo)
				produce(t, f, b, 30, r)
				two := start(t, f, b, "two", mo)
				produce(t, f, b, 60, r)
				one.leave(t)
				three := start(t, f, b, "three", mo)
				produce(t, f, b, 60, r)
				settled(t, b)
				two.leave(t)
				three.leave(t)
				b.check(t)
				if b.events["revoked"] == 0 || b.events["lost"] > 0 {
					t.Errorf("events %v: want shards that were revoked and none that was lost", b.events)
				}
				if f.calls["DeleteItem"] > 0 {
					t.Error("rows of shards that are listed were deleted")
				}
				done(t, f)
			})
		})
	}
}

// done checks that every closed shard's row says so, and that nobody has the others.
func done(t *testing.T, f *fake) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.tables["leases"].items {
		id := strings.Trim(string(i["shard"]["S"]), `"`)
		s := f.shard(id)
		if s == nil {
			continue
		}
		state, owner := string(i["state"]["S"]), string(i["owner"]["S"])
		if (s.last != 0) != (state == `"done"`) || s.last == 0 && owner != "" {
			t.Errorf("shard %s, closed at %d: state %s, owner %s", id, s.last, state, owner)
		}
	}
}

// A member dies at each of its calls, before it is carried out or before it is answered; another
// one takes over.
func TestAMemberDiesAtEachCall(t *testing.T) {
	next := func(call int) int { return call + 5 + call/2 }
	if long() {
		next = func(call int) int { return call + 1 }
	}
	deaths, over := 0, false
	for call := 1; call < 2000 && !over; call = next(call) {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d, carried out %t", call, after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if dieAt(t, call, after) {
						deaths++
					} else {
						over = true
					}
				})
			})
		}
	}
	if deaths == 0 || !over {
		t.Errorf("%d deaths, all calls tried %t", deaths, over)
	}
}

func dieAt(t *testing.T, call int, after bool) (died bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, 7))
	f, b := newFake(2), newBook()
	slow := func(o *SourceOptions) { o.Idle = 5 * time.Second }
	one := start(t, f, b, "one", memberOptions{dies: call, after: after,
		work: 400 * time.Millisecond, with: slow})
	produce(t, f, b, 15, r)
	two := start(t, f, b, "two", memberOptions{work: 400 * time.Millisecond, with: slow})
	produce(t, f, b, 10, r)
	settled(t, b)
	if one != nil {
		died = one.wire.isDead()
		one.leave(t)
	} else {
		died = true
	}
	settled(t, b)
	two.leave(t)
	b.check(t)
	return died
}

// Every tenth call or so fails in one of the ways in which calls fail.
func TestCallsFail(t *testing.T) {
	for seed := range seeds(1) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 3))
				f, b := newFake(2), newBook()
				one := start(t, f, b, "one", memberOptions{work: 200 * time.Millisecond})
				faults := rand.New(rand.NewPCG(seed, 4))
				f.mu.Lock()
				f.fault = func(operation string) faultKind {
					switch n := faults.IntN(40); {
					case n == 0:
						return throttles
					case n == 1:
						return breaks
					case n < 4:
						return loses
					case n == 4 && operation == "GetRecords":
						return expires
					}
					return works
				}
				f.mu.Unlock()
				produce(t, f, b, 60, r)
				f.mu.Lock()
				keep := f.fault
				f.fault = nil
				f.mu.Unlock()
				two := start(t, f, b, "two", memberOptions{work: 200 * time.Millisecond})
				f.mu.Lock()
				f.fault = keep
				f.mu.Unlock()
				produce(t, f, b, 60, r)
				settled(t, b)
				f.mu.Lock()
				f.fault = nil
				for _, fault := range []string{"GetRecords throttled", "GetRecords 500",
					"UpdateItem the answer is lost", "GetRecords the iterator has expired"} {
					if f.fired[fault] == 0 {
						t.Errorf("the fault %q never fired: %v", fault, f.fired)
					}
				}
				f.mu.Unlock()
				one.leave(t)
				two.leave(t)
				b.check(t)
			})
		})
	}
}

// A member that was cut off, and does not know it, can neither write nor hand out once another has
// its shards; then it comes back.
func TestAFrozenMemberIsFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 9))
		f, b := newFake(3), newBook()
		one := start(t, f, b, "one", memberOptions{work: time.Second})
		produce(t, f, b, 20, r)
		two := start(t, f, b, "two", memberOptions{work: time.Second})
		produce(t, f, b, 10, r)
		one.wire.mu.Lock()
		one.wire.dead = true // its calls fail; its handlers go on
		one.wire.mu.Unlock()
		produce(t, f, b, 60, r)
		settled(t, b)
		one.wire.mu.Lock()
		one.wire.dead = false
		one.wire.mu.Unlock()
		produce(t, f, b, 60, r)
		settled(t, b)
		if b.events["lost"] == 0 {
			t.Errorf("events %v: the member never noticed", b.events)
		}
		if len(one.stream.having()) == 0 {
			t.Error("the member did not come back")
		}
		one.leave(t)
		two.leave(t)
		b.check(t)
	})
}

// A shard that was read to its end goes to another member with a delivery that nobody settles: it
// is not done, and the delivery comes again there; its children wait.
func TestAnUnsettledShardIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(2)
		for i := range 20 {
			f.put(fmt.Sprint("key-", i), "of a parent")
		}
		one := open(t, f, nil)
		held := map[string]string{} // by shard
		for len(held) < 2 {
			ds, err := one.Receive(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if held[ds[0].Partition] == "" {
				held[ds[0].Partition] = ds[0].ID
				continue
			}
			one.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token}})
		}
		f.roll(0)
		f.roll(0)
		for i := range 20 {
			f.put(fmt.Sprint("key-", i), "of a child")
		}
		pause.For(t.Context(), time.Minute)
		two := open(t, f, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		for again := false; !again; {
			ds, err := two.Receive(ctx, 1)
			if err != nil {
				t.Fatalf("the delivery did not come again: %v", err)
			}
			if held[ds[0].Partition] == "" {
				t.Fatalf("%s comes, of the child %s", ds[0].ID, ds[0].Partition)
			}
			again = held[ds[0].Partition] == ds[0].ID
			if again && ds[0].Cause != ackwise.CauseRebalanced {
				t.Errorf("cause %s", ds[0].Cause)
			}
			two.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token}})
		}
		one.close(t)
		two.close(t)
	})
}

// A key that is in the record's message is the one that was written.
func TestMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, b := newFake(1), newBook()
		f.put("N1", "a")
		db, streams := clients(&wire{f: f})
		l, err := join(t.Context(), options(b), db, streams)
		if err != nil {
			t.Fatal(err)
		}
		s, err := logsource.New(l, l.o.Log)
		if err != nil {
			t.Fatal(err)
		}
		ds, err := s.Receive(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		kind, _ := ds[0].Header(change.HeaderKind)
		if want := `{"Keys":{"id":{"S":"N1"}},"NewImage":{"id":{"S":"N1"},"value":{"S":"a"}}}`; want !=
			string(ds[0].Body) || ds[0].Topic != "orders" || string(kind) != "INSERT" {
			t.Errorf("message %q", ds[0].Message)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
