package patterns

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/demo"
)

const (
	members    = 2
	atOnce     = 8   // deliveries of one member
	displaced  = 400 // how many places a delivery may be from where it belongs, at most
	oneInRaces = 20  // one delivery of so many goes to both members
	oneInFails = 10  // messages, when they come for the first time
	nackDelay  = 5 * time.Millisecond
	patience   = 60 * time.Second // without a word of any member
)

// line hands deliveries to the members and takes note of what they say.
type line struct {
	t       *testing.T
	rnd     *rand.Rand
	start   func() *member
	steps   []string // where members die
	kills   int      // how many shall
	total   int      // deliveries that are planned
	waiting []*order
	late    []delayed
	members []*member
	events  chan event
	readers sync.WaitGroup

	sent    int
	armed   bool // a delivery is out that tells its member to die
	numbers int
	faults  map[string]int // what went wrong, by what it was
	said    map[string]map[string]int
	last    map[string]string // by key: the latest stamp that was sent, to see what overtakes
	once    map[string]bool   // messages that were sent
}

type delayed struct {
	order *order
	until time.Time
}

type event struct {
	from  *member
	said  saying
	ended bool
	err   error
}

// member is a consumer as the line sees it.
type member struct {
	in    io.WriteCloser
	out   io.Reader
	pid   int          // 0 = a goroutine
	wait  func() error // for its end
	holds map[int]*order
	dying bool
}

// plan makes the deliveries: each flight once, some of them again, out of order.
func plan(rnd *rand.Rand, flights []demo.Flight, total int) []*order {
	type place struct {
		order *order
		at    float64
	}
	var places []place
	add := func(i int) {
		at := float64(i)*float64(total)/float64(len(flights)) + rnd.Float64()*displaced
		places = append(places, place{&order{Message: flights[i].Message("flights")}, at})
	}
	for i := range flights {
		add(i)
	}
	for len(places) < total {
		add(rnd.IntN(len(flights)))
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	var out []*order
	for _, p := range places {
		out = append(out, p.order)
	}
	return out
}

// run hands everything out until it is acked, and ends the members.
func (l *line) run(ctx context.Context) {
	l.t.Helper()
	l.events = make(chan event)
	l.faults, l.said = map[string]int{}, map[string]map[string]int{}
	l.last, l.once = map[string]string{}, map[string]bool{}
	defer func() {
		for _, m := range l.members {
			_ = m.in.Close() // its consumer ends
		}
		for left := len(l.members); left > 0; {
			if e := <-l.events; e.ended {
				left--
				if e.err != nil && !e.from.dying {
					l.t.Errorf("a consumer ended badly: %v", e.err)
				}
			}
		}
		l.readers.Wait()
	}()
	for range members {
		l.hire()
	}
	quiet := time.NewTimer(patience)
	defer quiet.Stop()
	for {
		wait := l.handOut()
		if l.left() == 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case e := <-l.events:
			quiet.Reset(patience)
			l.hear(e)
		case <-timer.C:
		case <-quiet.C:
			l.t.Fatalf("no consumer said anything in %s; %d deliveries are left", patience, l.left())
		case <-ctx.Done():
			l.t.Fatal(context.Cause(ctx))
		}
		timer.Stop()
	}
}

// left is how many deliveries are not acked.
func (l *line) left() int {
	n := len(l.waiting) + len(l.late)
	for _, m := range l.members {
		n += len(m.holds)
	}
	return n
}

func (l *line) hire() {
	m := l.start()
	l.members = append(l.members, m)
	l.readers.Go(func() { // ends with the member's output
		lines := bufio.NewScanner(m.out)
		for lines.Scan() {
			var s saying
			if json.Unmarshal(lines.Bytes(), &s) == nil { // else it was cut off by a kill
				l.events <- event{from: m, said: s}
			}
		}
		l.events <- event{from: m, ended: true, err: m.wait()}
	})
}

// handOut gives the members what they have room for, and returns how long to wait for the next.
func (l *line) handOut() time.Duration {
	now, next := time.Now(), time.Hour
	l.late = slices.DeleteFunc(l.late, func(d delayed) bool {
		if now.Before(d.until) {
			next = min(next, d.until.Sub(now))
			return false
		}
		l.waiting = append([]*order{d.order}, l.waiting...)
		return true
	})
	for _, m := range l.members {
		for len(m.holds) < atOnce && len(l.waiting) > 0 && !m.dying {
			o := l.waiting[0]
			l.waiting = l.waiting[1:]
			l.send(m, o)
			if l.rnd.IntN(oneInRaces) == 0 {
				l.race(m, o)
			}
		}
	}
	return next
}

// race gives the message to another member as well.
func (l *line) race(than *member, o *order) {
	for _, m := range l.members {
		if m != than && !m.dying {
			l.send(m, &order{Message: o.Message})
			l.faults["race"]++
			return
		}
	}
}

// send hands a delivery out. Now and then it tells the member to die: with a message that comes for
// the first time, since a repeat may not come to the step at all.
func (l *line) send(m *member, o *order) {
	l.numbers++
	l.sent++
	again := *o
	again.N = l.numbers
	due := l.sent > (l.dead()+1)*l.total/(l.kills+1)
	first := !l.once[o.Message.ID]
	if first && len(l.once)%oneInFails == oneInFails/2 {
		again.Fail = true
	} else if due && !l.armed && l.dead() < l.kills && first {
		again.Die = slices.MinFunc(l.steps, func(a, b string) int {
			return cmp.Compare(l.faults["kill "+a], l.faults["kill "+b])
		})
		again.Fail = strings.HasSuffix(again.Die, " release") // only a failure comes there
		l.armed = true
	}
	stamp, _ := o.Message.Header(ackwise.HeaderStamp)
	if o.Message.Key != "" && string(stamp) < l.last[o.Message.Key] {
		l.faults["overtaking"]++
	}
	l.last[o.Message.Key] = max(l.last[o.Message.Key], string(stamp))
	if l.once[o.Message.ID] {
		l.faults["duplicate"]++
	}
	l.once[o.Message.ID] = true
	m.holds[again.N] = &again
	text, err := json.Marshal(again)
	if err != nil {
		l.t.Fatal(err)
	}
	_, _ = m.in.Write(append(text, '\n')) // one that has died is heard of
}

// dead is how many members were killed.
func (l *line) dead() int {
	n := 0
	for _, step := range l.steps {
		n += l.faults["kill "+step]
	}
	return n
}

// hear takes note of what a member said.
func (l *line) hear(e event) {
	if e.ended {
		l.bury(e)
		return
	}
	s, m := e.said, e.from
	if l.said[s.What] == nil {
		l.said[s.What] = map[string]int{}
	}
	l.said[s.What][s.ID]++
	o := m.holds[s.N]
	switch s.What {
	case saidDying:
		m.dying, l.armed = true, false
		l.faults["kill "+s.Step]++
	case saidAck, saidNack:
		delete(m.holds, s.N)
		if o == nil || s.What == saidAck && o.Die == "" {
			return
		}
		if o.Die != "" { // it did not come to that step: it was a repeat
			l.armed = false
		}
		if s.What == saidNack {
			switch {
			case o.Fail:
				l.faults["failure"]++
			case strings.Contains(s.Err, idempotency.ErrFence.Error()):
				l.faults["claim lost"]++
			case strings.Contains(s.Err, idempotency.ErrChanged.Error()):
				l.faults["key busy"]++ // Apply gave up, and the message comes again
			case s.Delay == 0:
				l.faults["error "+s.Err]++
			}
			l.again(o, max(s.Delay, nackDelay))
		}
	default:
		l.faults[s.What]++
	}
}

// again hands a delivery out once more, without what was to go wrong with it.
func (l *line) again(o *order, delay time.Duration) {
	l.late = append(l.late, delayed{&order{Message: o.Message}, time.Now().Add(delay)})
}

// bury takes the deliveries of a member that has ended back, and hires another.
func (l *line) bury(e event) {
	m := e.from
	l.members = slices.DeleteFunc(l.members, func(other *member) bool { return other == m })
	if !m.dying {
		l.t.Fatalf("a consumer ended by itself: %v", e.err)
	}
	_ = m.in.Close() // nobody reads it any more
	for _, o := range m.holds {
		l.again(o, 0)
	}
	l.hire()
}

// check fails the test for each kind of fault that never happened.
func (l *line) check(kinds ...string) {
	l.t.Helper()
	for _, step := range l.steps {
		kinds = append(kinds, "kill "+step)
	}
	for _, kind := range append(kinds, "race", "failure", "duplicate", "overtaking") {
		if l.faults[kind] == 0 {
			l.t.Errorf("no %s happened", kind)
		}
	}
	for fault, n := range l.faults {
		if strings.HasPrefix(fault, "error ") {
			l.t.Errorf("%d deliveries failed: %s", n, fault)
		}
	}
}

// process starts this test binary as a consumer.
func process(t *testing.T, a assignment) *member {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe) // ends with its input
	cmd.Env = append(os.Environ(), consumerVar+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said strings.Builder
	cmd.Stderr = &said
	m := &member{holds: map[int]*order{}}
	if m.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if m.out, err = cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	m.wait = func() error {
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %.2000s", err, said.String())
		}
		return nil
	}
	return m
}

// signal sends a signal to a process; one that has ended takes none.
func (m *member) signal(s syscall.Signal) error { return syscall.Kill(m.pid, s) }
