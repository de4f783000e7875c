package demo

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
)

// lateBy is how long after its lease's end a withheld ack is sent: more than a lease, for the
// message is a suspect then, and a session that is to run it alone may first have to wait for
// another lease to run out. Where it was not handed out again even so, the late ack is still taken.
const lateBy = 600 * time.Millisecond

// source is a consumer's session whose network loses acks: it answers the loop as if all went well,
// lets the lease run out and sends the ack too late.
type source struct {
	*client.Receiver
	trace     *trace
	lease     time.Duration
	withholds map[string]bool // IDs
	wg        sync.WaitGroup  // late acks under way; grows under mu, before ended is set
	hurry     chan struct{}   // closed: late acks go out at once
	drop      chan struct{}   // closed: they do not go out any more

	mu    sync.Mutex // guards the fields below
	ended bool       // no more acks are withheld
	held  map[ackwise.LeaseToken]*ackwise.Delivery
	ofKey map[string]int // how many are held of a key
}

func newSource(r *client.Receiver, t *trace, lease time.Duration, withholds []string) *source {
	s := &source{Receiver: r, trace: t, lease: lease, withholds: map[string]bool{},
		hurry: make(chan struct{}), drop: make(chan struct{}), held: map[ackwise.LeaseToken]*ackwise.Delivery{},
		ofKey: map[string]int{}}
	for _, id := range withholds {
		s.withholds[id] = true
	}
	return s
}

// Receive implements ackwise.Source.
func (s *source) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	ds, err := s.Receiver.Receive(ctx, max)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.held[d.Token] = d
		s.ofKey[d.Key]++
	}
	return ds, err
}

// Settle implements ackwise.Source.
func (s *source) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(ss))
	var sent []ackwise.Settlement
	var at []int // where the results of sent belong
	for i := range ss {
		if !s.withhold(ctx, ss[i]) {
			sent, at = append(sent, ss[i]), append(at, i)
		}
	}
	if len(sent) == 0 {
		return results
	}
	for i, r := range s.Receiver.Settle(ctx, sent) {
		results[at[i]] = r
		if d := s.forget(sent[i], r); d != nil {
			_ = s.trace.write(markLate, d.ID, lateByItself) // see late
		}
	}
	return results
}

// withhold reports whether an ack is kept back to come too late. It takes only a first hand-out
// with no other message of its key here: a lost ack is then one lost ack.
func (s *source) withhold(ctx context.Context, st ackwise.Settlement) bool {
	if st.Outcome != ackwise.OutcomeAck {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.held[st.Token]
	if s.ended || d == nil || d.Attempt != 1 || !s.withholds[d.ID] || s.ofKey[d.Key] != 1 {
		return false
	}
	delete(s.held, st.Token)
	s.ofKey[d.Key]--
	s.wg.Go(func() { s.late(context.WithoutCancel(ctx), d) }) // ends with end
	return true
}

// forget takes note of a settlement that ended a hand-out. It returns the delivery whose ack was
// refused although it was not withheld: the machine was so busy that its lease ran out.
func (s *source) forget(st ackwise.Settlement, r ackwise.SettleResult) *ackwise.Delivery {
	lost := errors.Is(r.Err, ackwise.ErrLeaseLost)
	if r.Err != nil && !lost || r.Err == nil && st.Outcome == ackwise.OutcomeExtend {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.held[st.Token]
	if d == nil {
		return nil
	}
	if lost && st.Outcome == ackwise.OutcomeExtend {
		return nil // its ack may still come
	}
	delete(s.held, st.Token)
	s.ofKey[d.Key]--
	if lost && st.Outcome == ackwise.OutcomeAck {
		return d
	}
	return nil
}

// late sends a withheld ack too late and writes what came of it.
func (s *source) late(ctx context.Context, d *ackwise.Delivery) {
	if s.trace.write(markWithheld, d.ID, "-") != nil {
		return // the disk is full: the handlers' marks fail too, and are reported
	}
	timer := time.NewTimer(s.lease + lateBy)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.hurry:
	case <-s.drop:
		return
	}
	if s.trace.write(markSending, d.ID, "-") != nil {
		return // as above
	}
	r := s.Receiver.Settle(ctx, []ackwise.Settlement{{Token: d.Token}})[0]
	answer := lateUnknown
	switch {
	case errors.Is(r.Err, ackwise.ErrLeaseLost):
		answer = lateRefused
	case r.Err == nil:
		answer = lateTaken
	}
	_ = s.trace.write(markLate, d.ID, answer) // as above
}

// flush sends the withheld acks that are left; end forgets them.
func (s *source) flush() { s.end(s.hurry) }

func (s *source) end(how chan struct{}) {
	s.mu.Lock()
	first := !s.ended
	s.ended = true
	s.mu.Unlock()
	if first {
		close(how)
	}
	s.wg.Wait()
}
