package dynamostreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// stream is one member's view of a stream: the logsource.Log of one source.
type stream struct {
	o       SourceOptions
	me      string
	arn     string
	streams *dynamodbstreams.Client
	rows    *rows
	planner *planner // of the keeper alone
	teller  teller

	cancel context.CancelFunc
	wg     sync.WaitGroup // keeper, beater and readers
	kick   chan struct{}  // one place: the keeper looks again

	mu       sync.Mutex // guards all below; never held during I/O
	held     map[string]*held
	order    []*held // the same, in the order of their assignment
	turn     int     // where the next Poll begins, so that no shard starves
	changes  []logsource.Change
	handOver []handOver
	lost     []string // since the keeper looked
	shards   map[string]shard
	asked    time.Time // when the list of them was asked for
	relist   bool
	problems map[string]*problem
	changed  chan struct{} // closed and replaced when Poll and readers should look again
	final    error         // nothing more comes
}

// held is one lease that this member has.
type held struct {
	row    row
	cancel context.CancelFunc // ends its reader
	// The lease is this member's for row.lease from here on: when the last word that was taken was
	// sent. Others count from when they saw it, which is later.
	spoke time.Time

	told, known bool // Poll has returned the assignment; the source has taken it in
	paused      bool
	leaving     bool // revoked: nothing more is read
	ended       bool // read to its end
	whole       bool // and all of that was given out and settled, when it was revoked for that
	finished    bool // and the row says so
	idle        bool // the last read has found nothing
	heir        string
	writes      int64
	buffer      []logsource.Record
	given       ackwise.Position // the last one that Poll has returned
	settled     ackwise.Position
	ages        []age // of what was given and is not settled, oldest first
}

// age is when the oldest of some changes up to a position was made.
type age struct {
	upTo ackwise.Position
	made time.Time
}

// handOver is a lease that is to be given away.
type handOver struct {
	shard string
	fence int64
	heir  string
}

// problem is what Poll tells, once in a while, until it is over.
type problem struct {
	err  error
	told time.Time
}

// problemEvery is how often one problem is told.
const problemEvery = time.Minute

// wake makes Poll and the readers look again. mu is held.
func (l *stream) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *stream) kickKeeper() {
	select {
	case l.kick <- struct{}{}:
	default: // it has not looked yet
	}
}

// Poll returns changes of the leases, then records.
func (l *stream) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	l.mu.Lock()
	for _, h := range l.order {
		if h.told && !h.known { // the source calls again once it has taken in the last answer
			h.known = true
			l.wake() // its reader may begin
		}
	}
	l.mu.Unlock()
	for {
		changes, changed, err := l.poll(most, time.Now())
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

func (l *stream) poll(most int, now time.Time) ([]logsource.Change, <-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.changes) > 0 {
		// Alone: records of an assignment follow once the source knows it, so that no write of the
		// shard's last stay here can be taken for one of this stay.
		changes := l.changes
		l.changes = nil
		for _, h := range l.order {
			h.told = true
		}
		l.wake()
		return changes, nil, nil
	}
	var changes []logsource.Change
	for range l.order {
		h := l.order[l.turn%len(l.order)]
		l.turn++
		if h.known && !h.leaving && !h.paused && len(h.buffer) > 0 && most > 0 {
			n := min(most, len(h.buffer))
			changes = append(changes, logsource.Change{Kind: logsource.Records,
				Partition: h.row.shard, Records: h.take(n)})
			most -= n
		}
	}
	if len(changes) > 0 {
		l.wake() // a reader may go on
		return changes, nil, nil
	}
	if l.final != nil {
		return nil, nil, l.final
	}
	for _, key := range slices.Sorted(maps.Keys(l.problems)) {
		if p := l.problems[key]; p.told.IsZero() || now.Sub(p.told) >= problemEvery {
			p.told = now
			return nil, nil, p.err
		}
	}
	return nil, l.changed, nil
}

// take gives out the first records of the buffer.
func (h *held) take(n int) []logsource.Record {
	out := h.buffer[:n:n]
	h.buffer = h.buffer[n:]
	h.given = out[n-1].Position
	made := out[0].Message.Time
	for i := range out {
		if t := out[i].Message.Time; t.Before(made) {
			made = t
		}
	}
	h.ages = append(h.ages, age{upTo: h.given, made: made})
	return out
}

// endOf queues the end of a shard that is read to its end and settled. mu is held.
func (l *stream) endOf(h *held) {
	if h.ended && !h.leaving && len(h.buffer) == 0 && h.settled >= h.given {
		h.whole = true // a shard that is revoked for another reason may have lost its buffer
		l.revoke(h)
	}
}

// revoke queues that a shard has to go. mu is held.
func (l *stream) revoke(h *held) {
	h.leaving, h.buffer = true, nil
	h.cancel()
	l.changes = append(l.changes, logsource.Change{Kind: logsource.Revoked,
		Partition: h.row.shard, Deadline: time.Now().Add(l.o.Drain)})
	l.wake()
}

// lose drops a lease that is not this member's any more. mu is held.
func (l *stream) lose(h *held) {
	if l.held[h.row.shard] != h {
		return
	}
	l.drop(h)
	l.lost = append(l.lost, h.row.shard)
	l.changes = append(l.changes, logsource.Change{Kind: logsource.Lost, Partition: h.row.shard})
	l.wake()
}

func (l *stream) drop(h *held) {
	h.cancel()
	h.buffer = nil
	delete(l.held, h.row.shard)
	l.order = slices.DeleteFunc(l.order, func(o *held) bool { return o == h })
	delete(l.problems, "read "+h.row.shard)
}

// commits is how many writes go on at a time.
const commits = 16

// Commit writes positions and notes, each into the row of its shard.
func (l *stream) Commit(ctx context.Context, marks []logsource.Mark) []error {
	errs := make([]error, len(marks))
	hs, ws := make([]*held, len(marks)), make([]mark, len(marks))
	for i := range marks { // all before the first call: a later stay's lease is not theirs
		hs[i], ws[i] = l.begin(marks[i])
	}
	each(len(marks), func(i int) { errs[i] = l.commit(ctx, hs[i], ws[i]) })
	return errs
}

// each calls do for 0 to n-1, some at once, and returns when all are over.
func each(n int, do func(i int)) {
	var wg sync.WaitGroup // each goroutine ends with its share
	workers := min(n, commits)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	wg.Wait()
}

func (l *stream) commit(ctx context.Context, h *held, w mark) error {
	if h == nil {
		return fmt.Errorf("commit shard %s: %w", w.shard, logsource.ErrFenced)
	}
	sent := time.Now()
	err := l.rows.write(ctx, w)
	var no *refusal
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case errors.As(err, &no):
		l.lose(h)
		return fmt.Errorf("commit shard %s: owner %s, fence %d: %w", w.shard,
			no.there.owner, no.there.fence, logsource.ErrFenced)
	case err != nil:
		return l.explain(err, "dynamodb:UpdateItem", "the table "+l.o.Leases)
	}
	h.spoke, h.settled, h.finished = sent, w.position, h.finished || w.done
	for len(h.ages) > 0 && h.ages[0].upTo <= h.settled {
		h.ages = h.ages[1:]
	}
	l.endOf(h)
	return nil
}

// begin takes the number of a write. A position behind the last one is of an earlier stay.
func (l *stream) begin(m logsource.Mark) (*held, mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[m.Partition]
	if h != nil && h.known && m.Position < h.settled {
		l.lose(h) // the source takes it for lost: nobody else may wait for it
	}
	if h == nil || !h.known || m.Position < h.settled {
		return nil, mark{shard: m.Partition}
	}
	h.writes++
	done := h.whole && m.Position >= h.given
	return h, mark{shard: m.Partition, me: l.me, fence: h.row.fence, writes: h.writes,
		position: m.Position, note: m.Note, done: done}
}

// Pause stops the reading of a shard, or lets it go on.
func (l *stream) Pause(partition string, paused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[partition]; h != nil {
		h.paused = paused
		l.wake()
	}
}

// Release lets a lease go. The keeper writes that, unless the shard is done.
func (l *stream) Release(partition string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[partition]
	if h == nil || !h.known { // what the source does not know it cannot mean
		return
	}
	l.drop(h)
	if h.finished {
		l.relist = true // its children may be there
	} else {
		l.handOver = append(l.handOver,
			handOver{shard: partition, fence: h.row.fence, heir: h.heir})
	}
	l.kickKeeper()
}

// Close ends the member and gives back what it has.
func (l *stream) Close() error {
	l.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	if err := l.giveBack(ctx); err != nil {
		return fmt.Errorf("give leases back, which run out after %s: %w", l.o.Lease, err)
	}
	return nil
}

// closePatience bounds what Close writes.
const closePatience = 10 * time.Second

// stop ends the goroutines.
func (l *stream) stop() {
	l.cancel()
	l.wg.Wait()
}

func (l *stream) giveBack(ctx context.Context) error {
	var errs []error
	l.mu.Lock()
	for _, h := range l.order {
		if !h.finished {
			l.handOver = append(l.handOver,
				handOver{shard: h.row.shard, fence: h.row.fence, heir: h.heir})
		}
	}
	l.held, l.order = map[string]*held{}, nil
	l.mu.Unlock()
	errs = append(errs, l.writeHandOvers(ctx))
	all, _, err := l.rows.load(ctx)
	errs = append(errs, err)
	for _, r := range sorted(all) {
		switch {
		case r.wanted == l.me:
			var no *refusal
			if err := l.rows.unask(ctx, r.shard, l.me); !errors.As(err, &no) {
				errs = append(errs, err)
			}
		case r.owner == l.me && !r.done: // passed on to this member meanwhile
			errs = append(errs, l.rows.giveUp(ctx, handOver{shard: r.shard, fence: r.fence}, l.me))
		}
	}
	return errors.Join(errs...)
}
