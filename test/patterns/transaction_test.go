package patterns

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/demo"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

const (
	patternTransaction = "transaction"

	topicDeparted, topicArrived = "departed", "arrived"
	subscription                = "miles"
	tableMiles                  = "miles"
)

// transactions is a consumer process: it opens the directory, as its owner where nobody is, and
// moves flights from one topic to the other, with the miles of each aircraft in a table. It ends by
// itself when nothing is left, and writes a line for each transaction that it begins and ends.
func transactions(ctx context.Context, a assignment) (err error) {
	c, err := client.Open(ctx, a.Where, client.Options{Serve: server.Local})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	r, err := c.Receiver(ctx, topicDeparted, subscription, queue.ReceiverOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var looking sync.WaitGroup
	looked := make(chan error, 1)
	looking.Go(func() { looked <- whenDone(ctx, c, stop) }) // ends with stop
	err = deliver.Run(ctx, r, transacting{queue.Transact(move)}, deliver.Options{
		Guarantee: deliver.ExactlyOnce, Concurrency: 8, MaxInFlight: 16,
		MaxCrashes: deliver.Unlimited, MaxFailures: deliver.Unlimited,
		Backoff: deliver.Backoff{First: time.Millisecond, Cap: 20 * time.Millisecond}})
	stop()
	looking.Wait()
	return errors.Join(err, <-looked)
}

// whenDone calls stop when the subscription has nothing left.
func whenDone(ctx context.Context, c *client.Client, stop func()) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		infos, err := c.Subscriptions(ctx, topicDeparted)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			stop()
			return err
		}
		if infos[0].Books.Waiting() == 0 {
			stop()
		}
	}
}

// move is the transaction: the miles of an aircraft, its flight on the other topic, and the ack.
func move(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
	f, err := demo.FlightOf(&d.Message)
	if err != nil {
		return err
	}
	have, err := tx.Get(ctx, tableMiles, aircraftOf(&f))
	if err != nil {
		return err
	}
	var miles int64
	if have != nil {
		if err := json.Unmarshal(have, &miles); err != nil {
			return fmt.Errorf("read miles: %w", err)
		}
	}
	tx.Put(tableMiles, aircraftOf(&f), fmt.Append(nil, miles+f.Flown()))
	tx.Publish(ackwise.Message{Topic: topicArrived, Key: d.Key, Body: d.Body})
	return nil
}

// transacting writes a line before and after each transaction.
type transacting struct{ ackwise.Transactional }

// Handle implements ackwise.Handler.
func (t transacting) Handle(ctx context.Context, d *ackwise.Delivery) error {
	fmt.Fprintln(os.Stdout, "begin")
	err := t.Transactional.Handle(ctx, d)
	fmt.Fprintln(os.Stdout, "end")
	return err
}

// Exactly-once from topic to topic: two processes, one of which owns the engine, are killed at
// random moments, and each flight has arrived once, with its miles counted once.
func TestTransactionsAreExactThroughKills(t *testing.T) {
	rounds, kills, n := 3, 5, 400
	if long() {
		rounds, kills, n = 20, 50, 4000
	}
	all, err := demo.Flights(0)
	if err != nil {
		t.Fatal(err)
	}
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(*seed, uint64(round)))
		from := rnd.IntN(len(all) - n)
		d := &departures{t: t, rnd: rnd, flights: all[from : from+n], dir: t.TempDir(),
			news: make(chan said)}
		d.publish()
		d.run(kills)
		d.judge()
		if t.Failed() {
			t.Fatalf("round %d of -seed %d", round, *seed)
		}
		t.Logf("round %d: %d kills, of them %d with a transaction under way, %d of the owner", round,
			d.kills, d.underWay, d.owners)
		if d.kills < kills || d.underWay == 0 {
			t.Errorf("%d kills, %d with a transaction under way", d.kills, d.underWay)
		}
	}
}

// departures is one round.
type departures struct {
	t                       *testing.T
	rnd                     *rand.Rand
	flights                 []demo.Flight
	dir                     string
	news                    chan said
	crew                    []*mover
	readers                 sync.WaitGroup
	kills, underWay, owners int
}

type mover struct {
	*member
	begun, ended int
	killed       bool
}

type said struct {
	by    *mover
	line  string
	ended bool
	err   error
}

func (d *departures) publish() {
	store, err := queue.Open(d.dir, queue.Options{})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, topic := range []string{topicDeparted, topicArrived} {
		if err := store.CreateTopic(d.t.Context(), topic, queue.TopicOptions{}); err != nil {
			d.t.Fatal(err)
		}
	}
	err = store.CreateSubscription(d.t.Context(), topicDeparted, subscription,
		queue.SubscriptionOptions{Ordered: true, Lease: 2 * time.Second})
	if err != nil {
		d.t.Fatal(err)
	}
	for batch := range slices.Chunk(d.flights, 500) {
		var msgs []ackwise.Message
		for i := range batch {
			msgs = append(msgs, batch[i].Message(topicDeparted))
		}
		for _, r := range store.Publish(d.t.Context(), msgs) {
			if r.Err != nil {
				d.t.Fatal(r.Err)
			}
		}
	}
	if err := store.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *departures) hire() {
	m := &mover{member: process(d.t, assignment{Pattern: patternTransaction, Where: d.dir})}
	d.crew = append(d.crew, m)
	d.readers.Go(func() { // ends with the process
		for lines := bufio.NewScanner(m.out); lines.Scan(); {
			d.news <- said{by: m, line: lines.Text()}
		}
		d.news <- said{by: m, ended: true, err: m.wait()}
	})
}

// run kills so many processes, and returns when those that are left have ended by themselves.
func (d *departures) run(kills int) {
	d.hire()
	d.hire()
	defer d.readers.Wait()
	share := len(d.flights) / (kills + 1)
	quiet := time.NewTimer(patience)
	defer quiet.Stop()
	left := d.rnd.IntN(share) // transactions until the next kill
	for len(d.crew) > 0 {
		select {
		case s := <-d.news:
			quiet.Reset(patience)
			d.hear(s)
			if s.line == "end" {
				left--
			}
		case <-quiet.C:
			for _, m := range d.crew {
				_ = m.signal(syscall.SIGKILL)
			}
			d.t.Errorf("no process said anything in %s", patience)
		}
		if left <= 0 && d.kills < kills && d.kill() {
			left = d.rnd.IntN(share)
		}
	}
}

func (d *departures) hear(s said) {
	switch {
	case !s.ended:
		if s.line == "begin" {
			s.by.begun++
		} else {
			s.by.ended++
		}
		return
	case s.by.killed:
		d.hire()
	case s.err != nil:
		d.t.Errorf("a consumer ended by itself: %v", s.err)
	}
	d.crew = slices.DeleteFunc(d.crew, func(m *mover) bool { return m == s.by })
}

// kill kills a process that has begun something, at some moment within a few milliseconds.
func (d *departures) kill() bool {
	i := d.rnd.IntN(len(d.crew))
	m := d.crew[i]
	if m.begun == 0 || m.killed {
		return false
	}
	timer := time.NewTimer(time.Duration(d.rnd.IntN(4)) * time.Millisecond)
	defer timer.Stop()
	for waiting := true; waiting; {
		select {
		case s := <-d.news:
			d.hear(s)
		case <-timer.C:
			waiting = false
		}
	}
	if !slices.Contains(d.crew, m) {
		return false // it has ended
	}
	if owner, err := lockfile.Read(d.dir); err == nil && owner.PID == m.pid {
		d.owners++
	}
	if err := m.signal(syscall.SIGKILL); err != nil {
		return false
	}
	m.killed = true
	d.kills++
	if m.begun > m.ended {
		d.underWay++
	}
	return true
}

// judge reads what is in the engine when all have ended.
func (d *departures) judge() {
	t, ctx := d.t, d.t.Context()
	store, err := queue.Open(d.dir, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }() // nothing is written any more
	want, all := map[string]int64{}, int64(0)
	for i := range d.flights {
		want[aircraftOf(&d.flights[i])] += d.flights[i].Flown()
		all += d.flights[i].Flown()
	}
	var sum int64
	for aircraft, miles := range want {
		e, err := store.Get(ctx, tableMiles, aircraft)
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Value) != fmt.Sprint(miles) {
			t.Errorf("%s has flown %s miles, want %d", aircraft, e.Value, miles)
		}
		var got int64
		_, _ = fmt.Sscan(string(e.Value), &got) // compared above
		sum += got
	}
	if sum != all {
		t.Errorf("the sum is %d miles, want %d", sum, all)
	}
	d.judgeArrived(store)
	if v, err := store.Verify(ctx); err != nil || len(v.Findings) > 0 {
		t.Errorf("verify: %q, %v", v.Findings, err)
	}
}

// judgeArrived reads the other topic: each flight once, each aircraft's in order.
func (d *departures) judgeArrived(store *queue.Store) {
	t, ctx := d.t, d.t.Context()
	if err := store.CreateSubscription(ctx, topicArrived, "judge",
		queue.SubscriptionOptions{}); err != nil {
		t.Fatal(err)
	}
	r, err := store.Receiver(ctx, topicArrived, "judge", queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }() // nothing is settled
	infos, err := store.Subscriptions(ctx, topicArrived)
	if err != nil {
		t.Fatal(err)
	}
	var got []*ackwise.Delivery
	for int64(len(got)) < infos[0].Books.Accepted {
		more, err := r.Receive(ctx, 1000)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, more...)
	}
	slices.SortStableFunc(got, func(a, b *ackwise.Delivery) int {
		return cmp.Compare(a.Position, b.Position)
	})
	times, last := map[string]int{}, map[string]int{}
	for _, dl := range got {
		var f demo.Flight
		if err := json.Unmarshal(dl.Body, &f); err != nil {
			t.Fatal(err)
		}
		if times[f.ID]++; f.Key != "" && times[f.ID] == 1 && f.Seq < last[f.Key] {
			t.Errorf("%s arrived behind number %d of its aircraft", f.ID, last[f.Key])
		}
		last[f.Key] = f.Seq
	}
	for i := range d.flights {
		if n := times[d.flights[i].ID]; n != 1 {
			t.Errorf("%s arrived %d times", d.flights[i].ID, n)
		}
	}
	if len(got) != len(d.flights) {
		t.Errorf("%d flights arrived, want %d", len(got), len(d.flights))
	}
}
