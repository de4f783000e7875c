package dynamostreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/pause"
)

// Parts of a lease: how often its owner speaks, and how often a member looks at all leases.
const (
	beatsPerLease = 5
	looksPerLease = 5
)

// keep lists shards, looks at the leases, and takes and gives them, until ctx ends.
func (l *stream) keep(ctx context.Context) {
	var listedAt, failing time.Time
	for {
		err := l.look(ctx, &listedAt)
		if err == nil {
			failing = time.Time{}
			l.fine("look")
		} else if ctx.Err() == nil {
			if failing.IsZero() {
				failing = time.Now()
			}
			l.trouble("look", err, failing)
		}
		t := time.NewTimer(l.o.Lease / looksPerLease)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-l.kick:
		}
		t.Stop()
	}
}

// look does one round of the keeper's work.
func (l *stream) look(ctx context.Context, listedAt *time.Time) error {
	if err := l.writeHandOvers(ctx); err != nil {
		return err
	}
	if l.relisting() || time.Since(*listedAt) >= l.o.List {
		asked := time.Now()
		shards, status, err := l.list(ctx)
		if err != nil {
			l.listAgain()
			return err
		}
		*listedAt = time.Now()
		l.mu.Lock()
		l.shards, l.asked = shards, asked
		l.mu.Unlock()
		if status == types.StreamStatusDisabled {
			defer l.disabled(ctx)
		}
	}
	all, _, err := l.rows.load(ctx)
	if err != nil {
		return l.explain(err, "dynamodb:Query", "the table "+l.o.Leases)
	}
	v := view{rows: all, shards: l.listing(), listed: *listedAt, held: l.having()}
	now := time.Now()
	for _, id := range l.losses() {
		l.planner.shun[id] = now.Add(2 * l.o.Lease / looksPerLease)
	}
	return l.carryOut(ctx, l.planner.plan(v, now))
}

// carryOut does what a plan says. What is refused is done by somebody else.
func (l *stream) carryOut(ctx context.Context, p plan) error {
	var errs []error
	if p.relist {
		l.listAgain() // at the next look
	}
	l.fineGaps(p.gaps)
	for _, r := range p.gaps {
		loss := &TrimmedError{Table: l.o.Table, Shard: r.parent, Gone: true, Unseen: true}
		if l.o.OnTrimmed != TrimmedSkip {
			l.report("gap "+r.shard, loss.hinted())
			continue
		}
		l.tell("trimmed", r.parent, loss)
		p.register = append(p.register, r)
	}
	for _, r := range p.register {
		errs = append(errs, l.rows.register(ctx, r))
	}
	if len(p.register) > 0 {
		l.kickKeeper() // they can be taken now
	}
	for _, r := range p.acquire {
		errs = append(errs, l.acquire(ctx, r))
	}
	for _, r := range p.ask {
		errs = append(errs, passed(l.rows.ask(ctx, r, l.me)))
	}
	for _, r := range p.remove {
		errs = append(errs, l.rows.remove(ctx, r.shard))
	}
	if p.over > 0 {
		l.tell("shards-full", "", fmt.Errorf("%d shards have no reader: this member has its most, %d",
			p.over, l.o.MaxShards))
	}
	return l.explain(errors.Join(errs...), "dynamodb:UpdateItem", "the table "+l.o.Leases)
}

// passed drops a refusal: somebody else was faster.
func passed(err error) error {
	if _, refused := errors.AsType[*refusal](err); refused {
		return nil
	}
	return err
}

// acquire takes a lease and begins to read its shard.
func (l *stream) acquire(ctx context.Context, seen row) error {
	sent := time.Now()
	got, err := l.rows.acquire(ctx, seen, l.me, l.o.Lease)
	if err != nil {
		return passed(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &held{row: got, cancel: cancel, spoke: sent, given: got.position, settled: got.position}
	h.row.lease = l.o.Lease
	l.mu.Lock()
	l.held[got.shard] = h
	l.order = append(l.order, h)
	end := l.shards[got.shard].last
	l.changes = append(l.changes, logsource.Change{Kind: logsource.Assigned,
		Partition: got.shard, Position: got.position, Note: got.note, End: end})
	l.wake()
	l.mu.Unlock()
	l.wg.Go(func() { l.newReader(h).run(ctx) }) // until the lease goes, or the shard ends
	return nil
}

// writeHandOvers gives away what was released. What cannot be written stays to be written.
func (l *stream) writeHandOvers(ctx context.Context) error {
	l.mu.Lock()
	todo := slices.Clone(l.handOver)
	l.mu.Unlock()
	errs := make([]error, len(todo))
	each(len(todo), func(i int) { errs[i] = l.rows.giveUp(ctx, todo[i], l.me) })
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, h := range todo {
		if errs[i] == nil {
			l.handOver = slices.DeleteFunc(l.handOver, func(o handOver) bool { return o == h })
		}
	}
	return l.explain(errors.Join(errs...), "dynamodb:UpdateItem", "the table "+l.o.Leases)
}

// list returns all shards of the stream, and its state.
func (l *stream) list(ctx context.Context) (map[string]shard, types.StreamStatus, error) {
	all := map[string]shard{}
	var after *string
	for {
		c, cancel := context.WithTimeout(ctx, l.rows.timeout)
		out, err := l.streams.DescribeStream(c, &dynamodbstreams.DescribeStreamInput{
			StreamArn: &l.arn, ExclusiveStartShardId: after})
		cancel()
		if err == nil && out.StreamDescription == nil {
			err = awsconn.ErrEmpty
		}
		if err != nil {
			return nil, "", l.explain(err, "dynamodb:DescribeStream", "the stream "+l.arn)
		}
		d := out.StreamDescription
		for i := range d.Shards {
			s, err := readShard(&d.Shards[i])
			if err != nil {
				return nil, "", err
			}
			all[s.id] = s
		}
		if after = d.LastEvaluatedShardId; after == nil {
			return all, d.StreamStatus, nil
		}
	}
}

func readShard(in *types.Shard) (s shard, err error) {
	s = shard{id: aws.ToString(in.ShardId), parent: aws.ToString(in.ParentShardId)}
	if r := in.SequenceNumberRange; r != nil {
		if first := aws.ToString(r.StartingSequenceNumber); first != "" {
			s.first, err = positionOf(first)
		}
		if last := aws.ToString(r.EndingSequenceNumber); last != "" && err == nil {
			s.last, err = positionOf(last)
		}
	}
	if err != nil {
		return s, fmt.Errorf("read shard %s: %w", s.id, err)
	}
	return s, nil
}

// disabled ends the source once a disabled stream was read to its end by all.
func (l *stream) disabled(ctx context.Context) {
	all, _, err := l.rows.load(ctx)
	shards := l.listing()
	over := err == nil
	for id := range shards {
		over = over && all[id].done
	}
	for _, r := range all { // one that is not listed any more is a loss that is still to be told
		over = over && r.done
	}
	if over {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.final = &endedError{table: l.o.Table, arn: l.arn}
		l.wake()
	}
}

// beat says for each lease, again and again, that its owner lives, until ctx ends.
func (l *stream) beat(ctx context.Context) {
	for pause.For(ctx, l.o.Lease/beatsPerLease) {
		hs := l.current(time.Now())
		each(len(hs), func(i int) { l.beatOne(ctx, hs[i]) })
	}
}

// watch drops the leases of which nothing could be said for too long, until ctx ends: others may
// have them. It makes no calls, so that none can keep it.
func (l *stream) watch(ctx context.Context) {
	for pause.For(ctx, l.o.Lease/beatsPerLease/2) {
		l.current(time.Now())
	}
}

// current drops the leases that have run out and returns the others.
func (l *stream) current(now time.Time) []*held {
	l.mu.Lock()
	defer l.mu.Unlock()
	hs := slices.Clone(l.order)
	for _, h := range hs {
		if now.Sub(h.spoke) >= h.row.lease && !h.finished {
			l.lose(h)
		}
	}
	return slices.Clone(l.order)
}

func (l *stream) beatOne(ctx context.Context, h *held) {
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, l.o.Lease/2)
	defer cancel()
	there, err := l.rows.beat(ctx, h.row.shard, l.me, h.row.fence)
	var no *refusal
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case errors.As(err, &no):
		l.lose(h)
	case err != nil:
		return // the next one may be taken; watch looks how long
	default:
		h.spoke = sent
		if there.wanted != "" && !h.leaving {
			h.heir = there.wanted
			l.revoke(h)
		}
	}
}

// alarm tells of shards whose oldest unsettled change has become old, until ctx ends.
func (l *stream) alarm(ctx context.Context) {
	for pause.For(ctx, min(problemEvery, l.o.MaxAge)) {
		for _, a := range l.old(time.Now()) {
			l.tell("age", a.Shard, a)
		}
	}
}

func (l *stream) old(now time.Time) []*AgeError {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*AgeError
	for _, h := range l.order {
		if made := h.oldest(); !made.IsZero() && now.Sub(made) >= l.o.MaxAge {
			out = append(out, &AgeError{Table: l.o.Table, Shard: h.row.shard,
				Age: now.Sub(made), Most: l.o.MaxAge})
		}
	}
	return out
}

// oldest returns when the oldest change was made that was read and is not settled; zero = none, or
// not known.
func (h *held) oldest() time.Time {
	switch {
	case len(h.ages) > 0:
		return h.ages[0].made
	case len(h.buffer) > 0:
		return h.buffer[0].Message.Time
	}
	return time.Time{}
}

// oldest is that of all shards that this member has; now where it has read all there is of them.
func (l *stream) oldest(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, unread := now, len(l.order) == 0
	for _, h := range l.order {
		made := h.oldest()
		unread = unread || made.IsZero() && !h.idle && !h.ended
		if !made.IsZero() && made.Before(first) {
			first = made
		}
	}
	if unread && first.Equal(now) {
		return time.Time{}
	}
	return first
}

// explain says what a call was about.
func (l *stream) explain(err error, action, resource string) error {
	return awsconn.Explain(err, awsconn.Asked{Action: action, Resource: resource,
		Region: l.o.Region, Endpoint: l.o.Endpoint})
}

// trouble reports an error that lasts. One that passes within a lease is not told; one that needs a
// person is told at once.
func (l *stream) trouble(key string, err error, since time.Time) {
	switch awsconn.KindOf(err) {
	case awsconn.Throttled, awsconn.ServerFault, awsconn.Unreached, awsconn.Interrupted:
		if time.Since(since) < l.o.Lease {
			return
		}
	case awsconn.Denied, awsconn.Credentials, awsconn.Untrusted, awsconn.Other:
	}
	l.report(key, err)
}

// report lets Poll tell an error, now and then, until fine is called.
func (l *stream) report(key string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.problems[key]
	if p == nil {
		p = &problem{}
		l.problems[key] = p
	}
	p.err = err
	if time.Since(p.told) >= problemEvery {
		l.wake()
	}
}

// fine ends a problem.
func (l *stream) fine(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.problems, key)
}

// fineGaps ends the problems of gaps that are none any more.
func (l *stream) fineGaps(left []row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.problems, func(key string, _ *problem) bool {
		shard, gap := strings.CutPrefix(key, "gap ")
		return gap && !slices.ContainsFunc(left, func(r row) bool { return r.shard == shard })
	})
}

func (l *stream) listing() map[string]shard {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shards
}

func (l *stream) listed(id string) shard {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shards[id]
}

// missed asks for a fresh list because a shard was not found, and reports whether there is one that
// was asked for since then, and whether the shard is missing there too. An older one may be older
// than the shard.
func (l *stream) missed(id string, since time.Time) (told, gone bool) {
	l.listAgain()
	l.kickKeeper()
	l.mu.Lock()
	defer l.mu.Unlock()
	_, listed := l.shards[id]
	return l.asked.After(since), !listed
}

func (l *stream) listAgain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.relist = true
}

// relisting reports whether somebody has asked for a fresh list.
func (l *stream) relisting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.relist
	l.relist = false
	return asked
}

// having returns the shards whose leases are this member's, or on their way from it.
func (l *stream) having() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]bool{}
	for id := range l.held {
		out[id] = true
	}
	for _, h := range l.handOver {
		out[h.shard] = true
	}
	return out
}

// losses returns the shards that were lost since it was called last.
func (l *stream) losses() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.lost
	l.lost = nil
	return out
}
