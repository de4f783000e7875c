package lambda

import (
	"sync"

	"github.com/ackwise/ackwise"
)

// memory is what a process knows of the messages that it had in its hands. Lambda keeps a process
// for many events, so most of what comes again comes to one that knows why.
type memory struct {
	max int

	mu    sync.Mutex // guards the fields below
	known map[string]*trace
	order []string // of known, the oldest first
}

// trace is what is known of one message.
type trace struct {
	seen     int             // hand-outs to this process
	count    int             // the queue's own count at the last of them, 0 = it does not count
	outcome  ackwise.Outcome // how the last one ended
	ended    bool            // whether it did
	failures int
	back     int // hand-outs that this process ended, however
}

func newMemory(max int) *memory { return &memory{max: max, known: map[string]*trace{}} }

// nameOf is the system's own name of a message: two with one ID are two.
func nameOf(d *ackwise.Delivery) string { return d.Partition + " " + string(d.Token) }

// recall sets the counts and the cause of each delivery.
func (m *memory) recall(b *batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range b.ds {
		t := m.trace(nameOf(d))
		count := b.counts[i]
		d.Cause = causeOf(t, count)
		d.Counts.Failures = t.failures
		d.Attempt = t.seen + 1
		if count > 0 {
			d.Counts.HandOuts, d.Attempt = count, count
		}
		t.seen++
		t.count, t.ended = count, false
	}
}

// causeOf says why a message is handed out. Only a count that is exactly one higher shows that
// nobody else had it since.
func causeOf(t *trace, count int) ackwise.Cause {
	switch {
	case count == 1:
		return ackwise.CauseFirst
	case count == 0 || !t.ended || count != t.count+1:
		return ackwise.CauseUnknown
	}
	return t.outcome.Again()
}

// trace returns what is known of a message, and forgets the oldest for it.
func (m *memory) trace(id string) *trace {
	if t := m.known[id]; t != nil {
		return t
	}
	if len(m.order) >= m.max {
		delete(m.known, m.order[0])
		m.order = m.order[1:]
	}
	t := &trace{}
	m.known[id] = t
	m.order = append(m.order, id)
	return t
}

func (m *memory) failed(d *ackwise.Delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.known[nameOf(d)]; t != nil {
		t.failures++
	}
}

// back is how many hand-outs of a message this process ended: they do not speak of one that kills.
func (m *memory) back(d *ackwise.Delivery) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.known[nameOf(d)]; t != nil {
		return t.back
	}
	return 0
}

// keep notes how the hand-outs ended. A message that is done has no failures any more; one whose
// budget is spent begins anew, because there are no dead letters.
func (m *memory) keep(b *batch, settled []settlement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range b.ds {
		t := m.known[nameOf(d)]
		if t == nil {
			continue
		}
		t.outcome, t.ended = settled[i].outcome, true
		t.back++
		if settled[i].done() || settled[i].spent {
			t.failures = 0
		}
	}
}
