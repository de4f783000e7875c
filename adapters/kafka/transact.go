package kafka

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// Tx collects what a batch publishes. It is for one goroutine.
type Tx struct{ msgs []ackwise.Message }

// Publish adds messages. They are published when the function has returned nil, in their order.
func (tx *Tx) Publish(msgs ...ackwise.Message) { tx.msgs = append(tx.msgs, msgs...) }

// TransactFunc does the work of a batch. Its error is that of every delivery of the batch: nothing
// that it published is seen by anybody. Then it is called again with the halves of the batch, so
// that in the end the guilty delivery alone has the error.
type TransactFunc func(ctx context.Context, tx *Tx, ds []*ackwise.Delivery) error

// Transactor is a handler of batches whose publishes and whose acks are one Kafka transaction:
// whoever reads committed records sees the effect of each message once. It needs deliver.RunBatch
// with ExactlyOnce and a consumer group's source of this package.
//
//	fn ─▶ Tx ─▶ begin ─▶ publish all ─▶ positions and notes ─▶ commit ─▶ settled
//	              │                        │ fenced by the group's generation
//	              └──── any failure ───────┴─────────────────▶ abort ─▶ held, tried again
//
// One transaction runs at a time; a transaction begins only when fn has returned, so fn may take
// longer than the transaction's time-out. A dead letter is written outside of it, at least once.
type Transactor struct {
	fn     TransactFunc
	opts   SinkOptions
	midway func() // called between the publishes and the positions, by tests that end the process

	turn chan struct{} // holds one token: whoever has it has the producer
	// What follows belongs to the holder of the token; src is set once, by Bind.
	src  *Source
	sink *Sink

	mu      sync.Mutex // guards closed
	closed  bool
	pending sync.WaitGroup // HandleBatch calls; grows only while not closed
}

// Transact makes a handler of fn. Conn is the source's: leave it empty. TransactionalID is by
// default a new one for each Transactor, since the group's generation is the fence; a given one
// must be no other process's. The result implements ackwise.BatchHandler and binds to its source
// as an ackwise.Transactional does.
func Transact(fn TransactFunc, o SinkOptions) *Transactor {
	t := &Transactor{fn: fn, opts: o, midway: func() {}, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// Bind ties the handler to the source of its deliveries, and opens the producer.
func (t *Transactor) Bind(source ackwise.Source) error {
	src, ok := source.(*Source)
	switch {
	case !ok:
		return &ackwise.HintError{
			Err: fmt.Errorf("kafka.Transact cannot settle deliveries of a %T: its positions are not "+
				"in the cluster that it publishes to", source),
			Hint: "Consume from a kafka:// source of a consumer group, or use AtLeastOnce with a " +
				"handler of package idempotency."}
	case src.share():
		return &ackwise.HintError{
			Err: errors.New("kafka.Transact cannot settle deliveries of a share group: Kafka has no " +
				"transaction that holds its acknowledgements"),
			Hint: "Use mode=group, or AtLeastOnce with a handler of package idempotency."}
	case len(t.opts.Brokers) > 0:
		return &ackwise.InvalidError{Field: "brokers",
			Reason: "a transaction is one cluster's, which the source names: leave Conn empty"}
	case t.src != nil && t.src != src:
		return errors.New("kafka.Transact is bound to another source already")
	}
	<-t.turn
	defer func() { t.turn <- struct{}{} }()
	if t.src = src; t.sink != nil {
		return nil
	}
	return t.open(context.Background())
}

// open opens the producer, under a transactional ID that was not used before unless one is given.
func (t *Transactor) open(ctx context.Context) error {
	o := t.opts
	o.Conn = *t.src.conn()
	if o.TransactionalID == "" {
		o.TransactionalID = "ackwise-" + t.src.opts.Group + "-" + strings.ToLower(rand.Text())
	}
	sink, err := openSink(ctx, o)
	if err != nil {
		return fmt.Errorf("open the transactional producer: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sink.o.OpenTimeout)
	defer cancel()
	if err := checkVersions(ctx, kadm.NewClient(sink.cl), fencedCommits()); err != nil {
		return errors.Join(err, sink.Close())
	}
	t.sink = sink
	return nil
}

// Close ends the producer. What is under way ends before.
func (t *Transactor) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.pending.Wait()
	<-t.turn
	defer func() { t.turn <- struct{}{} }()
	if t.sink == nil {
		return nil
	}
	sink := t.sink
	t.sink = nil
	return sink.Close()
}

// HandleBatch implements ackwise.BatchHandler.
func (t *Transactor) HandleBatch(ctx context.Context, ds []*ackwise.Delivery) []error {
	errs := make([]error, len(ds))
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.pending.Add(1)
	}
	t.mu.Unlock()
	if closed {
		for i := range errs {
			errs[i] = ackwise.ErrClosed
		}
		return errs
	}
	defer t.pending.Done()
	t.handle(ctx, ds, errs, map[string]bool{})
	return errs
}

// snooze is how long a batch waits whose abort is nobody's fault.
const snooze = time.Second

var errBehindFailed = errors.New("an earlier message of its key failed")

// handle fills errs for ds. Of the keys in stuck nothing is attempted.
func (t *Transactor) handle(ctx context.Context, ds []*ackwise.Delivery, errs []error,
	stuck map[string]bool) {
	var now []*ackwise.Delivery
	var at []int
	for i, d := range ds {
		if d.Key != "" && stuck[d.Key] {
			errs[i] = fmt.Errorf("%w: %w", errBehindFailed, ackwise.Snooze(snooze))
			continue
		}
		now, at = append(now, d), append(at, i)
	}
	if len(now) == 0 {
		return
	}
	tx := &Tx{}
	err := t.fn(ctx, tx, now)
	if err == nil {
		err = t.commit(ctx, tx, now)
	}
	if len(now) > 1 && ctx.Err() == nil && divisible(err) {
		half := make([]error, len(now))
		mid := len(now) / 2
		t.handle(ctx, now[:mid], half[:mid], stuck)
		t.handle(ctx, now[mid:], half[mid:], stuck)
		for i, k := range at {
			errs[k] = half[i]
		}
		return
	}
	for i, k := range at {
		errs[k] = err
		stuck[now[i].Key] = stuck[now[i].Key] || err != nil
	}
}

// divisible reports whether one delivery of a batch may be to blame for err.
func divisible(err error) bool {
	if err == nil || errors.Is(err, errNoFault) {
		return false
	}
	v := ackwise.OutcomeOf(err)
	return v.Outcome == ackwise.OutcomeNack && !v.After || v.Outcome == ackwise.OutcomeDead ||
		v.Outcome == ackwise.OutcomeDrop
}

// errNoFault marks what is no delivery's fault: the whole batch is tried again as it is.
var errNoFault = errors.New("the transaction was aborted")

// commit publishes what tx holds and acks ds, in one transaction.
func (t *Transactor) commit(ctx context.Context, tx *Tx, ds []*ackwise.Delivery) error {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { t.turn <- struct{}{} }()
	tokens := make([]ackwise.LeaseToken, len(ds))
	for i, d := range ds {
		tokens[i] = d.Token
	}
	if len(tx.msgs) == 0 {
		return t.ack(ctx, tokens)
	}
	if t.sink.txn.gone != nil {
		if err := t.renew(ctx); err != nil {
			return fmt.Errorf("%w: %w", errNoFault, err)
		}
	}
	return t.transact(ctx, tx, tokens)
}

// ack settles a batch that publishes nothing: the commit of its positions is all there is.
func (t *Transactor) ack(ctx context.Context, tokens []ackwise.LeaseToken) error {
	settlements := make([]ackwise.Settlement, len(tokens))
	for i, token := range tokens {
		settlements[i] = ackwise.Settlement{Token: token, Outcome: ackwise.OutcomeAck}
	}
	var faults []error
	for _, r := range t.src.Settle(ctx, settlements) {
		faults = append(faults, r.Err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("%w: %w", errNoFault, err)
	}
	return nil
}

// renew replaces a producer whose transactions have come to an end: the brokers end one whose
// transaction outlasted its time-out, and its ID is nobody else's.
func (t *Transactor) renew(ctx context.Context) error {
	if t.opts.TransactionalID != "" {
		return t.sink.txn.gone
	}
	old := t.sink
	if err := t.open(ctx); err != nil {
		return err
	}
	return old.Close()
}

// transact runs one transaction.
func (t *Transactor) transact(ctx context.Context, tx *Tx, tokens []ackwise.LeaseToken) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.sink.o.PublishTimeout, errPublishTimeout)
	defer cancel()
	c := newCall(t.sink, tx.msgs)
	t.sink.makeTopics(ctx, c)
	if err := c.failed(); err != nil && !errors.Is(err, errNotTried) {
		return t.fault(c)
	}
	p := t.sink.txn
	if err := p.begin(); err != nil {
		return fmt.Errorf("%w: %w", errNoFault, err)
	}
	c.produce(ctx, t.sink.cl)
	if bad := p.ended(c.failed()); bad != nil {
		if err := p.abort(ctx); err != nil || errors.Is(bad, errGone) {
			err = cmp.Or(err, bad)
			return fmt.Errorf("%w: %w", errNoFault, err)
		}
		return t.fault(c)
	}
	t.midway()
	ended := false
	err := t.src.logs.Transact(ctx, tokens, func(ctx context.Context, marks []logsource.Mark) error {
		err := t.send(ctx, marks)
		if err == nil {
			ended = true
			err = t.end(ctx, marks)
		}
		return err
	})
	if err == nil {
		return nil
	}
	if !ended {
		err = errors.Join(err, p.abort(ctx))
	}
	err = fmt.Errorf("%w: %w", errNoFault, err)
	if excusable(err) {
		return fmt.Errorf("%w: %w", err, ackwise.Snooze(snooze))
	}
	return err
}

// fault is what a call's results mean for the batch that published it.
func (t *Transactor) fault(c *call) error {
	results := make([]ackwise.Result, len(c.msgs))
	c.results(results)
	for i := range results {
		switch r := &results[i]; {
		case r.Class == ackwise.ResultAccepted:
		case r.Class == ackwise.ResultRejected, refused(r.Err):
			// Alone in its batch it is rejected; of a larger one the halves are tried.
			return ackwise.Reject(r.Err)
		case r.Err != nil && !errors.Is(r.Err, errNotTried):
			return fmt.Errorf("%w: %w", errNoFault, r.Err)
		}
	}
	return errNoFault
}
