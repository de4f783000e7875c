package adaptertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// member is a consumer as its test sees it: a process, or what stands for one.
type member struct {
	r      *rig
	name   string
	orders *lineWriter
	closer io.Closer // of the orders
	ended  chan struct{}
	kills  func() // ends it at once
	wait   func() // until its process is gone
	once   sync.Once

	// The fields below are guarded by the book's mu.
	answer   func(s *said) order // what a delivery gets; Do "" = it is held
	held     map[int]said        // what waits for an order
	isOpen   bool
	over     bool  // it has ended
	clean    bool  // in good order
	stopping bool  // it was told to
	last     int64 // when it said the last line
	killed   int64 // when it was killed; 0 = it was not
}

// member starts a consumer, and returns when its source is open. answer says what its deliveries
// get; it is called with the book's mu held.
func (r *rig) member(name string, s setup, answer func(*said) order) *member {
	r.t.Helper()
	m := &member{r: r, name: name, ended: make(chan struct{}), held: map[int]said{},
		answer: answer}
	if s.Concurrency == 0 {
		s.Concurrency = 8
	}
	if s.StopGrace == 0 {
		s.StopGrace = -1 // deliver.NoGrace
	}
	var out io.ReadCloser
	if r.bed.Kill != nil {
		s.SettleTimeout = time.Second
		out = m.startHere(s)
	} else {
		out = m.startProcess(s)
	}
	r.reading.Go(func() { // ends with the member
		defer close(m.ended)
		_ = eachLine(out, func(s said) { m.hear(s) })
		_ = out.Close()
		m.wait()
		r.book.end(m)
	})
	r.t.Cleanup(func() {
		m.end()
		<-m.ended
	})
	r.until(name+" opens the source "+r.bed.Source, func() bool { return m.isOpen })
	return m
}

// fastExit lets a process that was built with the race detector end without its pause of a second.
const fastExit = "GORACE=atexit_sleep_ms=0"

func (m *member) startProcess(s setup) io.ReadCloser {
	t := m.r.t
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(m.r.ctx), os.Args[0], "-test.run=^$")
	cmd.Dir = t.TempDir() // no two share a disk by chance
	cmd.Env = append(os.Environ(), fastExit, childHarness+"="+m.r.h.Name,
		childAddress+"="+m.r.bed.Source, childSetup+"="+string(text))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	m.orders, m.closer = &lineWriter{w: in}, in
	m.kills = func() { _ = cmd.Process.Kill() }
	m.wait = func() {
		err := cmd.Wait()
		if m.r.book.is(func() bool { return m.killed == 0 }) && err != nil {
			m.r.book.complain(fmt.Sprintf("%s ended: %v\n%s", m.name, err, complaints.Bytes()))
		}
	}
	return read
}

// startHere runs the consumer in this process, for places that are in its memory.
func (m *member) startHere(s setup) io.ReadCloser {
	t := m.r.t
	src, err := m.r.h.OpenSource(m.r.ctx, m.r.bed.Source)
	if err != nil {
		t.Fatalf("open the source: %v", err)
	}
	inRead, in := io.Pipe()
	out, outWrite := io.Pipe()
	c := newConsumer(src, m.r.h.Undo, outWrite)
	m.orders, m.closer = &lineWriter{w: in}, in
	m.wait = func() {}
	m.kills = sync.OnceFunc(func() {
		m.r.bed.Kill(src)
		close(c.gone)
		_ = outWrite.Close()
		_ = inRead.Close()
	})
	c.die = func() { m.r.reading.Go(m.kills) }
	m.r.reading.Go(func() { // ends with the consumer
		_ = c.run(context.WithoutCancel(m.r.ctx), s, inRead)
		_ = outWrite.Close()
	})
	return out
}

// hear takes in a line and answers it.
func (m *member) hear(s said) {
	b := m.r.book
	b.mu.Lock()
	m.last = max(m.last, s.At) // two lines may overtake each other
	b.events = append(b.events, event{said: s, by: m})
	var o order
	switch s.Kind {
	case saysOpen:
		m.isOpen = true
		b.compare(s.Features, m.r.h.Source)
	case saysGot:
		if m.answer != nil {
			o = m.answer(&s)
		}
		if o.Do == doHold {
			m.held[s.N] = s
		}
		b.note(m, &s, o)
	case saysDead:
		b.dead[s.ID] = true
		o.Do = doAck
	case saysInterrupted:
		delete(m.held, s.N)
	case saysSettled, saysSwallowed:
		b.settled(&s)
	case saysRefused:
		b.late[s.ID] = b.late[s.ID] || s.Lost && s.Outcome == doAck
	case saysDies:
		m.killed = s.At
	case saysFailed:
		b.faults = append(b.faults, fmt.Sprintf("%s: %s", m.name, s.Reason))
	case saysEnded:
		m.clean = true
	}
	b.wake()
	b.mu.Unlock()
	if s.N != 0 && o.Do != doHold {
		m.order(order{N: s.N, Do: o.Do, Delay: o.Delay})
	}
	if s.Kind == saysEnded || s.Kind == saysFailed {
		m.hangUp()
	}
}

// order sends one; a member that is gone does not hear it.
func (m *member) order(o order) { _ = m.orders.write(o) }

func (m *member) hangUp() { m.once.Do(func() { _ = m.closer.Close() }) }

// end ends it, whatever it does.
func (m *member) end() {
	m.r.book.locked(func() {
		if m.killed == 0 && !m.over {
			m.killed = time.Now().UnixNano()
		}
	})
	m.kills()
	m.hangUp()
}

// kill ends the process while it holds a delivery: without one the kill would show nothing.
func (m *member) kill() {
	m.r.t.Helper()
	m.holds(1)
	m.killNow()
}

// holds waits until it holds so many deliveries.
func (m *member) holds(n int) {
	m.r.t.Helper()
	m.r.until(fmt.Sprintf("%s holds %d deliveries", m.name, n), func() bool {
		return len(m.held) >= n
	})
}

func (m *member) killNow() {
	m.r.book.locked(func() { m.killed = time.Now().UnixNano() })
	m.kills()
	m.hangUp()
	<-m.ended
}

// stop ends it in good order, and waits.
func (m *member) stop() {
	m.r.t.Helper()
	m.r.book.stops(m)
	m.order(order{Do: doStop})
	m.r.until(m.name+" stops", func() bool { return m.over })
	if !m.r.book.is(func() bool { return m.clean }) {
		m.r.t.Fatal(m.name + " did not stop in good order" + m.r.book.tell())
	}
}

// answers changes what the next deliveries get, and gives it to those that are held.
func (m *member) answers(answer func(*said) order) {
	var now []order
	m.r.book.locked(func() {
		m.answer = answer
		for n, s := range m.held {
			o := answer(&s)
			if o.Do == doHold {
				continue
			}
			delete(m.held, n)
			m.r.book.note(m, &s, o)
			now = append(now, order{N: n, Do: o.Do, Delay: o.Delay})
		}
	})
	for _, o := range now {
		m.order(o)
	}
}

// ackAll acks everything.
func ackAll(*said) order { return order{Do: doAck} }

// holdAll holds everything.
func holdAll(*said) order { return order{} }

// ackThenHold acks so many deliveries and holds the next ones.
func ackThenHold(n int) func(*said) order {
	return func(*said) order {
		if n--; n >= 0 {
			return order{Do: doAck}
		}
		return order{}
	}
}

// ackSome acks n deliveries, and what comes again of them because its lease was over, and holds the
// rest.
func (r *rig) ackSome(n int) func(*said) order {
	first := ackThenHold(n)
	return func(s *said) order {
		if r.book.late[s.ID] {
			return order{Do: doAck}
		}
		return first(s)
	}
}
