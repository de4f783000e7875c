package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// errAborted is why a message that nothing is wrong with was not accepted.
var errAborted = errors.New("its transaction was aborted because of another message")

// endTimeout is the least time that ending a transaction is given, whatever is left of the call.
const endTimeout = 10 * time.Second

// txnProducer runs one transaction after another.
type txnProducer struct {
	cl   *kgo.Client
	ends *endings      // of this client
	turn chan struct{} // holds one token: whoever has it has the transaction
	// What follows belongs to the holder of the token.
	gone error // why there will be no more transactions
}

// endings counts the requests to end a transaction that brokers have answered.
type endings struct{ n atomic.Int64 }

// OnBrokerE2E is told of every request, before who made it hears the answer.
func (e *endings) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, done kgo.BrokerE2E) {
	if key == int16(kmsg.EndTxn) && done.Err() == nil {
		e.n.Add(1)
	}
}

func newTxnProducer(cl *kgo.Client, ends *endings) *txnProducer {
	t := &txnProducer{cl: cl, ends: ends, turn: make(chan struct{}, 1)}
	t.turn <- struct{}{}
	return t
}

// publish publishes a call in one transaction. Where one record fails, none is accepted: the others
// are then not attempted, as far as the abort is known.
func (t *txnProducer) publish(ctx context.Context, c *call) {
	select {
	case <-t.turn:
	case <-ctx.Done():
		return // nothing was attempted
	}
	defer func() { t.turn <- struct{}{} }()
	if err := t.begin(); err != nil {
		c.skipAll(err)
		return
	}
	c.produce(ctx, t.cl)
	bad := t.ended(c.failed())
	if bad == nil && !c.produced() {
		if err := t.abort(ctx); err != nil {
			c.skipAll(err)
		}
		return
	}
	if bad == nil {
		if err := t.commit(ctx); errors.Is(err, errUnknown) {
			c.failAll(err)
		} else if err != nil {
			c.skipAll(err)
		}
		return
	}
	if err := t.abort(ctx); err != nil || errors.Is(bad, errGone) {
		err = cmp.Or(err, bad)
		// It is not committed: the brokers abort it when its time is over, or have done so.
		c.skipAll(fmt.Errorf("abort the transaction: %w", err))
		return
	}
	for _, i := range c.refusals() {
		t.probe(ctx, c, i)
	}
	c.skipRest(errAborted)
}

// probe finds out whether it was this record that the brokers refused, by publishing it alone in a
// transaction that is aborted.
func (t *txnProducer) probe(ctx context.Context, c *call, i int) {
	if ctx.Err() != nil || t.begin() != nil {
		return
	}
	rec := *c.recs[i].rec
	err := t.cl.ProduceSync(ctx, &rec).FirstErr()
	if t.abort(ctx) == nil && refused(err) {
		c.set(i, err)
	}
}

// begin begins a transaction.
func (t *txnProducer) begin() error {
	if t.gone != nil {
		return t.gone
	}
	if err := t.cl.BeginTransaction(); err != nil {
		return t.ended(fmt.Errorf("begin a transaction: %w", err))
	}
	return nil
}

// commit commits what was produced. An error of which errUnknown is not a part says that nothing
// was committed.
func (t *txnProducer) commit(ctx context.Context) error {
	ctx, cancel := endContext(ctx)
	defer cancel()
	before := t.ends.n.Load()
	err := t.cl.EndTransaction(ctx, kgo.TryCommit)
	for err == nil {
		if t.ends.n.Load() > before {
			return nil
		}
		err = t.commitAgain(ctx)
	}
	// Any other answer may be one to a repeated request, of which the first was carried out.
	denied := errors.Is(err, kerr.OperationNotAttempted) || errors.Is(err, kerr.TransactionAbortable)
	// The second call fences what may still be open, so that no later transaction can join it.
	fence := t.cl.EndTransaction(ctx, kgo.TryAbort)
	err = t.ended(fmt.Errorf("commit the transaction: %w", err))
	if fence != nil {
		err = t.ended(fmt.Errorf("%w; abort it: %w", err, fence))
	}
	if denied {
		return err
	}
	return fmt.Errorf("%w: %w", errUnknown, err)
}

// commitAgain commits where the client has ended the transaction without a word to the broker. It
// does so where it knows of no partition with records. It may not know them yet right after the
// first records of a topic: what it has learned of the topic is in its place only when all that
// waited for it has got a partition, and the first may be acknowledged before. Taken for committed,
// they would be aborted when the transaction's time is over.
func (t *txnProducer) commitAgain(ctx context.Context) error {
	timer := time.NewTimer(10 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("the client has not ended the transaction: %w", context.Cause(ctx))
	case <-timer.C:
	}
	if err := t.cl.BeginTransaction(); err != nil {
		return err
	}
	return t.cl.EndTransaction(ctx, kgo.TryCommit)
}

// errUnknown marks a commit of which nobody heard the answer.
var errUnknown = errors.New("the commit may have happened")

// kerrDenies reports whether the coordinator's answer to an abort says that nothing is left of it.
func kerrDenies(err error) bool {
	for _, t := range []error{kerr.OperationNotAttempted, kerr.TransactionAbortable,
		kerr.InvalidTxnState, kerr.ProducerFenced, kerr.InvalidProducerEpoch,
		kerr.InvalidProducerIDMapping, kerr.TransactionalIDAuthorizationFailed} {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// abort aborts. The client has what it knows of new topics in its place once it has dropped what is
// buffered, so that it does not forget to tell the broker, as it may at a commit.
func (t *txnProducer) abort(ctx context.Context) error {
	ctx, cancel := endContext(ctx)
	defer cancel()
	err := t.cl.AbortBufferedRecords(ctx)
	if err == nil {
		err = t.cl.EndTransaction(ctx, kgo.TryAbort)
	}
	if err != nil && !kerrDenies(err) {
		err = t.cl.EndTransaction(ctx, kgo.TryAbort) // fences, where the first one's end is unknown
	}
	return t.ended(err)
}

// endContext gives the end of a transaction its time even where the call has none left: a
// transaction that stays open holds up whoever reads behind it.
func endContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
}

// ended notes an error after which this producer can do nothing more.
func (t *txnProducer) ended(err error) error {
	if errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.InvalidProducerIDMapping) {
		err = fmt.Errorf("%w: %w", errGone, err)
		t.gone = errGone
	}
	return err
}

// failed returns the first error of a record.
func (c *call) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.recs {
		switch r := &c.recs[i]; {
		case r.err != nil:
			return r.err
		case !r.over:
			return errNotTried
		}
	}
	return nil
}

// produced reports whether any record was sent.
func (c *call) produced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.recs, func(r sent) bool { return r.rec != nil && r.tried })
}

// refusals returns the records that were refused, perhaps because of others.
func (c *call) refusals() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []int
	for i := range c.recs {
		if r := &c.recs[i]; r.rec != nil && r.over && refused(r.err) {
			out = append(out, i)
		}
	}
	return out
}

// failAll gives all records an error.
func (c *call) failAll(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.recs {
		if r := &c.recs[i]; r.rec != nil {
			r.over, r.err = true, err
		}
	}
}

// skipAll makes all records ones that were not attempted.
func (c *call) skipAll(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.recs {
		if r := &c.recs[i]; r.rec != nil {
			r.over, r.skip = false, err
		}
	}
}

// skipRest does so with those that nothing is known to be wrong with. Their transaction is aborted,
// so nothing of it is unknown.
func (c *call) skipRest(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.recs {
		r := &c.recs[i]
		if r.rec == nil || r.over && r.alone || r.over && r.err != nil && !refused(r.err) {
			continue
		}
		r.over, r.skip = false, err
	}
}
