// Package queuetest is the contract of a durable queue as tests: what a queue.Store promises its
// producers and consumers, and what a client of one therefore has to promise too.
//
//	queuetest.Run(t, open)   open ─▶ queue.Store             (the engine itself)
//	                              └▶ client.Client ─▶ socket ─▶ queue.Store
//
// Run judges by what went in and came out: the lists that the test itself keeps, and the books
// beside them. It does not kill anything and does not look into the directory; the crash tests of
// the packages do that.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// patience bounds every wait for something that has to happen.
const patience = 20 * time.Second

// Admin makes and describes topics and subscriptions.
type Admin interface {
	CreateTopic(ctx context.Context, name string, o queue.TopicOptions) error
	CreateSubscription(ctx context.Context, topic, name string, o queue.SubscriptionOptions) error
	Subscriptions(ctx context.Context, topic string) ([]queue.SubscriptionInfo, error)
	DeleteSubscription(ctx context.Context, topic, name, reason string) error
	DeleteTopic(ctx context.Context, name, reason string) error
}

// Tables reads and writes small values, and carries out transactions.
type Tables interface {
	queue.Transactor
	Keys(ctx context.Context, table, prefix string, max int) ([]string, error)
}

// Letters looks after messages that are dead or parked.
type Letters interface {
	DeadLetters(ctx context.Context, topic, sub string, f queue.DeadFilter) (
		[]queue.DeadLetter, error)
	Redrive(ctx context.Context, topic, sub string, f queue.DeadFilter, redo bool) (int, error)
	DropDead(ctx context.Context, topic, sub string, f queue.DeadFilter, reason string) (int, error)
	ParkedKeys(ctx context.Context, topic, sub string, max int) ([]queue.ParkedKey, error)
}

// Views show what is there.
type Views interface {
	Topics(ctx context.Context) ([]queue.TopicInfo, error)
	Peek(ctx context.Context, topic, sub string, o queue.PeekOptions) ([]queue.Peeked, error)
	Kept
	Books(ctx context.Context) ([]queue.Books, error)
	Verify(ctx context.Context) (queue.VerifyReport, error)
}

// Kept reads messages without a hand-out.
type Kept interface {
	Read(ctx context.Context, topic string, positions []ackwise.Position) ([]ackwise.Message, error)
	Scan(ctx context.Context, topic string, after ackwise.Position, max int) ([]queue.Peeked, error)
}

// Queue is what a queue.Store and a client.Client have in common.
type Queue interface {
	ackwise.Sink
	Admin
	Tables
	Letters
	Views
}

// Receiver is what a queue.Receiver and a client.Receiver have in common.
type Receiver interface {
	ackwise.Source
	Session() string
	Lost() error
	Transactor() queue.Transactor
}

// Opened is an open queue under test.
type Opened struct {
	Queue
	Schedule func(ctx context.Context, delay time.Duration, ms []ackwise.Message) []ackwise.Result
	Receiver func(ctx context.Context, topic, sub string, o queue.ReceiverOptions) (Receiver, error)
}

// Open opens the queue in a directory, which it makes where it is missing. MaxBodyBytes is 64 KiB
// and MaxBatch is 100, so that limits are within reach.
type Open func(t *testing.T, dir string) Opened

// Limits that Open sets.
const (
	MaxBodyBytes = 64 << 10
	MaxBatch     = 100
)

// OpenStore is the Open of the engine itself.
func OpenStore(t *testing.T, dir string) Opened {
	t.Helper()
	s, err := queue.Open(dir, queue.Options{MaxBodyBytes: MaxBodyBytes, MaxBatch: MaxBatch})
	if err != nil {
		t.Fatal(err)
	}
	return Opened{Queue: s, Schedule: s.Schedule,
		Receiver: func(ctx context.Context, topic, sub string, o queue.ReceiverOptions) (
			Receiver, error) {
			return s.Receiver(ctx, topic, sub, o)
		}}
}

// Run runs the contract. Every test has a directory of its own.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"a message comes out as it went in, and once", passesThrough},
		{"a message without an ID gets one", assignsIDs},
		{"a subscription starts at the oldest kept", startsAtBeginning},
		{"messages of an ordered subscription come in the order of their key", keepsKeyOrder},
		{"a run of a key is settled in order", settlesRunsInOrder},
		{"a nack waits and says failed", nacks},
		{"a snooze and a release spend nothing", putsOff},
		{"a scheduled message waits", schedules},
		{"an extended lease lasts longer", extends},
		{"a lease that ran out is handed out again and its ack refused", expires},
		{"a repeated settlement answers already, another one an error", settlesOnce},
		{"a nonsensical token is an error", refusesTokens},
		{"a closed session's messages are rebalanced", rebalances},
		{"a lost session's messages are consumer-lost", losesConsumers},
		{"a cancelled receive strands nothing", cancelsReceive},
		{"a dead letter keeps its history and comes back", redrives},
		{"a redo is a new epoch", redoes},
		{"a dropped dead letter is counted with its reason", dropsDead},
		{"a dead letter that holds its key parks the rest", parks},
		{"a repeated publish is accepted once", deduplicates},
		{"the same ID with another body is a conflict", refusesOtherBody},
		{"a transaction takes effect whole or not at all", commits},
		{"a repeated transaction takes effect once", commitsOnce},
		{"exactly once: the handler's table and its ack are one", transacts},
		{"limits have typed errors", limits},
		{"a full topic pushes back", fills},
		{"unknown names are refused with the nearest", namesNearest},
		{"existing names are refused", refusesExisting},
		{"deleted things are gone", deletes},
		{"peek shows every state", peeks},
		{"kept messages are read by position and in order", readsKept},
		{"everything survives a close", survivesClose},
		{"every cause has its count and the books balance", keepsBooks},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			b := &bench{T: t, ctx: ctx, open: open, dir: t.TempDir()}
			b.Opened = open(t, b.dir)
			defer func() {
				b.audit()
				b.check(b.Close())
			}()
			c.test(b)
		})
	}
}

// bench is one test's queue and what the test needs around it.
type bench struct {
	*testing.T
	Opened
	ctx  context.Context
	open Open
	dir  string
}

// Names that the tests use.
const (
	topic = "orders"
	sub   = "billing"
)

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// wantErr checks that an error is what errors.Is finds.
func (b *bench) wantErr(what string, got, want error) {
	b.Helper()
	if !errors.Is(got, want) {
		b.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// setUp makes the topic and the subscription.
func (b *bench) setUp(o queue.SubscriptionOptions) {
	b.Helper()
	b.check(b.CreateTopic(b.ctx, topic, queue.TopicOptions{}))
	b.check(b.CreateSubscription(b.ctx, topic, sub, o))
}

// publish publishes messages "key/n" in one call and returns their results.
func (b *bench) publish(names ...string) []ackwise.Result {
	b.Helper()
	rs := b.Publish(b.ctx, messages(names...))
	if len(rs) != len(names) {
		b.Fatalf("%d results for %d messages", len(rs), len(names))
	}
	for i, r := range rs {
		if r.Class != ackwise.ResultAccepted || r.Err != nil || r.ID != names[i] {
			b.Fatalf("publish %s: %+v", names[i], r)
		}
	}
	return rs
}

// messages makes a message of each name: its ID is the name, its key what stands before the slash.
func messages(names ...string) []ackwise.Message {
	ms := make([]ackwise.Message, len(names))
	for i, n := range names {
		key := ""
		if at := slices.Index([]byte(n), '/'); at >= 0 {
			key = n[:at]
		}
		ms[i] = ackwise.Message{ID: n, Topic: topic, Key: key, Body: []byte("body of " + n)}
	}
	return ms
}

// receiver opens a session that ends with the test.
func (b *bench) receiver(o queue.ReceiverOptions) Receiver {
	b.Helper()
	r, err := b.Receiver(b.ctx, topic, sub, o)
	b.check(err)
	return r
}

// receive receives until it has n deliveries.
func (b *bench) receive(r Receiver, n int) []*ackwise.Delivery {
	b.Helper()
	var all []*ackwise.Delivery
	for len(all) < n {
		ds, err := r.Receive(b.ctx, n-len(all))
		if err != nil {
			b.Fatalf("receive %d of %d: %v", len(all)+1, n, err)
		}
		if len(ds) == 0 || len(ds) > n-len(all) {
			b.Fatalf("receive of at most %d answered %d deliveries", n-len(all), len(ds))
		}
		all = append(all, ds...)
	}
	return all
}

// one receives one delivery and checks which it is.
func (b *bench) one(r Receiver, id string, cause ackwise.Cause) *ackwise.Delivery {
	b.Helper()
	d := b.receive(r, 1)[0]
	if d.ID != id || d.Cause != cause {
		b.Fatalf("received %s (%s), want %s (%s)", d.ID, d.Cause, id, cause)
	}
	return d
}

// nothing checks that nothing is there to receive.
func (b *bench) nothing(r Receiver) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Millisecond)
	defer cancel()
	if ds, err := r.Receive(ctx, 1); len(ds) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("received %d deliveries, %v; want none until the deadline", len(ds), err)
	}
}

// settle settles one delivery and returns the result.
func (b *bench) settle(r Receiver, d *ackwise.Delivery, s ackwise.Settlement) ackwise.SettleResult {
	b.Helper()
	s.Token = d.Token
	rs := r.Settle(b.ctx, []ackwise.Settlement{s})
	if len(rs) != 1 {
		b.Fatalf("%d results for one settlement", len(rs))
	}
	return rs[0]
}

// do settles one delivery, which must succeed for the first time.
func (b *bench) do(r Receiver, d *ackwise.Delivery, s ackwise.Settlement) {
	b.Helper()
	if res := b.settle(r, d, s); res.Err != nil || res.Already {
		b.Fatalf("%s of %s: %+v", s.Outcome, d.ID, res)
	}
}

func (b *bench) ack(r Receiver, ds ...*ackwise.Delivery) {
	b.Helper()
	for _, d := range ds {
		b.do(r, d, ackwise.Settlement{})
	}
}

// die makes one delivery a dead letter.
func (b *bench) die(r Receiver, d *ackwise.Delivery) {
	b.Helper()
	b.do(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeDead, Reason: "poison"})
}

// books returns the subscription's books.
func (b *bench) books() queue.Books {
	b.Helper()
	all, err := b.Books(b.ctx)
	b.check(err)
	for _, k := range all {
		if k.Topic == topic && k.Subscription == sub {
			return k
		}
	}
	b.Fatalf("no books of %s/%s among %+v", topic, sub, all)
	return queue.Books{}
}

// audit checks after every test that the books balance and that Verify finds nothing.
func (b *bench) audit() {
	b.Helper()
	all, err := b.Books(b.ctx)
	if err != nil {
		b.Errorf("read books: %v", err)
	}
	for _, k := range all {
		if !k.Balanced() {
			b.Errorf("the books do not balance: %+v", k)
		}
	}
	report, err := b.Verify(b.ctx)
	if err != nil || len(report.Findings) > 0 {
		b.Errorf("verify: %v, findings %q", err, report.Findings)
	}
}

func ids(ds []*ackwise.Delivery) string {
	names := make([]string, len(ds))
	for i, d := range ds {
		names[i] = d.ID
	}
	return fmt.Sprint(names)
}
