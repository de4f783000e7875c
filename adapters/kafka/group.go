package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/texts"
)

// group is a member of a consumer group as a logsource.Log. The client calls it back when
// partitions come and go; it puts that into the stream that Poll returns.
//
// Records and changes must not pass each other: what was polled for a partition's earlier
// assignment must not come behind a later one. So a partition is admitted only while no poll is
// under way (the gate), and what is polled of a partition that is not held is let go.
type group struct {
	opts   *SourceOptions
	cl     *kgo.Client
	adm    *kadm.Client
	cancel context.CancelFunc // ends the client's requests
	gate   chan struct{}      // full while a poll or an admission is under way
	closed chan struct{}      // closed by Close
	ready  chan struct{}      // closed once cl and adm are set: the client calls back before
	joined atomic.Bool        // with Options.Consumer: the client fell back to the classic protocol

	seenMu sync.Mutex // guards the order of calls of watch
	watch  func(ackwise.Event)

	pauseMu sync.Mutex // guards what the client is told of pauses; taken before mu

	mu     sync.Mutex // guards all below; never held during I/O
	parts  map[string]*part
	noted  map[string]committed // what the last fetch of offsets said
	kicked map[string]*part     // fenced before the client knew
	// awaited are the partitions that the group has assigned and that are not admitted yet.
	awaited map[string]bool
	seated  bool // the group has said what this member has, and has not thrown it out since
	// stays are the partitions that the source takes for its own, and whether it was told since that
	// it has lost them.
	stays   map[string]bool
	member  string    // this member's ID when it last got an assignment
	refused time.Time // since when another member's instance keeps this one out; zero: it does not
	queue   []logsource.Change
	err     error // told once
	final   error // told again and again
	wanted  int   // how many admissions want the gate
	unblock context.CancelFunc
	held    bool // the poll under way waits for room, see hold
}

// part is a partition that this member has.
type part struct {
	name      string
	topic     string
	partition int32
	id        [16]byte // the topic's; zero where the broker does not know such
	base      int64    // what is committed while nothing is settled
	next      int64    // the offset of the next record
	leaving   bool
	released  chan struct{} // closed by Release
	done      bool          // released is closed
	told      bool          // Poll has returned the assignment
	full      time.Time     // since when the source wants no more of it; zero = it does
	paused    bool          // the client was told so
	// known: what the source says of the partition is of this assignment, and not of the one before.
	known bool
}

func openGroup(o *SourceOptions, opts []kgo.Opt) (*group, error) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &group{opts: o, cancel: cancel, gate: make(chan struct{}, 1), closed: make(chan struct{}),
		ready: make(chan struct{}), watch: o.Log.Observe, parts: map[string]*part{},
		noted: map[string]committed{}, kicked: map[string]*part{}, stays: map[string]bool{},
		awaited: map[string]bool{}}
	balancer := kgo.CooperativeStickyBalancer()
	opts = append(slices.Clone(opts), kgo.WithContext(ctx), kgo.WithHooks(g),
		kgo.ConsumerGroup(o.Group), kgo.ConsumeTopics(o.Topics...), kgo.Balancers(balancer),
		kgo.DisableAutoCommit(), kgo.FetchIsolationLevel(o.isolation()), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(fetchWait), kgo.SessionTimeout(o.SessionTimeout),
		kgo.HeartbeatInterval(min(o.SessionTimeout/4, 3*time.Second)),
		kgo.RebalanceTimeout(o.RebalanceTimeout),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnPartitionsAssigned(g.assigned), kgo.OnPartitionsRevoked(g.revoked),
		kgo.OnPartitionsLost(g.lost), kgo.OnOffsetsFetched(g.fetched),
		kgo.AdjustFetchOffsetsFn(g.adjust))
	if o.Consumer {
		opts = append(opts, kgo.ServerSideBalancer())
	}
	if o.Instance != "" {
		opts = append(opts, kgo.InstanceID(o.Instance))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("make client: %w", err)
	}
	g.cl, g.adm = cl, kadm.NewClient(cl)
	close(g.ready)
	return g, nil
}

// joinGroup is the request of the classic protocol; its number is fixed.
const joinGroup = int16(kmsg.JoinGroup)

// OnBrokerE2E sees the client fall back to the classic protocol, which it does silently.
func (g *group) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, _ kgo.BrokerE2E) {
	if key == joinGroup && g.opts.Consumer && !g.joined.Swap(true) {
		g.fail(&unsupportedError{need: "the group protocol of KIP-848 (protocol=consumer)",
			hint: "switch it on in group.coordinator.rebalance.protocols, or use protocol=classic"})
	}
}

// observe passes events on, one at a time.
func (g *group) observe(e ackwise.Event) {
	if g.watch == nil {
		return
	}
	g.seenMu.Lock()
	defer g.seenMu.Unlock()
	g.watch(e)
}

// fail makes Poll answer with a final error.
func (g *group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.final == nil {
		g.final = err
	}
	g.wake()
}

// wake ends a poll that waits for records. mu is held.
func (g *group) wake() {
	if g.unblock != nil {
		g.unblock()
	}
}

// Poll returns changes and records, in order.
func (g *group) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	for {
		if changes, err, ok := g.take(most); ok {
			return changes, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		g.poll(ctx, most)
	}
}

func (g *group) take(most int) (changes []logsource.Change, err error, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takenIn()
	n := 0
	for count := 0; n < len(g.queue); n++ {
		count += max(1, len(g.queue[n].Records))
		if n > 0 && count > most {
			break
		}
	}
	changes = slices.Clone(g.queue[:n])
	g.queue = slices.Delete(g.queue, 0, n)
	g.tell(changes)
	err, g.err = g.err, nil
	if err == nil && n == 0 {
		err = g.final
	}
	return changes, err, n > 0 || err != nil
}

// tell notes what Poll returns. mu is held.
func (g *group) tell(changes []logsource.Change) {
	for i := range changes {
		name := changes[i].Partition
		switch changes[i].Kind {
		case logsource.Assigned:
			g.stays[name] = false
			// One that is still to be told is the one that the partition has now.
			p := g.parts[name]
			if p != nil && !slices.ContainsFunc(g.queue, func(c logsource.Change) bool {
				return c.Kind == logsource.Assigned && c.Partition == name
			}) {
				p.told = true
			}
		case logsource.Lost:
			g.stays[name] = true
		case logsource.Records, logsource.Revoked:
		}
	}
}

// takenIn notes that the source has taken in what Poll has returned last: it calls Poll again. mu
// is held.
func (g *group) takenIn() {
	for name, over := range g.stays {
		if over {
			delete(g.stays, name)
		}
	}
	for _, p := range g.parts {
		p.known = p.known || p.told
	}
}

// poll waits for records, until something else is to be told.
func (g *group) poll(ctx context.Context, most int) {
	select {
	case g.gate <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-g.gate }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !g.mayPoll(cancel) {
		return
	}
	if g.hold(ctx) {
		return
	}
	fetches := g.cl.PollRecords(ctx, most)
	for _, f := range g.takeIn(fetches) {
		if errors.Is(f.err, kerr.OffsetOutOfRange) {
			g.outOfRange(ctx, f.p)
		} else {
			g.deleted(ctx, f.p, f.err) //nolint:errcheck // it may pass; else Poll says so
		}
	}
}

// fault is a fetch that a partition's log or topic has to explain.
type fault struct {
	p   *part
	err error
}

func (g *group) mayPoll(cancel context.CancelFunc) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unblock = cancel
	return len(g.queue) == 0 && g.err == nil && g.final == nil && g.wanted == 0
}

// takeIn queues what was polled, and returns what has to be looked at.
func (g *group) takeIn(fetches kgo.Fetches) (faults []fault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unblock = nil
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		p := g.parts[partitionName(f.Topic, f.Partition)]
		if p != nil && !p.leaving && len(f.Records) > 0 {
			if c := g.change(p, f.Records); len(c.Records) > 0 { // else the end of a transaction
				g.queue = append(g.queue, c)
			}
		}
		switch {
		case f.Err == nil:
		case errors.Is(f.Err, kerr.OffsetOutOfRange), errors.Is(f.Err, kerr.UnknownTopicID),
			errors.Is(f.Err, kerr.UnknownTopicOrPartition):
			switch {
			case p != nil && !p.leaving:
				faults = append(faults, fault{p, f.Err})
			case p == nil && g.awaited[partitionName(f.Topic, f.Partition)]:
				g.refuse(f.Topic, f.Partition, f.Err) // its position cannot be looked up
			}
		default:
			g.refuse(f.Topic, f.Partition, f.Err)
		}
	})
	return faults
}

func (g *group) change(p *part, records []*kgo.Record) logsource.Change {
	c := logsource.Change{Kind: logsource.Records, Partition: p.name,
		Records: make([]logsource.Record, 0, len(records))}
	var t texts.Pages
	var room [positionDigits]byte
	for _, r := range records {
		if r.Attrs.IsControl() {
			continue
		}
		m, epoch := message(r, g.opts.IDHeader, &t)
		if g.opts.Dead != "" {
			m.Headers = readDead(g.opts.Dead, m.Headers)
		}
		pos := ackwise.Position(t.Add(appendPosition(room[:0], r.Offset)))
		c.Records = append(c.Records, logsource.Record{Position: pos, Message: m, Epoch: epoch})
	}
	p.next = records[len(records)-1].Offset + 1
	return c
}

// refuse takes in an error of a poll. mu is held.
func (g *group) refuse(topic string, partition int32, err error) {
	loss, isLoss := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, kgo.ErrClientClosed):
		g.final = ackwise.ErrClosed
	case isLoss:
		// Offsets are used again for other records: what was read cannot be told from them.
		g.final = &TrimmedError{Topic: loss.Topic, Partition: loss.Partition,
			From: loss.ResetTo, To: loss.ConsumedTo, Truncated: true}
	case rejoins(err):
	case topic == "":
		g.err = explainSource(err, g.opts)
	default:
		g.err = fmt.Errorf("fetch %s: %w", partitionName(topic, partition), explainSource(err, g.opts))
	}
}

// rejoins reports whether an error is one after which the client joins the group again by itself.
// What was lost with it, its callback says.
func rejoins(err error) bool {
	for _, e := range []*kerr.Error{kerr.UnknownMemberID, kerr.IllegalGeneration,
		kerr.RebalanceInProgress, kerr.FencedMemberEpoch, kerr.StaleMemberEpoch,
		kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// assigned is called at the start of each session, also where nothing was added.
func (g *group) assigned(ctx context.Context, cl *kgo.Client, added map[string][]int32) {
	<-g.ready
	member, _ := cl.GroupMetadata()
	g.mu.Lock()
	left := g.member != "" && g.member != member
	g.member, g.refused, g.seated = member, time.Time{}, true
	kept := maps.Clone(g.parts)
	maps.Copy(kept, g.kicked)
	g.each(added, func(name string) { g.awaited[name] = true })
	g.mu.Unlock()
	for topic, numbers := range added {
		for _, n := range numbers {
			delete(kept, partitionName(topic, n))
		}
	}
	if !left || len(kept) == 0 {
		return
	}
	// The group had removed this member, the client has joined again and holds on to what it was
	// given again. In between it may have been somebody else's.
	if err := g.readmit(ctx, slices.Collect(maps.Values(kept))); err != nil {
		g.fail(&rejoinError{err})
	}
}

// rejoinError ends the source: where its partitions stand now is not known.
type rejoinError struct{ err error }

func (e *rejoinError) Error() string {
	return fmt.Sprintf("read the group's positions after joining it again: %v", e.err)
}
func (e *rejoinError) Unwrap() error { return e.err }
func (e *rejoinError) Final() bool   { return true }

// revoked returns when what is in flight of the partitions is settled or given back, or when the
// group does not wait any longer.
func (g *group) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	<-g.ready
	leaving := g.leave(gone, time.Now().Add(g.opts.Drain))
	// Half of what is left is for the last commit, the other half for joining again.
	limit := time.NewTimer(g.opts.Drain + (g.opts.RebalanceTimeout-g.opts.Drain)/2)
	defer limit.Stop()
wait:
	for _, p := range leaving {
		select {
		case <-p.released:
		case <-g.closed:
			break wait
		case <-limit.C:
			break wait
		}
	}
	g.drop(gone, true)
}

func (g *group) leave(gone map[string][]int32, deadline time.Time) (leaving []*part) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.each(gone, func(name string) {
		p := g.parts[name]
		if p == nil || p.done {
			return
		}
		p.leaving = true
		leaving = append(leaving, p)
		g.queue = append(g.queue, logsource.Change{
			Kind: logsource.Revoked, Partition: name, Deadline: deadline})
	})
	g.wake()
	return leaving
}

func (g *group) each(set map[string][]int32, do func(name string)) {
	for topic, numbers := range set {
		for _, n := range numbers {
			do(partitionName(topic, n))
		}
	}
}

// drop forgets partitions. What the loop had not let go of is lost.
func (g *group) drop(gone map[string][]int32, revoked bool) {
	g.pauseMu.Lock()
	defer g.pauseMu.Unlock()
	g.mu.Lock()
	g.each(gone, func(name string) {
		delete(g.kicked, name)
		delete(g.awaited, name)
		p := g.parts[name]
		if p == nil {
			return
		}
		delete(g.parts, name)
		if !revoked || !p.done {
			g.queue = append(g.queue, logsource.Change{Kind: logsource.Lost, Partition: name})
		}
	})
	g.wake()
	g.mu.Unlock()
	g.cl.ResumeFetchPartitions(gone) // a pause would outlast the assignment
}

// lost is called when the group has removed this member.
func (g *group) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	<-g.ready
	g.mu.Lock()
	g.seated = false
	g.mu.Unlock()
	g.drop(gone, false)
}

// Release lets a partition go.
func (g *group) Release(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.parts[name]
	if p != nil && !p.known {
		return // it means the last stay
	}
	delete(g.stays, name)
	if p != nil && !p.done {
		p.done, p.leaving = true, true
		close(p.released)
	}
}

// Close leaves the group at once. A static member does not leave: it may come back.
func (g *group) Close() error {
	close(g.closed)
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	member, _ := g.cl.GroupMetadata()
	err := g.cl.LeaveGroupContext(ctx)
	if errors.Is(err, kerr.InvalidRequest) && g.opts.Consumer && g.opts.Instance != "" {
		err = g.stepOut(ctx, member)
	}
	g.cancel() // where the group did not answer, nothing more is waited for
	g.cl.Close()
	gone := errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kgo.ErrClientClosed) ||
		errors.Is(err, kerr.FencedInstanceID) || errors.Is(err, kerr.UnreleasedInstanceID)
	if err != nil && !gone {
		return fmt.Errorf("leave group %s: %w", g.opts.Group, err)
	}
	return nil
}
