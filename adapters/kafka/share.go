package kafka

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/texts"
)

// share reads by a share group (KIP-932). The broker hands out single records, with a lease and a
// count; there is no order and no journal.
//
//	poller ─▶ queue ─▶ Receive ─▶ handler ─▶ Settle ─▶ settler: rounds of acknowledgements
//	  ▲ only when a Receive waits: the lease of a queued record runs
type share struct {
	opts    *SourceOptions
	owner   string
	cl      *kgo.Client
	abort   context.CancelFunc // ends the client's requests
	cancel  context.CancelFunc // ends the poller and the settler
	poller  sync.WaitGroup
	settler sync.WaitGroup
	hungry  chan struct{} // one place: the poller looks again
	kick    chan struct{} // one place: the settler looks again

	mu      sync.Mutex // guards all below; never held during I/O
	queue   []*held    // not handed out yet
	holds   map[ackwise.LeaseToken]*held
	memory  shareMemory
	texts   texts.Pages
	serial  uint64
	waiting int           // Receives that wait
	changed chan struct{} // closed and replaced when a Receive should look again
	rulings []*ruling     // to be carried out
	refused map[string]error
	err     error        // told once
	given   givenUpError // told once, by Receive or by Close
	closed  bool
}

// held is a record that this process has.
type held struct {
	record   *kgo.Record
	delivery *ackwise.Delivery
	lease    time.Duration // how long from now on, less the margin
	deadline time.Time
	out      bool // given to a Receive
	settling bool
}

// ruling is a settlement that is being carried out.
type ruling struct {
	held    *held
	outcome ackwise.Outcome
	result  ackwise.SettleResult
	done    chan struct{}
}

const (
	// leaseMargin is the part of a lease that is kept back for the way to the broker.
	leaseMargin = 10
	// shareWait is how long a broker holds an empty answer back; acknowledgements wait behind it.
	shareWait = 100 * time.Millisecond
	// shareFetches is how many fetches fill what a source may hold.
	shareFetches = 4
)

func openShare(o *SourceOptions, opts []kgo.Opt) (ackwise.Source, error) {
	clientCtx, abort := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(clientCtx)
	s := &share{opts: o, owner: rand.Text(), abort: abort, cancel: cancel,
		hungry: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		holds: map[ackwise.LeaseToken]*held{}, memory: newShareMemory(),
		changed: make(chan struct{}), refused: map[string]error{}}
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.WithContext(clientCtx),
		kgo.WithHooks(unfinished{}), kgo.ShareGroup(o.Group), kgo.ConsumeTopics(o.Topics...),
		// Only what is asked for: the lease of a record that waits in the client runs.
		kgo.ShareMaxRecords(int32(s.batch())), kgo.ShareMaxRecordsStrict(),
		kgo.FetchMaxWait(shareWait), kgo.ConnIdleTimeout(max(time.Minute, 2*o.lease)),
		kgo.ShareAckCallback(s.answered))...)
	if err != nil {
		cancel()
		abort()
		return nil, fmt.Errorf("make client: %w", err)
	}
	s.cl = cl
	s.poller.Go(func() { s.poll(ctx) })    // until Close cancels ctx
	s.settler.Go(func() { s.settle(ctx) }) // until Close cancels ctx, and after its last round
	return &Source{Source: s, opts: *o}, nil
}

// batch is how many records one fetch brings.
func (s *share) batch() int { return max(1, s.opts.Records/shareFetches) }

// Features describes the source. The broker's counts say how often and not why; what this process
// knows of its own hand-outs it says.
func (s *share) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderNone, Lease: s.opts.lease, Extend: s.opts.renews,
		HandOuts: true, MaxHandOuts: s.opts.handOuts}
}

// unfinished hides from the client what it has handed out. At the next poll the client accepts by
// itself whatever it has handed out and was not acknowledged, and so would lose what a slow handler
// still works on. It finds its records by a value of their contexts.
type unfinished struct{}

type handedKey struct{}

// OnFetchRecordBuffered takes the client's value away, until shown puts it back.
func (unfinished) OnFetchRecordBuffered(r *kgo.Record) {
	r.Context = context.WithValue(context.Background(), handedKey{}, r.Context)
}

func shown(r *kgo.Record) {
	if own, ok := r.Context.Value(handedKey{}).(context.Context); ok {
		r.Context = own
	}
}

// Receive hands out what was polled, and has more polled where that is nothing.
func (s *share) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	s.mu.Lock()
	s.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting--
	}()
	for {
		ds, changed, err := s.take(max(1, most))
		if len(ds) > 0 || err != nil {
			return ds, err
		}
		wake(s.hungry)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
	}
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it has not looked yet
	}
}

func (s *share) take(most int) ([]*ackwise.Delivery, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ackwise.ErrClosed
	}
	var ds []*ackwise.Delivery
	now := time.Now()
	for len(s.queue) > 0 && len(ds) < most {
		h := s.queue[0]
		s.queue = s.queue[1:]
		if h.deadline.After(now) { // else the settler gives it back
			h.out = true
			ds = append(ds, h.delivery)
		}
	}
	if len(ds) > 0 {
		return ds, nil, nil
	}
	err := errors.Join(s.err, s.given.told())
	s.err = nil
	return nil, s.changed, err
}

// poll fetches while a Receive waits and the source may hold more.
func (s *share) poll(ctx context.Context) {
	for ctx.Err() == nil {
		if !s.wanted() {
			select {
			case <-ctx.Done():
			case <-s.hungry:
			}
			continue
		}
		s.takeIn(s.cl.PollRecords(ctx, -1))
	}
}

func (s *share) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting > 0 && len(s.queue) == 0 && len(s.holds)+s.batch() <= max(s.opts.Records, 1)
}

// takeIn queues what was polled.
func (s *share) takeIn(fetches kgo.Fetches) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fetches.EachError(func(topic string, partition int32, err error) {
		if e := shareError(topic, partition, err, s.opts); e != nil {
			s.err = e
		}
	})
	now := time.Now()
	fetches.EachRecord(func(r *kgo.Record) {
		shown(r)
		s.serial++
		h := s.hold(r, now)
		s.holds[h.delivery.Token] = h
		s.queue = append(s.queue, h)
	})
	wake(s.kick) // the settler looks when the first lease ends
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *share) hold(r *kgo.Record, now time.Time) *held {
	msg, epoch := message(r, s.opts.IDHeader, &s.texts)
	if s.opts.Dead != "" {
		msg.Headers = readDead(s.opts.Dead, msg.Headers)
	}
	count := int(r.DeliveryCount())
	// The lease ends a little earlier here than at the broker, where it began earlier.
	lease := r.AcquisitionDeadline().Sub(now)
	lease -= lease / leaseMargin
	deadline := now.Add(lease)
	return &held{record: r, lease: lease, deadline: deadline, delivery: &ackwise.Delivery{
		Message: msg, Attempt: count, Counts: ackwise.Counts{HandOuts: count},
		Cause: s.memory.cause(placeOf(r), count), Epoch: epoch, Deadline: deadline,
		Partition: partitionName(r.Topic, r.Partition), Position: position(r.Offset),
		Token: ackwise.LeaseToken(s.owner + "-" + strconv.FormatUint(s.serial, 10)),
	}}
}

// Settle carries out settlements. Those that come at the same time share a round.
func (s *share) Settle(ctx context.Context, list []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(list))
	waits := make([]*ruling, len(list))
	s.mu.Lock()
	for i := range list {
		results[i], waits[i] = s.begin(&list[i])
		if waits[i] != nil {
			s.rulings = append(s.rulings, waits[i])
		}
	}
	s.mu.Unlock()
	wake(s.kick)
	for i, r := range waits {
		if r == nil {
			continue
		}
		select {
		case <-r.done:
			results[i] = r.result
		case <-ctx.Done():
			results[i].Err = context.Cause(ctx)
		}
	}
	return results
}

// begin looks at one settlement, and returns what is to be carried out. mu is held.
func (s *share) begin(l *ackwise.Settlement) (ackwise.SettleResult, *ruling) {
	h := s.holds[l.Token]
	extend := l.Outcome == ackwise.OutcomeExtend
	switch {
	case !strings.HasPrefix(string(l.Token), s.owner+"-"):
		return ackwise.SettleResult{Err: ackwise.ErrBadToken}, nil
	case l.Outcome > ackwise.OutcomeDrop:
		return ackwise.SettleResult{Err: &ackwise.InvalidError{
			Field: "outcome", Value: l.Outcome.String(), Reason: "no such outcome"}}, nil
	case l.Outcome == ackwise.OutcomeDrop && l.Reason == "":
		return ackwise.SettleResult{Err: &ackwise.InvalidError{
			Field: "reason", Reason: "a drop needs one"}}, nil
	case extend && !s.opts.renews:
		return ackwise.SettleResult{Err: &unsupportedError{need: "extending a lease",
			hint: "it needs Apache Kafka 4.2 or later"}}, nil
	case h == nil || h.settling && !extend:
		return s.memory.again(l.Token, l.Outcome), nil
	case h.settling || s.closed:
		return ackwise.SettleResult{Err: ackwise.ErrLeaseLost}, nil
	}
	if !extend {
		h.settling = true
		s.memory.settled(l.Token, l.Outcome)
	}
	return ackwise.SettleResult{}, &ruling{held: h, outcome: l.Outcome, done: make(chan struct{})}
}

// Close gives back what is held, and leaves the group.
func (s *share) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.cancel()
	s.poller.Wait()
	s.settler.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	err := s.cl.LeaveGroupContext(ctx)
	s.abort() // where the group did not answer, nothing more is waited for
	s.cl.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) {
		return errors.Join(s.given.told(), fmt.Errorf("leave share group %s: %w", s.opts.Group, err))
	}
	return s.given.told()
}

// shareError sorts an error of a poll; nil is one that passes by itself.
func shareError(topic string, partition int32, err error, o *SourceOptions) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed), rejoins(err),
		errors.Is(err, kerr.ShareSessionNotFound), errors.Is(err, kerr.InvalidShareSessionEpoch):
		return nil
	case topic == "":
		return explainSource(err, o)
	}
	return fmt.Errorf("fetch %s: %w", partitionName(topic, partition), explainSource(err, o))
}
