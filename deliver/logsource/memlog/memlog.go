// Package memlog is a log in memory: partitions, and members of a group that share them, lose them
// and take them over. It behaves as Kafka, Nakadi or a table of leases do towards a
// logsource.Source, and it is driven by hand, so that tests and demonstrations decide when a
// partition moves and who dies.
//
//	Append ─▶ orders/0 ─▶ Member a ─▶ logsource.New ─▶ deliver.Run
//	          orders/1 ─▶ Member b        │
//	             ▲                        ▼
//	             └──── position + note ◀─ Commit, fenced by the owner
//
// Start with ExampleLog. It keeps everything in memory for ever and syncs nothing.
package memlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// ErrInjected is what a commit answers that Log.FailCommits made fail.
var ErrInjected = errors.New("injected fault")

// Log is a log of partitions. Its methods may be called from several goroutines.
type Log struct {
	mu      sync.Mutex // guards all below, and the members' fields
	parts   []*part
	members []*Member
	changed chan struct{} // closed and replaced when a Poll should look again
	failing int
}

type part struct {
	name     string
	records  []logsource.Record
	position ackwise.Position // as last committed
	note     []byte
	owner    *Member // nil = nobody
	next     int     // index of the next record that the owner reads
	paused   bool
	revoked  bool // the owner has to release it
	deadline time.Time
	heir     *Member // who gets it then; nil = nobody
}

// New makes a log with partitions called topic/0, topic/1 and so on.
func New(topic string, partitions int) *Log {
	l := &Log{changed: make(chan struct{})}
	for i := range partitions {
		l.parts = append(l.parts, &part{name: fmt.Sprintf("%s/%d", topic, i)})
	}
	return l
}

// wake makes waiting Polls look again. mu is held.
func (l *Log) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Append adds messages to the end of a partition and returns the last one's position.
func (l *Log) Append(partition int, msgs ...ackwise.Message) ackwise.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[partition]
	for _, m := range msgs {
		pos := ackwise.Position(fmt.Sprintf("%012d", len(p.records)+1))
		p.records = append(p.records, logsource.Record{Position: pos, Message: m})
	}
	l.wake()
	return p.end()
}

func (p *part) end() ackwise.Position {
	if len(p.records) == 0 {
		return ""
	}
	return p.records[len(p.records)-1].Position
}

// Committed returns the last position and note that were committed for a partition.
func (l *Log) Committed(partition int) (ackwise.Position, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parts[partition].position, l.parts[partition].note
}

// SetCommitted moves a partition's position and replaces its note, as an operator's reset does. The
// next owner begins there.
func (l *Log) SetCommitted(partition int, pos ackwise.Position, note []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[partition].position, l.parts[partition].note = pos, note
}

// Owner returns which member has a partition; nil = none.
func (l *Log) Owner(partition int) *Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parts[partition].owner
}

// FailCommits makes the next n commits of a partition fail with ErrInjected: nothing is written.
func (l *Log) FailCommits(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing += n
}

// Join adds a member, which has no partition yet.
func (l *Log) Join(name string) *Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &Member{log: l, name: name}
	l.members = append(l.members, m)
	return m
}

// Rebalance spreads the partitions over the members, in order, beginning with the first-th member.
// A partition that has to leave a member is revoked and moves when that member releases it, or by
// Expire after the deadline. One that nobody has moves at once.
func (l *Log) Rebalance(first int, deadline time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range l.parts {
		if n := len(l.members); n > 0 {
			l.move(p, l.members[(first+i)%n], deadline)
		}
	}
	l.wake()
}

// Move lets one partition go to a member, as Rebalance does. A nil member takes it from everybody.
func (l *Log) Move(partition int, to *Member, deadline time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.move(l.parts[partition], to, deadline)
	l.wake()
}

func (l *Log) move(p *part, to *Member, deadline time.Time) {
	switch {
	case p.revoked:
		p.heir = to
	case p.owner == to:
	case p.owner == nil:
		p.give(to)
	default:
		p.revoked, p.deadline, p.heir = true, deadline, to
		p.owner.tell(logsource.Change{
			Kind: logsource.Revoked, Partition: p.name, Deadline: deadline})
	}
}

// Seize gives a partition to a member at once; the one that had it learns that it is lost.
func (l *Log) Seize(partition int, to *Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts[partition].seize(to)
	l.wake()
}

func (p *part) seize(to *Member) {
	if p.owner != nil {
		p.owner.tell(logsource.Change{Kind: logsource.Lost, Partition: p.name})
	}
	p.give(to)
}

// Expire moves the revoked partitions whose deadline is over.
func (l *Log) Expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.parts {
		if p.revoked && !now.Before(p.deadline) {
			p.seize(p.heir)
		}
	}
	l.wake()
}

// give makes to the owner; a member that is gone is none.
func (p *part) give(to *Member) {
	if to != nil && to.gone {
		to = nil
	}
	p.owner, p.heir, p.revoked, p.paused = to, nil, false, false
	if to == nil {
		return
	}
	p.next = 0
	for p.next < len(p.records) && p.records[p.next].Position <= p.position {
		p.next++
	}
	to.tell(logsource.Change{Kind: logsource.Assigned, Partition: p.name, Position: p.position,
		Note: slices.Clone(p.note), End: p.end()})
}

// Member is one member of the group: the logsource.Log of one source.
type Member struct {
	log     *Log
	name    string
	gone    bool
	pending []logsource.Change
}

// Name returns the member's name.
func (m *Member) Name() string { return m.name }

// tell queues a change of the assignment. The log's mu is held.
func (m *Member) tell(c logsource.Change) { m.pending = append(m.pending, c) }

// Kill ends the member as a killed process ends: it says nothing, none of its calls does anything
// any more, and its partitions belong to nobody until they are given away.
func (m *Member) Kill() {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.leave()
}

func (m *Member) leave() {
	l := m.log
	if m.gone {
		return
	}
	m.gone, m.pending = true, nil
	l.members = slices.DeleteFunc(l.members, func(o *Member) bool { return o == m })
	for _, p := range l.parts {
		if p.owner == m {
			p.give(p.heir)
		}
	}
	l.wake()
}

// Poll returns changes of the assignment and records.
func (m *Member) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	for {
		changes, changed, err := m.poll(most)
		if len(changes) > 0 || err != nil {
			return changes, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-changed:
		}
	}
}

func (m *Member) poll(most int) ([]logsource.Change, <-chan struct{}, error) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if m.gone {
		return nil, nil, fmt.Errorf("member %s: %w", m.name, ackwise.ErrClosed)
	}
	changes := m.pending
	m.pending = nil
	for _, p := range m.log.parts {
		if p.owner != m || p.paused || p.revoked || p.next == len(p.records) {
			continue
		}
		n := min(most, len(p.records)-p.next)
		if n > 0 {
			changes = append(changes, logsource.Change{Kind: logsource.Records,
				Partition: p.name, Records: slices.Clone(p.records[p.next : p.next+n])})
		}
		p.next += n
		most -= n
	}
	return changes, m.log.changed, nil
}

// Commit writes positions and notes of the member's partitions.
func (m *Member) Commit(_ context.Context, marks []logsource.Mark) []error {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	errs := make([]error, len(marks))
	for i, mark := range marks {
		p := m.find(mark.Partition)
		switch {
		case p == nil:
			errs[i] = fmt.Errorf("commit of %s: %w", m.name, logsource.ErrFenced)
		case m.log.failing > 0:
			m.log.failing--
			errs[i] = fmt.Errorf("commit of %s: %w", m.name, ErrInjected)
		default:
			p.position, p.note = mark.Position, slices.Clone(mark.Note)
		}
	}
	return errs
}

// find returns the partition where it is this member's, else nil.
func (m *Member) find(name string) *part {
	for _, p := range m.log.parts {
		if p.name == name && p.owner == m && !m.gone {
			return p
		}
	}
	return nil
}

// Pause stops the records of a partition, or lets them come again.
func (m *Member) Pause(partition string, paused bool) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if p := m.find(partition); p != nil {
		p.paused = paused
		m.log.wake()
	}
}

// Release lets a revoked partition go to its heir.
func (m *Member) Release(partition string) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	if p := m.find(partition); p != nil {
		p.give(p.heir)
		m.log.wake()
	}
}

// Close leaves the group. Its partitions belong to nobody until they are given away.
func (m *Member) Close() error {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.leave()
	return nil
}
