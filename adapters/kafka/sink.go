package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// Sink publishes to Kafka. Messages of one key go to one partition, by the hash of the key that
// Kafka's own producer uses, in the order in which they were given; messages without a key to any.
// A different number of partitions sends keys elsewhere: their order holds only before and after.
type Sink struct {
	o      SinkOptions
	cl     *kgo.Client
	limit  int    // the longest record, see size; 0 = each topic's own, which only it knows
	single *alone // publishes records one at a time
	txn    *txnProducer
	known  topics

	mu      sync.Mutex // guards closed
	closed  bool
	pending sync.WaitGroup // Publish calls; grows only while not closed
}

// OpenSink connects, checks that the topic is there and may be written, and reads how long a record
// it takes.
func OpenSink(ctx context.Context, o SinkOptions) (ackwise.Sink, error) {
	s, err := openSink(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open the sink kafka://%s/%s: %w", hosts(&o.Conn), o.Topic, err)
	}
	return s, nil
}

func openSink(ctx context.Context, o SinkOptions) (*Sink, error) {
	if err := errors.Join(o.Conn.check(), o.check()); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	ctx, cancel := context.WithTimeoutCause(ctx, o.OpenTimeout,
		fmt.Errorf(openLate+" of %s", o.OpenTimeout))
	defer cancel()
	limit, err := prepareSink(ctx, &o)
	if err != nil {
		return nil, err
	}
	if limit > 0 && o.BatchBytes > limit {
		return nil, &ackwise.InvalidError{Field: "batch-bytes", Value: fmt.Sprint(o.BatchBytes),
			Reason: fmt.Sprintf("the topic takes at most %d (max.message.bytes)", limit)}
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = limit
	}
	s := &Sink{o: o, limit: o.BatchBytes, known: topics{made: map[string]bool{}}}
	ends := &endings{}
	if s.cl, err = s.client(kgo.WithHooks(ends)); err != nil {
		return nil, err
	}
	// The producer ID tells whether this user may produce at all.
	id, _, err := s.cl.ProducerID(ctx)
	if err == nil && id < 0 {
		err = errNoProducer()
	}
	if err != nil {
		s.cl.Close()
		return nil, explain(orCause(ctx, err), o.Topic)
	}
	s.single = newAlone(s)
	if o.TransactionalID != "" {
		s.txn = newTxnProducer(s.cl, ends)
	}
	return s, nil
}

// prepareSink checks the topic with a client of its own, for what it learns
// decides the producer's options.
func prepareSink(ctx context.Context, o *SinkOptions) (limit int, err error) {
	opts, err := o.opts()
	if err != nil {
		return 0, err
	}
	if err := o.handshake(ctx); err != nil {
		return 0, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		err = fmt.Errorf("reach the brokers: %w", severed(orCause(ctx, err)))
		return 0, explainConn(unreached(err, o.Brokers...), o.Brokers...)
	}
	if o.Topic == "" {
		return 0, nil
	}
	return prepareTopic(ctx, kadm.NewClient(cl), o)
}

// orCause is why ctx ended, with err, or err alone.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// client makes the producer.
func (s *Sink) client(more ...kgo.Opt) (*kgo.Client, error) {
	opts, err := s.o.opts()
	if err != nil {
		return nil, err
	}
	opts = append(opts,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(s.o.Linger),
		kgo.ProducerBatchCompression(s.o.codec()...),
		kgo.MaxBufferedRecords(s.o.MaxBuffered),
		kgo.MaxBufferedBytes(s.o.MaxBufferedBytes),
		kgo.ProduceRequestTimeout(min(s.o.PublishTimeout, 10*time.Second)),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if s.o.BatchBytes > 0 {
		opts = append(opts, kgo.ProducerBatchMaxBytes(int32(s.o.BatchBytes)),
			kgo.BrokerMaxWriteBytes(int32(max(100<<20, 2*s.o.BatchBytes))))
	}
	if s.o.TransactionalID != "" {
		opts = append(opts, kgo.MaxVersions(txnVersions()),
			kgo.TransactionalID(s.o.TransactionalID), kgo.TransactionTimeout(s.o.TransactionTimeout))
	} else {
		// What nobody waits for any more is not written later, behind what was published since.
		opts = append(opts, kgo.AllowIdempotentProduceCancellation())
	}
	return kgo.NewClient(append(opts, more...)...)
}

// Features says that a batch may hold runs of a key and that nothing is deduplicated.
func (s *Sink) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{KeyRunSafe: true, MaxBodyBytes: s.maxBody()}
}

// Publish publishes all messages at once and returns when each has its answer, at the latest after
// PublishTimeout. Messages without an ID get one.
//
// A key's messages are written in their order. Behind one that was neither accepted nor rejected
// nothing of its key counts as accepted: what was written all the same is unknown, so that it is
// published again, behind the first.
func (s *Sink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	if !s.enter() {
		for i := range results {
			results[i] = ackwise.Result{Class: ackwise.ResultNotAttempted, ID: msgs[i].ID,
				Err: ackwise.ErrClosed}
		}
		return results
	}
	defer s.pending.Done()
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.PublishTimeout, errPublishTimeout)
	defer cancel()
	c := newCall(s, msgs)
	s.makeTopics(ctx, c)
	if s.txn != nil {
		s.txn.publish(ctx, c)
	} else {
		c.produce(ctx, s.cl)
		c.isolate(ctx)
	}
	c.results(results)
	return results
}

// enter counts a Publish in, unless the sink is closed.
func (s *Sink) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.pending.Add(1)
	}
	return !s.closed
}

// Close waits for the Publish calls under way and ends the producer.
func (s *Sink) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	s.pending.Wait()
	s.single.close()
	s.cl.Close()
	return nil
}
