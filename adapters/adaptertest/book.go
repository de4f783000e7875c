package adaptertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// book is what the test itself knows: what it published and what the members said.
type book struct {
	mu      sync.Mutex // guards all below, and the fields of members that say so
	changed chan struct{}
	events  []event
	faults  []string
	sent    map[string]*sent
	acked   map[string]*member // the handler has succeeded, there
	done    map[string]bool    // the ack was carried out
	late    map[string]bool    // the ack was refused: the lease was lost
	dead    map[string]bool
	broken  bool // a member has ended by itself: nothing more is worth waiting for
	// disturbed: a server was killed, frozen or cut off, so that settlements may be lost.
	disturbed bool
	restarted bool // and it was killed
	forgets   bool // and forgets acks then
}

// sent is one published message.
type sent struct {
	message  ackwise.Message
	sends    int  // how often it was published
	accepted bool // surely; else perhaps
	refused  bool // surely not, and it was not sent again
	place    int  // how many were sent first before it
}

// event is one line of a member, or an order to it.
type event struct {
	said
	by *member
}

// saysOrder is the kind of the events that are orders.
const saysOrder = "order"

// saysStops is the kind of the event that tells a member to end.
const saysStops = "stops"

// saysOver is the kind of the event that ends a member.
const saysOver = "over"

func newBook() *book {
	return &book{changed: make(chan struct{}), sent: map[string]*sent{}, acked: map[string]*member{},
		done: map[string]bool{}, late: map[string]bool{}, dead: map[string]bool{}}
}

// wake makes those look again who wait. mu is held.
func (b *book) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) look(cond func() bool) (bool, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return cond(), b.changed
}

func (b *book) is(cond func() bool) bool {
	ok, _ := b.look(cond)
	return ok
}

func (b *book) locked(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
	b.wake()
}

func (b *book) complain(fault string) {
	b.locked(func() { b.faults = append(b.faults, fault) })
}

// compare compares what a source says of itself with what is expected. mu is held.
func (b *book) compare(got, want *ackwise.Features) {
	if got == nil || *got != *want {
		fault := fmt.Sprintf("the source says of itself\n%+v, expected is\n%+v", got, want)
		if !slices.Contains(b.faults, fault) {
			b.faults = append(b.faults, fault)
		}
	}
}

// send notes that messages are about to be published.
func (b *book) send(ms []ackwise.Message) {
	b.locked(func() {
		for _, m := range ms {
			s := b.sent[m.ID]
			if s == nil {
				s = &sent{message: m, place: len(b.sent)}
				b.sent[m.ID] = s
			}
			s.sends++
		}
	})
}

// results notes what became of them.
func (b *book) results(ms []ackwise.Message, results []ackwise.Result) {
	b.locked(func() {
		for i, res := range results {
			s := b.sent[ms[i].ID]
			s.accepted = s.accepted || res.Class == ackwise.ResultAccepted
		}
	})
}

// unsettled is how many of a member's deliveries are not settled. mu is held.
func (b *book) unsettled(m *member) (n int) {
	for _, e := range b.events {
		if e.by != m {
			continue
		}
		switch {
		case e.Kind == saysReceived:
			n++
		case e.Kind == saysSettled, e.Kind == saysRefused && e.Lost:
			n--
		}
	}
	return n
}

// written notes that messages are in the system.
func (b *book) written(ms []ackwise.Message) {
	b.locked(func() {
		for i := range ms {
			b.sent[ms[i].ID].accepted = true
		}
	})
}

// note notes an order. mu is held.
func (b *book) note(m *member, s *said, o order) {
	if o.Do == doHold {
		return
	}
	if o.Do == doAck {
		b.acked[s.ID] = m
	}
	line := *s
	line.Kind, line.Outcome, line.At = saysOrder, o.Do, time.Now().UnixNano()
	b.events = append(b.events, event{said: line, by: m})
}

// settled notes that a settlement was carried out. mu is held.
func (b *book) settled(s *said) {
	if s.Outcome == doAck {
		b.done[s.ID] = true
	}
}

// stops notes that a member is told to end.
func (b *book) stops(m *member) {
	b.locked(func() {
		m.stopping = true
		b.events = append(b.events, event{said: said{Kind: saysStops, At: time.Now().UnixNano()}, by: m})
	})
}

// end notes that a member is gone: all it said was heard.
func (b *book) end(m *member) {
	b.locked(func() {
		m.over = true
		if m.killed == 0 && !m.stopping {
			b.broken = true
			b.faults = append(b.faults, m.name+" has ended, and nobody had stopped it")
		}
		at := max(m.last, m.killed)
		b.events = append(b.events, event{said: said{Kind: saysOver, At: at}, by: m})
	})
}

// complete reports whether all that was accepted is acked or dead. mu is held.
func (b *book) complete() bool { return len(b.open()) == 0 }

// open returns what is neither. An ack counts too whose handler has succeeded and whose answer
// says nothing: its member was killed, or the system was away and may have carried it out before
// it took the lease. mu is held.
func (b *book) open() []string {
	var open []string
	for id, s := range b.sent {
		m := b.acked[id]
		acked := b.done[id] || m != nil && (m.over && (m.killed != 0 || b.disturbed) ||
			b.disturbed && b.late[id])
		if s.accepted && !acked && !b.dead[id] {
			open = append(open, id)
		}
	}
	slices.Sort(open)
	return open
}

// missing returns the accepted IDs that are not among messages.
func (b *book) missing(ms []ackwise.Message) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	there := map[string]bool{}
	for i := range ms {
		there[ms[i].ID] = true
	}
	var missing []string
	for id, s := range b.sent {
		if s.accepted && !there[id] {
			missing = append(missing, id)
		}
	}
	slices.Sort(missing)
	return missing
}

// read returns what is wrong with messages that were read where a sink put them.
func (b *book) read(ms []ackwise.Message, dedup bool) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var faults []string
	copies := map[string]int{}
	for i := range ms {
		m := &ms[i]
		s := b.sent[m.ID]
		copies[m.ID]++
		switch {
		case s == nil:
			faults = append(faults, fmt.Sprintf("%s is there, and nobody published it", m.ID))
		case s.refused:
			faults = append(faults, fmt.Sprintf(
				"%s is there, and its publisher was told that it was not accepted", m.ID))
		case m.Key != s.message.Key || sumOf(m) != sumOf(&s.message) ||
			!sameTime(m.Time, s.message.Time):
			faults = append(faults, fmt.Sprintf(
				"%s is there with another key, body, time or other headers", m.ID))
		case copies[m.ID] > s.sends || dedup && copies[m.ID] > 1:
			faults = append(faults, fmt.Sprintf("%s is there %d times, it was sent %d times", m.ID,
				copies[m.ID], s.sends))
		}
	}
	return faults
}

// tell says how far things are, for the error of a wait that was in vain.
func (b *book) tell() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := b.open()
	text := fmt.Sprintf("; %d messages sent, %d acked, %d dead, not acked: %s", len(b.sent),
		len(b.done), len(b.dead), strings.Join(open[:min(8, len(open))], " "))
	lines := append([]string{text}, b.faults...)
	lines = append(lines, "the last lines:")
	for _, e := range b.events[max(0, len(b.events)-12):] {
		lines = append(lines, e.String())
	}
	return strings.Join(lines, "\n")
}

// String shows an event.
func (e *event) String() string {
	name := "the test"
	if e.by != nil {
		name = e.by.name
	}
	return fmt.Sprintf("  %s %s %s: %s (attempt %d, %s) %s %s",
		time.Unix(0, e.At).Format("05.000000"), name, e.Kind, e.ID, e.Attempt, e.Cause, e.Outcome,
		e.Reason)
}
