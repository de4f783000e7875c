package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// consumerVar makes a process a consumer; its value is what it is to do.
const consumerVar = "ACKWISE_DEMO_CONSUMER"

// What a consumer is told on its standard input, a line each. At its end it ends at once.
const (
	orderStop  = "stop"  // finish what is begun, then end
	orderLeave = "leave" // give everything back, also what is at work, then end
)

// assignment is what a consumer process is to do.
type assignment struct {
	Dir         string
	Topic       string
	Name        string
	Trace       string // its own file
	Applied     string // the shared file of patternDedup
	Guarantee   deliver.Guarantee
	Pattern     string
	Lease       time.Duration
	Concurrency int
	MaxInFlight int
	Fails       []string
	Withholds   []string
	Shared      int   // flights of the shared log: then it runs the two members, and no session
	Moves       []int // after how many begun deliveries its partitions move
}

// subscription is the one of every run's topic.
const subscription = "miles"

// Consumer is the whole of a process that Run has started: it consumes and returns the exit code.
// In any other process it returns false at once. A program that calls Run calls it first.
func Consumer() (code int, is bool) {
	text, is := os.LookupEnv(consumerVar)
	if !is {
		return 0, false
	}
	// It lives for seconds and holds little: most of its collections would be of nothing.
	debug.SetGCPercent(400)
	var a assignment
	err := json.Unmarshal([]byte(text), &a)
	if err == nil {
		err = a.run(os.Stdin)
	}
	if err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", a.Name, err)
		return 1, true
	}
	return 0, true
}

func (a *assignment) run(in io.Reader) error {
	t, err := openTrace(a.Trace)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	orders := make(chan string)
	var reading sync.WaitGroup
	reading.Go(func() { // ends with the process: nobody can wait for a read of standard input
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			orders <- lines.Text()
		}
		os.Exit(1) // whoever gave the orders is gone
	})
	if a.Shared > 0 {
		return a.share(ctx, t)
	}
	return a.consume(ctx, t, orders)
}

// consume runs a session until it is told to stop or to leave.
func (a *assignment) consume(ctx context.Context, t *trace, orders <-chan string) error {
	c, err := client.Open(ctx, a.Dir, client.Options{})
	if err != nil {
		return err
	}
	r, err := c.Receiver(ctx, a.Topic, subscription, queue.ReceiverOptions{Name: a.Name,
		Lease: a.Lease})
	if err != nil {
		return errors.Join(err, c.Close())
	}
	src := newSource(r, t, a.Lease, a.Withholds)
	w := &work{trace: t, fails: map[string]bool{}}
	for _, id := range a.Fails {
		w.fails[id] = true
	}
	handler, err := a.handler(ctx, w, c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var loop sync.WaitGroup
	done := make(chan error, 1)
	loop.Go(func() { done <- deliver.Run(ctx, src, handler, a.options()) }) // ends with stop, or Close
	select {
	case err = <-done:
	case order := <-orders:
		if order == orderLeave {
			err = w.leave(ctx, a.Name, src)
		}
		stop()
		if runErr := <-done; !errors.Is(runErr, ackwise.ErrClosed) {
			err = errors.Join(err, runErr)
		}
	}
	src.flush()
	return errors.Join(err, r.Close(), c.Close())
}

func (a *assignment) options() deliver.Options {
	return deliver.Options{Pipeline: a.Name, Guarantee: a.Guarantee, Concurrency: a.Concurrency,
		MaxInFlight: a.MaxInFlight, MaxFailures: 3, StopGrace: 5 * time.Second,
		Backoff: deliver.Backoff{First: 20 * time.Millisecond, Cap: 100 * time.Millisecond}}
}

// handler makes the handler of the assignment's pattern.
func (a *assignment) handler(ctx context.Context, w *work, c *client.Client) (ackwise.Handler,
	error) {
	switch a.Pattern {
	case patternNone, patternArrival:
		w.effect = w.increment
	case patternDedup:
		applied, err := openSeen(a.Applied)
		if err != nil {
			return nil, err
		}
		h, err := w.deduplicated(ctx, applied, c, a.Topic)
		if err != nil {
			return nil, err
		}
		w.effect = h.Handle
	case patternWrite, patternUpsert, patternCompare:
		t, err := queuestore.OpenTable(c, a.Pattern)
		if err != nil {
			return nil, err
		}
		w.effect = w.onTable(a.Pattern, t)
	case patternTransaction:
		inner := queue.Transact(transact)
		w.effect = inner.Handle
		return &transactional{w, inner}, nil
	default:
		return nil, fmt.Errorf("no pattern %q", a.Pattern)
	}
	return w, nil
}

// work is the handler: it writes what it does, takes a moment, and applies the effect.
type work struct {
	trace  *trace
	fails  map[string]bool
	effect func(ctx context.Context, d *ackwise.Delivery) error
	busy   atomic.Int64 // handlers at work
}

var errBroken = errors.New("the aircraft's records cannot be reached")

// Handle implements ackwise.Handler.
func (w *work) Handle(ctx context.Context, d *ackwise.Delivery) error {
	w.busy.Add(1)
	defer w.busy.Add(-1)
	if err := w.trace.write(markBegin, d.ID, d.Cause.String()); err != nil {
		return err
	}
	err := w.do(ctx, d)
	text := "done"
	if err != nil {
		text = "failed"
	}
	return errors.Join(err, w.trace.write(markEnd, d.ID, text))
}

func (w *work) do(ctx context.Context, d *ackwise.Delivery) error {
	if err := pause(ctx); err != nil {
		return err
	}
	if w.fails[d.ID] && d.Counts.Redrives == 0 {
		return errBroken
	}
	if err := w.effect(ctx, d); err != nil {
		return err
	}
	return pause(ctx) // so that some are killed after the effect and before the ack
}

// maxPause is the longest that a handler pauses before its effect, and after it.
const maxPause = 3 * time.Millisecond

func pause(ctx context.Context) error {
	timer := time.NewTimer(rand.N(maxPause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// increment is a plain increment: every delivery counts.
func (w *work) increment(_ context.Context, d *ackwise.Delivery) error {
	miles, err := milesOf(d)
	if err != nil {
		return err
	}
	return w.trace.write(markEffect, d.ID, strconv.FormatInt(miles, 10))
}

// deduplicated is an increment that idempotency.Dedup calls once for each message, with the claims
// and the marks in the engine.
//
// Its effect is outside of the engine, so that Dedup alone leaves a gap: where a consumer is killed
// between its increment and the completion of its claim, the engine cannot know whether the effect
// was made. Whoever takes such a claim over is told so, and only then the file is asked: each line
// of it names its message. So no repeat but that of a takeover depends on the file, and the sum is
// exact through all of them.
func (w *work) deduplicated(ctx context.Context, applied *seen, c queuestore.Engine, name string) (
	ackwise.Handler, error) {
	ids, err := queuestore.Open(ctx, c, name, queuestore.Options{Window: dedupWindow})
	if err != nil {
		return nil, err
	}
	increment := ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		miles, err := milesOf(d)
		if err != nil {
			return err
		}
		takeover := false
		for _, claim := range idempotency.FromContext(ctx) {
			takeover = takeover || claim.Takeover
		}
		first, err := applied.apply(d.DedupKey(), miles, takeover)
		if err == nil && !first {
			err = w.trace.write(markRepeat, d.ID, "-")
		}
		return err
	})
	return idempotency.Dedup(ctx, ids, increment, idempotency.Options{Again: dedupWindow,
		Lease: claimLease, BusyDelay: lease / 4, Observe: func(e ackwise.Event) {
			if e.Kind == "duplicate" {
				_ = w.trace.write(markRepeat, e.ID, "-") // as the handler's own marks
			}
		}})
}

const (
	// dedupWindow is longer than any demo.
	dedupWindow = time.Hour
	// claimLease is how long a claim outlives its consumer: longer than a busy machine is likely to
	// keep a living one from extending it.
	claimLease = time.Second
)

// leave closes the session while handlers are at work: what they hold is handed out again.
func (w *work) leave(ctx context.Context, name string, src *source) error {
	src.end(src.drop)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for w.busy.Load() == 0 && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	busy := strconv.FormatInt(w.busy.Load(), 10)
	return errors.Join(w.trace.write(markLeave, name, busy), src.Close())
}

// transactional is work whose effect is a transaction that acks the delivery.
type transactional struct {
	*work
	inner ackwise.Transactional
}

// Bind implements ackwise.Transactional.
func (t *transactional) Bind(src ackwise.Source) error { return t.inner.Bind(src) }
