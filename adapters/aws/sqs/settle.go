package sqs

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// op is one entry of a call to the service.
type op struct {
	e       *entry
	i       int // of the settlement
	outcome ackwise.Outcome
	seconds int32 // the new visibility timeout
	sent    time.Time
	err     error
	doubt   bool // an earlier call may have carried it out
}

func (o *op) deletes() bool {
	return o.outcome == ackwise.OutcomeAck || o.outcome == ackwise.OutcomeDrop
}

// Settle carries out settlements in their order, as far as there is one: those of different
// messages of a standard queue, or of different groups of a FIFO queue, share calls.
func (s *source) Settle(ctx context.Context, list []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(list))
	for from := 0; from < len(list); {
		ops, tails, next := s.plan(list, from, results)
		// Nobody gets what is behind in a run while the first one is here: see book.
		s.carryOut(ctx, tails)
		s.carryOut(ctx, ops)
		s.conclude(ops, tails, results)
		from = next
	}
	return results
}

// plan answers the settlements that need no call, and gathers those that do until one comes that
// has to wait for one before it.
func (s *source) plan(list []ackwise.Settlement, from int, results []ackwise.SettleResult) (
	ops, tails []*op, next int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	serials, groups := map[uint64]bool{}, map[string]bool{}
	for next = from; next < len(list); next++ {
		set := &list[next]
		serial, _ := s.book.read(set.Token)
		held := s.book.held[serial]
		if serials[serial] || held != nil && s.book.fifo && groups[held.group] {
			break
		}
		if s.closed {
			results[next].Err = ackwise.ErrLeaseLost
			continue
		}
		e, answer := s.book.judge(set, now)
		results[next] = answer
		if e == nil {
			continue
		}
		serials[serial] = true
		groups[e.group] = groups[e.group] || set.Outcome != ackwise.OutcomeExtend
		o := &op{e: e, i: next, outcome: set.Outcome, doubt: e.asked && e.outcome == set.Outcome}
		if o.seconds, results[next].Err = s.timeout(e, set, now); results[next].Err != nil {
			continue
		}
		e.busy++
		ops = append(ops, o)
		if s.book.fifo && !o.deletes() && o.outcome != ackwise.OutcomeExtend {
			for _, b := range s.book.behind(e) {
				b.busy++
				tails = append(tails, &op{e: b, outcome: ackwise.OutcomeRelease})
			}
		}
	}
	return ops, tails, next
}

// timeout is the visibility timeout that a settlement asks for. The service allows 12 hours from
// the receipt on.
func (s *source) timeout(e *entry, set *ackwise.Settlement, now time.Time) (int32, error) {
	left := maxLease - now.Sub(e.since) - time.Second
	switch set.Outcome {
	case ackwise.OutcomeExtend:
		want := set.Delay
		if want <= 0 {
			want = s.lease
		}
		if left < time.Second {
			return 0, &ackwise.InvalidError{Field: "lease", Reason: fmt.Sprintf("the message is held "+
				"since %s, and SQS lets nobody hold one for longer than %s",
				e.since.UTC().Format(time.RFC3339), maxLease)}
		}
		return seconds(min(want, left.Truncate(time.Second))), nil
	case ackwise.OutcomeNack, ackwise.OutcomeSnooze:
		return seconds(min(set.Delay, max(0, left.Truncate(time.Second)))), nil
	case ackwise.OutcomeAck, ackwise.OutcomeRelease, ackwise.OutcomeDrop, ackwise.OutcomeDead:
	}
	return 0, nil
}

// conclude writes down what became of the calls.
func (s *source) conclude(ops, tails []*op, results []ackwise.SettleResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range tails {
		// Given back or not: what is before it goes back, and so it is nobody's here any more.
		s.book.end(o.e, ackwise.OutcomeRelease, true)
		if o.err != nil {
			s.book.doubt(o.e)
		}
		o.e.delivery.MarkRevoked()
	}
	for _, o := range ops {
		o.e.busy--
		results[o.i] = s.answer(o)
	}
	s.wake() // there may be room again
}

// answer writes down what became of a call, and is the result of its settlement. A heartbeat may
// have been under way beside a settlement, or after one whose answer was lost: that the service
// knows its receipt no more is then no news of the settlement. mu is held.
func (s *source) answer(o *op) (r ackwise.SettleResult) {
	over := s.book.held[o.e.serial] != o.e // closed meanwhile, or seen to be lost
	extend := o.outcome == ackwise.OutcomeExtend
	switch {
	case o.err == nil && !extend:
		s.book.end(o.e, o.outcome, false)
	case over:
		r.Err = ackwise.ErrLeaseLost
	case o.err == nil:
		s.extended(o)
		r.Deadline = o.e.deadline
	case o.doubt && !extend && done(o):
		s.book.end(o.e, o.outcome, false)
		s.book.doubt(o.e)
		r.Already = true
	case fateOf(o.err) == lost:
		if !extend || o.e.busy == 0 && !o.e.asked {
			s.book.loseRun(o.e)
		}
		r.Err = fmt.Errorf("%w: %w", ackwise.ErrLeaseLost, o.err)
	default:
		if !extend {
			o.e.asked, o.e.outcome = fateOf(o.err) == again, o.outcome
		}
		r.Err = s.q.explain(actionOf(o), o.err)
	}
	return r
}

// done reports whether the refusal of a repeated call says that an earlier one was carried out, or
// that nothing is left to do. What is not in flight any more was given back, in one way or the
// other. A receipt that was good before and is not known now is that of a deleted message for
// ElasticMQ; AWS takes the deletion of a deleted message for a success. One that has expired is
// neither.
func done(o *op) bool {
	if o.deletes() {
		code, _ := codeOf(o.err)
		return code == "ReceiptHandleIsInvalid"
	}
	return fateOf(o.err) == lost
}

func actionOf(o *op) string {
	if o.deletes() {
		return "DeleteMessage"
	}
	return "ChangeMessageVisibility"
}

// extended notes a lease's new end. mu is held.
func (s *source) extended(o *op) {
	o.e.deadline = o.sent.Add(time.Duration(o.seconds) * time.Second)
}

// settleCalls bounds the calls of one Settle at a time, and how often each is tried.
const (
	settleCalls = 4
	settleTries = 3
	settlePause = 50 * time.Millisecond
)

// carryOut makes the calls for some entries, of which the order does not matter.
func (s *source) carryOut(ctx context.Context, ops []*op) []*op {
	var deletes, changes []*op
	for _, o := range ops {
		if o.deletes() {
			deletes = append(deletes, o)
		} else {
			changes = append(changes, o)
		}
	}
	var chunks [][]*op
	for _, list := range [][]*op{deletes, changes} {
		for len(list) > 0 {
			n := min(maxCall, len(list))
			chunks = append(chunks, list[:n])
			list = list[n:]
		}
	}
	together(len(chunks), settleCalls, func(i int) { s.persist(ctx, chunks[i]) })
	return ops
}

// together calls f for 0 to n-1, at most some at once, and waits.
func together(n, atOnce int, f func(i int)) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards next; held for an instruction
	next := 0
	for range min(n, atOnce) {
		wg.Go(func() { // ends when no number is left
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= n {
					return
				}
				f(i)
			}
		})
	}
	wg.Wait()
}

// persist makes one call, and repeats it for the entries for which that is safe and may help.
func (s *source) persist(ctx context.Context, ops []*op) {
	for try := 1; ; try++ {
		s.call(ctx, ops)
		var rest []*op
		for _, o := range ops {
			if o.err != nil && fateOf(o.err) == again {
				o.doubt = true
				rest = append(rest, o)
			}
		}
		if ops = rest; len(ops) == 0 || try == settleTries || !pause.For(ctx, settlePause<<try) {
			return
		}
	}
}

// call makes one call for entries of one kind.
func (s *source) call(ctx context.Context, ops []*op) {
	now := time.Now()
	for _, o := range ops {
		o.sent, o.err = now, errNoResult
	}
	var failed []types.BatchResultErrorEntry
	var done []string
	var err error
	if ops[0].deletes() {
		in := &sqs.DeleteMessageBatchInput{QueueUrl: &s.q.url}
		for i, o := range ops {
			in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &o.e.receipt})
		}
		var out *sqs.DeleteMessageBatchOutput
		if out, err = s.q.api.DeleteMessageBatch(ctx, in); err == nil {
			failed = out.Failed
			for _, e := range out.Successful {
				done = append(done, aws.ToString(e.Id))
			}
		}
	} else {
		in := &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &s.q.url}
		for i, o := range ops {
			in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{
				Id: aws.String(strconv.Itoa(i)), ReceiptHandle: &o.e.receipt,
				VisibilityTimeout: o.seconds})
		}
		var out *sqs.ChangeMessageVisibilityBatchOutput
		if out, err = s.q.api.ChangeMessageVisibilityBatch(ctx, in); err == nil {
			failed = out.Failed
			for _, e := range out.Successful {
				done = append(done, aws.ToString(e.Id))
			}
		}
	}
	if err != nil {
		for _, o := range ops {
			o.err = err
		}
		return
	}
	assign(ops, done, failed)
}

// assign gives each entry its part of an answer.
func assign(ops []*op, done []string, failed []types.BatchResultErrorEntry) {
	at := func(id string) *op {
		if i, err := strconv.Atoi(id); err == nil && i >= 0 && i < len(ops) {
			return ops[i]
		}
		return &op{} // an entry that was not asked about
	}
	for _, id := range done {
		at(id).err = nil
	}
	for i := range failed {
		at(aws.ToString(failed[i].Id)).err = entryError(&failed[i])
	}
}
