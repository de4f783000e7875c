package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

const (
	consumers   = 2 // processes of a run, see run.consumers
	concurrency = 32
	maxInFlight = 96
	batchSize   = 250 // messages of one publish
	lease       = 500 * time.Millisecond
	watchEvery  = 5 * time.Millisecond
	askEvery    = 50 * time.Millisecond
)

// run is one run of the flights through the engine.
type run struct {
	number    int
	name      string // of its topic. Default: guarantee and pattern
	guarantee deliver.Guarantee
	pattern   string
	store     *queue.Store
	flights   []Flight
	sent      []Flight // the same in the order in which they are published. Default: flights
	repaired  bool     // a resequencer stands before the topic
	plan      plan
	exe       string // the program that is started as a consumer
	files     string // the folder of what the consumers write
	stall     time.Duration
	tell      func(begun, kills int)
	over      func()   // called when it is
	gate      chan int // how many flights may be published so far; at most one waits here

	waiting sync.WaitGroup // what follows the workers
	crew    []*worker      // at work
	gone    []*worker      // ended
	done    int            // faults of the plan
	misses  int            // in a row: nothing was left to do when a fault was due
	idle    bool           // by the books, since the producer was last let on
	did     Faults         // the faults that were made
	books   queue.Books
	told    queue.TopicInfo
	verdict verdict
}

func (r *run) topic() string {
	if r.name != "" {
		return r.name
	}
	return r.guarantee.String() + "-" + r.pattern
}

// do publishes, consumes and makes the faults until every message is settled; then it judges.
func (r *run) do(ctx context.Context) (err error) {
	defer r.over()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	r.gate = make(chan int, 1)
	r.open()
	published := make(chan error, 2) // the producer's end, and the resequencer's
	end, err := r.repair(ctx, published)
	if err != nil {
		return err
	}
	var producing sync.WaitGroup
	producing.Go(func() { published <- r.produce(ctx) }) // ends with the flights, or ctx
	defer producing.Wait()
	defer cancel()
	defer r.close()
	for range r.consumers() {
		if err := r.hire(); err != nil {
			return err
		}
	}
	if err := r.watch(ctx, published); err != nil {
		return fmt.Errorf("run %s: %w", r.topic(), err)
	}
	for _, w := range r.crew {
		if err := w.dismiss(orderStop); err != nil {
			return err
		}
	}
	if err := end(); err != nil {
		return err
	}
	return r.judge(ctx)
}

func (r *run) prepare(ctx context.Context) error {
	if err := r.store.CreateTopic(ctx, r.topic(), queue.TopicOptions{}); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	o := queue.SubscriptionOptions{Ordered: true, OnDead: queue.Hold, Lease: lease}
	if !r.ordered() {
		o.Ordered, o.OnDead = false, queue.Skip
	}
	err := r.store.CreateSubscription(ctx, r.topic(), subscription, o)
	if err != nil {
		return fmt.Errorf("create subscription: %w", err)
	}
	return nil
}

// consumers is how many processes consume at a time. At-most-once has one: its ack comes before the
// handler and lets the key go on, so that another consumer could begin the next flight of an
// aircraft before this one has begun the last. Within one consumer the order holds.
func (r *run) consumers() int {
	if r.guarantee == deliver.AtMostOnce {
		return 1
	}
	return consumers
}

// ordered says whether the run's subscription keeps the order of the aircraft.
func (r *run) ordered() bool { return r.pattern != patternUpsert }

// hire starts one more consumer.
func (r *run) hire() error {
	name := fmt.Sprintf("%s.%d", r.topic(), len(r.crew)+len(r.gone)+1)
	w, err := r.start(assignment{Dir: r.store.Dir(), Topic: r.topic(), Name: name,
		Trace: r.file(name + ".trace"), Applied: r.file(r.topic() + ".applied"),
		Guarantee: r.guarantee, Pattern: r.pattern, Lease: lease, Concurrency: concurrency,
		MaxInFlight: maxInFlight, Fails: keys(r.plan.fails), Withholds: keys(r.plan.withholds)})
	if err != nil {
		return err
	}
	r.crew = append(r.crew, w)
	return nil
}

func keys(set map[string]bool) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// close ends every worker that is left and waits for it.
func (r *run) close() {
	for _, w := range r.crew {
		w.end()
	}
	r.waiting.Wait()
}

// open lets the producer go on, but not far beyond the next fault: so there is work left to be
// interrupted, however slow the faults are and however fast the consumers. Where the order is lost,
// a flight may wait for any other within the displacement.
func (r *run) open() {
	upTo := len(r.flights)
	if r.done < len(r.plan.faults) {
		upTo = r.plan.faults[r.done].after + (r.misses+1)*max(2*batchSize, upTo/20)
		if r.repaired {
			upTo += displacement(r.flights)
		}
	}
	select {
	case <-r.gate: // the producer has not taken it yet
	default:
	}
	r.gate <- upTo
	r.idle = false
}

// produce publishes the flights in batches. Where the plan says so the producer does not hear the
// answer, and after its time-out publishes the batch again with the same IDs.
func (r *run) produce(ctx context.Context) error {
	number, upTo := 0, 0
	flights := r.flights
	if r.sent != nil {
		flights = r.sent
	}
	for batch := range slices.Chunk(flights, batchSize) {
		for number*batchSize >= upTo {
			select {
			case upTo = <-r.gate:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		msgs := make([]ackwise.Message, len(batch))
		for i := range batch {
			msgs[i] = batch[i].Message(r.into())
		}
		for try := range 2 {
			results := r.store.Publish(ctx, msgs)
			for i := range results {
				if results[i].Class != ackwise.ResultAccepted {
					return fmt.Errorf("publish %s: %w", msgs[i].ID, results[i].Err)
				}
			}
			if try > 0 || !r.plan.unheard[number] {
				break
			}
			r.did.ProducedAgain += int64(len(msgs))
		}
		number++
	}
	return nil
}

// watch makes the faults of the plan in their turn and returns when everything is settled.
func (r *run) watch(ctx context.Context, published <-chan error) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var asked, moved time.Time
	var last [2]int64
	producing := true
	for {
		var now time.Time
		select {
		case err := <-published:
			if err != nil {
				return err
			}
			producing = false
			continue
		case <-ctx.Done():
			return context.Cause(ctx)
		case now = <-tick.C:
		}
		begun, err := r.look()
		if err != nil {
			return err
		}
		r.tell(begun, int(r.did.Kills))
		if r.done < len(r.plan.faults) && begun >= r.plan.faults[r.done].after {
			if err := r.fault(r.plan.faults[r.done]); err != nil {
				return err
			}
		}
		if now.Sub(asked) >= askEvery {
			asked = now
			if err := r.ask(ctx); err != nil {
				return err
			}
			if !producing && r.settled() {
				return nil
			}
		}
		if state := [2]int64{int64(begun), r.books.Acked}; state != last || moved.IsZero() {
			last, moved = state, now
		}
		if now.Sub(moved) > r.stall {
			return r.stalled()
		}
	}
}

// look reads what the workers wrote, and returns how many deliveries were begun in all.
func (r *run) look() (begun int, err error) {
	for _, w := range r.crew {
		if err := w.look(); err != nil {
			return 0, err
		}
		if w.hasEnded() {
			if err := w.fault(); err != nil {
				return 0, err
			}
			return 0, fmt.Errorf("consumer %s ended by itself", w.name)
		}
		begun += w.begun
	}
	for _, w := range r.gone {
		begun += w.begun
	}
	return begun, nil
}

// fault makes one fault of the plan on a consumer that is at work, and hires another in its place.
// Where nobody is, it is tried again at the next look, with more to do where nothing is left.
func (r *run) fault(f fault) error {
	i := f.victim % len(r.crew)
	if r.crew[i].atWork() == 0 {
		i = slices.IndexFunc(r.crew, func(w *worker) bool { return w.atWork() > 0 })
	}
	if i < 0 {
		if r.idle {
			r.misses++
			r.open()
		}
		return nil
	}
	w := r.crew[i]
	if f.kind == leaving {
		if err := w.dismiss(orderLeave); err != nil {
			return err
		}
		for _, m := range w.marks {
			if m.what == markLeave && m.text != "0" {
				r.did.Rebalanced++
			}
		}
	} else {
		killed, err := w.kill()
		if err != nil || !killed {
			return err
		}
		if err := w.look(); err != nil {
			return err
		}
		r.did.Kills++
	}
	_ = w.in.Close() // it has ended
	r.done++
	r.misses = 0
	r.open()
	r.crew = slices.Delete(r.crew, i, i+1)
	r.gone = append(r.gone, w)
	return r.hire()
}

// ask reads the engine's books and requeues what is dead.
func (r *run) ask(ctx context.Context) error {
	infos, err := r.store.Subscriptions(ctx, r.topic())
	if err != nil {
		return fmt.Errorf("read the books: %w", err)
	}
	r.books = infos[0].Books
	r.idle = r.books.Waiting() == 0
	if r.books.Dead == 0 {
		return nil
	}
	letters, err := r.store.DeadLetters(ctx, r.topic(), subscription, queue.DeadFilter{})
	if err != nil {
		return fmt.Errorf("list dead letters: %w", err)
	}
	var ids []string
	for i := range letters {
		ids = append(ids, letters[i].Message.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	n, err := r.store.Redrive(ctx, r.topic(), subscription, queue.DeadFilter{IDs: ids}, false)
	if err != nil {
		return fmt.Errorf("requeue dead letters: %w", err)
	}
	if n != len(ids) {
		return fmt.Errorf("requeued %d of %d dead letters", n, len(ids))
	}
	r.did.Requeued += int64(n)
	return nil
}

func (r *run) settled() bool {
	b := r.books
	return b.Accepted == int64(len(r.flights)) && b.Waiting()+b.Parked+b.Dead == 0
}

func (r *run) stalled() error {
	var who []string
	for _, w := range r.crew {
		who = append(who, fmt.Sprintf("%s (process %d, %d deliveries at work)", w.name, w.pid,
			w.atWork()))
	}
	return fmt.Errorf("no delivery in %s: consumers %q; ready %d, delayed %d, in flight %d, "+
		"parked %d, dead %d", r.stall, who, r.books.Ready, r.books.Delayed, r.books.InFlight,
		r.books.Parked, r.books.Dead)
}

// judge judges the run by the workers' traces, and takes the engine's books down beside it.
func (r *run) judge(ctx context.Context) error {
	var marks []mark
	for _, w := range slices.Concat(r.gone, r.crew) {
		marks = append(marks, w.marks...)
	}
	r.did.count(marks)
	switch r.pattern {
	case patternDedup:
		applied := reader{path: r.file(r.topic() + ".applied")}
		more, err := applied.next()
		if err != nil {
			return err
		}
		marks = append(marks, more...)
	case patternTransaction:
		more, err := tallied(ctx, r.store, len(r.flights))
		if err != nil {
			return err
		}
		marks = append(marks, more...)
	}
	var err error
	r.verdict, err = judge(r.flights, marks,
		rules{skips: r.guarantee == deliver.AtMostOnce, keyed: keyed(r.pattern)})
	if err != nil {
		return err
	}
	if keyed(r.pattern) {
		t, err := queuestore.OpenTable(r.store, r.pattern)
		if err != nil {
			return err
		}
		r.verdict.miles, r.verdict.wrong, err = standing(ctx, t, r.pattern, r.flights)
		if err != nil {
			return err
		}
	}
	if err := r.ask(ctx); err != nil {
		return err
	}
	topics, err := r.store.Topics(ctx)
	if err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	for _, t := range topics {
		if t.Name == r.topic() {
			r.told = t
		}
	}
	return nil
}

// count adds the faults that a consumer wrote down itself.
func (f *Faults) count(marks []mark) {
	open := map[string]bool{}
	for _, m := range marks {
		switch {
		case m.what == markWithheld:
			f.withheld++
		case m.what == markSending:
			open[m.id] = true
		case m.what == markLate:
			delete(open, m.id)
			switch m.text {
			case lateRefused:
				f.AcksLost++
			case lateByItself, lateUnknown:
				f.unsure++
			}
		case m.what == markMove && m.text != "0":
			f.Rebalanced++
		}
	}
	f.unsure += int64(len(open)) // killed between the sending and its answer
}

// share is the leg of the two members that share a log: one process, judged like a run.
func (r *run) share(ctx context.Context, moves []int) (map[ackwise.Cause]int64, error) {
	defer r.over()
	defer r.close()
	w, err := r.start(assignment{Name: topicShared, Trace: r.file(topicShared + ".trace"),
		Concurrency: concurrency, MaxInFlight: maxInFlight, Shared: len(r.flights), Moves: moves})
	if err != nil {
		return nil, err
	}
	r.crew = []*worker{w}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var moved time.Time
	last := -1
	for !w.hasEnded() {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case now := <-tick.C:
			if err := w.look(); err != nil {
				return nil, err
			}
			r.tell(w.begun, 0)
			if w.begun != last {
				last, moved = w.begun, now
			}
			if now.Sub(moved) > r.stall {
				return nil, fmt.Errorf("shared log: %w", r.stalled())
			}
		}
	}
	if err := errors.Join(w.look(), w.fault()); err != nil {
		return nil, err
	}
	r.did.count(w.marks)
	handed := map[ackwise.Cause]int64{}
	for _, m := range w.marks {
		var c ackwise.Cause
		if m.what != markHanded || c.UnmarshalText([]byte(m.id)) != nil {
			continue
		}
		if handed[c], err = strconv.ParseInt(m.text, 10, 64); err != nil {
			return nil, fmt.Errorf("read trace: %w", err)
		}
	}
	r.verdict, err = judge(r.flights, w.marks, rules{})
	return handed, err
}
