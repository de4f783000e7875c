package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// fake is a queue in memory: ordered by key, with leases, counts and causes. It does one thing
// wrong.
type fake struct {
	wrong string // "" = nothing

	mu      sync.Mutex // guards all below, and the sessions
	items   []*item
	byID    map[string]*item
	tokens  int
	changed chan struct{}
	down    bool // killed, frozen or cut off
	cut     int  // so many answers are lost
	fired   int
}

type item struct {
	m        ackwise.Message
	holder   *session // nil = nobody
	token    ackwise.LeaseToken
	deadline time.Time
	due      time.Time
	cause    ackwise.Cause
	counts   ackwise.Counts
	gone     bool
	suspect  bool // it is handed out alone
	last     ackwise.Outcome
}

type session struct {
	f      *fake
	closed bool
}

const fakeLease = 2 * time.Second

func newFake(wrong string) *fake {
	return &fake{wrong: wrong, byID: map[string]*item{}, changed: make(chan struct{})}
}

var errAway = errors.New("the fake does not answer")

func (f *fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// reached waits until the fake is there.
func (f *fake) reached(ctx context.Context) error {
	for f.down {
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.NewTimer(50 * time.Millisecond).C:
			ctx = canceled()
		}
		f.mu.Lock()
		if ctx.Err() != nil {
			return errAway
		}
	}
	return nil
}

// answers reports whether the fake is there, and whether this answer arrives. An answer to a
// Receive always does: a check cuts those of the calls that it makes.
func (f *fake) answers(ctx context.Context) (arrives bool, err error) {
	if err := f.reached(ctx); err != nil {
		return false, err
	}
	if f.cut > 0 {
		f.cut--
		f.fired++
		return false, nil
	}
	return true, nil
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Publish accepts messages; a repeated ID is a duplicate.
func (f *fake) Publish(ctx context.Context, ms []ackwise.Message) []ackwise.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]ackwise.Result, len(ms))
	late := ctx.Err() != nil
	arrives, err := f.answers(ctx)
	for i, m := range ms {
		results[i].ID = m.ID
		switch {
		case err != nil:
			results[i].Class, results[i].Err = ackwise.ResultRetryable, err
			continue
		case late && f.wrong != "accepts what it says it did not":
			results[i].Class, results[i].Err = ackwise.ResultNotAttempted, ctx.Err()
			continue
		}
		results[i] = f.take(m)
		if late {
			results[i].Class, results[i].Err = ackwise.ResultNotAttempted, ctx.Err()
		}
		if !arrives {
			results[i].Class, results[i].Err = ackwise.ResultUnknown, errAway
			if f.wrong == "says that a cut call was not taken, and gives it another ID" {
				delete(f.byID, m.ID)
				f.items[len(f.items)-1].m.ID += "-new"
			}
		}
	}
	f.wake()
	return results
}

func (f *fake) take(m ackwise.Message) ackwise.Result {
	res := ackwise.Result{ID: m.ID, Class: ackwise.ResultAccepted}
	if _, again := f.byID[m.ID]; again && f.wrong != "takes a repeated ID twice" {
		res.Duplicate = true
		return res
	}
	if len(m.Body) > f.Features().MaxBodyBytes {
		return ackwise.Result{ID: m.ID, Class: ackwise.ResultRejected, Err: ackwise.ErrTooLarge}
	}
	switch {
	case f.wrong == "loses one" && len(f.items) == 17:
		f.byID[m.ID] = &item{gone: true}
		return res
	case f.wrong == "forgets times":
		m.Time = time.Time{}
	case f.wrong == "makes nil bodies empty" && m.Body == nil:
		m.Body = []byte{}
	case f.wrong == "sorts headers":
		m.Headers = slices.Clone(m.Headers)
		slices.SortStableFunc(m.Headers, func(a, b ackwise.Header) int {
			return slices.Compare([]byte(a.Name), []byte(b.Name))
		})
	}
	it := &item{m: m, cause: ackwise.CauseFirst}
	f.byID[m.ID] = it
	f.items = append(f.items, it)
	if f.wrong == "stores backwards" {
		f.items = slices.Insert(f.items[:len(f.items)-1], 0, it)
	}
	return res
}

// read returns what was taken.
func (f *fake) read(context.Context) ([]ackwise.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ms []ackwise.Message
	for _, it := range f.items {
		if !it.gone || it.holder != nil {
			ms = append(ms, it.m)
		}
	}
	return ms, nil
}

type fakeSink struct{ *fake }

// Close does nothing.
func (fakeSink) Close() error { return nil }

// Features says what the sink can.
func (f *fake) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{KeyRunSafe: true, Dedup: true, MaxBodyBytes: 1 << 20}
}

// Features says what the source can.
func (s *session) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, Lease: fakeLease, Extend: true,
		MaxNackDelay: time.Hour, Dead: true, Counts: true, Causes: true}
}

// Receive hands out.
func (s *session) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wrong == "gives more than was asked for" {
		most++
	}
	for {
		if s.closed {
			return nil, ackwise.ErrClosed
		}
		if err := f.reached(ctx); err != nil {
			return nil, err
		}
		if ds := f.handOut(s, most); len(ds) > 0 {
			return ds, nil
		}
		changed := f.changed
		f.mu.Unlock()
		timer := time.NewTimer(5 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		f.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (f *fake) handOut(s *session, most int) []*ackwise.Delivery {
	now := time.Now()
	busy := map[string]bool{}
	if f.suspects() {
		most = 1
		if slices.ContainsFunc(f.items, func(it *item) bool { return it.holder == s }) {
			return nil
		}
	}
	var ds []*ackwise.Delivery
	for _, it := range f.items {
		if it.holder != nil && now.After(it.deadline) {
			it.holder, it.cause = nil, ackwise.CauseLeaseExpired
			it.counts.Crashes++
		}
		two := f.wrong == "hands out what another member holds" && it.holder != nil && it.holder != s
		waits := most == 1 && !it.suspect && f.suspects()
		free := !it.gone && !waits && (it.holder == nil || two) && !now.Before(it.due) && !busy[it.m.Key]
		if free && len(ds) < most {
			ds = append(ds, f.give(it, s, now))
		}
		if !it.gone && it.m.Key != "" && f.wrong != "breaks key order" && !two {
			busy[it.m.Key] = true
		}
	}
	return ds
}

func (f *fake) suspects() bool {
	return slices.ContainsFunc(f.items, func(it *item) bool { return it.suspect && !it.gone })
}

func (f *fake) give(it *item, s *session, now time.Time) *ackwise.Delivery {
	f.tokens++
	it.token = ackwise.LeaseToken(fmt.Sprint("token-", f.tokens))
	it.holder, it.deadline = s, now.Add(fakeLease)
	it.counts.HandOuts++
	cause := it.cause
	switch {
	case f.wrong == "always says first":
		cause = ackwise.CauseFirst
	case f.wrong == "invents hand-outs that were lost" && f.fired > 0 && it.counts.HandOuts == 1:
		cause = ackwise.CauseConsumerLost
	}
	return &ackwise.Delivery{Message: it.m, Attempt: it.counts.HandOuts, Counts: it.counts,
		Cause: cause, Suspect: it.suspect, Token: it.token, Deadline: it.deadline}
}

// Settle settles.
func (s *session) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]ackwise.SettleResult, len(ss))
	arrives, err := f.answers(ctx)
	for i := range ss {
		if err == nil {
			results[i] = f.settle(s, &ss[i])
		}
		if err != nil || !arrives {
			results[i].Err = errAway
		}
	}
	if f.wrong == "forgets a batch with one bad token" && slices.ContainsFunc(results,
		func(r ackwise.SettleResult) bool { return errors.Is(r.Err, ackwise.ErrBadToken) }) {
		for i := range results {
			results[i].Err = ackwise.ErrBadToken
		}
	}
	f.wake()
	return results
}

func (f *fake) settle(s *session, st *ackwise.Settlement) ackwise.SettleResult {
	i := slices.IndexFunc(f.items, func(it *item) bool { return it.token == st.Token })
	if i < 0 {
		return ackwise.SettleResult{Err: ackwise.ErrBadToken}
	}
	it := f.items[i]
	if it.holder != s {
		if it.gone && it.last == st.Outcome {
			return ackwise.SettleResult{Already: true}
		}
		return ackwise.SettleResult{Err: ackwise.ErrLeaseLost}
	}
	now := time.Now()
	switch st.Outcome {
	case ackwise.OutcomeExtend:
		if f.wrong != "extends nothing" {
			it.deadline = now.Add(fakeLease)
		}
		return ackwise.SettleResult{Deadline: now.Add(fakeLease)}
	case ackwise.OutcomeNack:
		it.cause = ackwise.CauseFailed
		it.counts.Failures++
	case ackwise.OutcomeSnooze:
		it.cause = ackwise.CauseSnoozed
		if f.wrong == "charges snoozes" {
			it.counts.Failures++
		}
	case ackwise.OutcomeRelease:
		it.cause = ackwise.CauseReleased
		if f.wrong == "charges releases" {
			it.counts.Failures++
		}
	case ackwise.OutcomeAck, ackwise.OutcomeDead, ackwise.OutcomeDrop:
		it.gone = f.wrong != "forgets acks at a crash" || st.Outcome != ackwise.OutcomeAck
		it.due = now.Add(time.Hour)
	}
	it.holder, it.last, it.suspect = nil, st.Outcome, false
	if st.Delay > 0 && f.wrong != "does not delay" {
		it.due = now.Add(st.Delay)
	}
	return ackwise.SettleResult{}
}

// Close gives back what the session holds.
func (s *session) Close() error {
	s.end(ackwise.CauseRebalanced, s.f.wrong == "charges a clean stop")
	return nil
}

func (s *session) kill() {
	s.end(ackwise.CauseConsumerLost, s.f.wrong != "counts no crashes")
}

func (s *session) end(cause ackwise.Cause, charge bool) {
	f := s.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	crash := cause == ackwise.CauseConsumerLost
	held := 0
	for _, it := range f.items {
		if it.holder == s {
			held++
		}
		if f.wrong == "forgets acks at a crash" && crash && it.last == ackwise.OutcomeAck &&
			it.holder == nil {
			it.due, it.cause = time.Time{}, ackwise.CauseFirst
		}
	}
	for _, it := range f.items {
		if it.holder != s {
			continue
		}
		it.holder, it.cause = nil, cause
		it.gone = f.wrong == "loses at a crash" && crash || f.wrong == "keeps at a stop" && !crash
		it.suspect = crash && held > 1
		if charge && !it.suspect {
			it.counts.Crashes++
		}
	}
	f.wake()
}

// Kill, Restart, Freeze and Thaw make the fake a server.
func (f *fake) Kill(testing.TB) { f.leave() }

// Restart lets it answer again.
func (f *fake) Restart(testing.TB) { f.back(f.wrong == "loses at a restart") }

// Freeze lets it answer nothing.
func (f *fake) Freeze(testing.TB) { f.leave() }

// Thaw lets it answer again.
func (f *fake) Thaw(testing.TB) { f.back(f.wrong == "loses when frozen") }

// CutReplies lets the next n answers be lost.
func (f *fake) CutReplies(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = n
	if f.wrong == "is never cut" {
		f.cut = 0
	}
}

// CutAll lets it answer nothing.
func (f *fake) CutAll() { f.leave() }

// Heal lets it answer again.
func (f *fake) Heal() { f.back(f.wrong == "loses when cut off") }

// Fired is how often an answer was lost, or all were.
func (f *fake) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

func (f *fake) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
	f.fired++
}

func (f *fake) back(loses bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
	for _, it := range f.items {
		switch acked := it.gone && it.last == ackwise.OutcomeAck; {
		case loses && !it.gone:
			it.gone, it.holder = true, nil
		case f.wrong == "takes acks back when cut off" && acked:
			it.gone, it.due, it.cause = false, time.Time{}, ackwise.CauseAckLost
		case f.wrong == "says restarted when cut off" && it.holder != nil:
			it.holder, it.cause = nil, ackwise.CauseRestarted
		case f.wrong == "counts anew after a restart" && it.holder != nil:
			it.holder, it.cause, it.counts = nil, ackwise.CauseRestarted, ackwise.Counts{}
		}
	}
	f.wake()
}
