package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
)

// pipeProcess is one life of a PipeHandler's process.
type pipeProcess struct {
	o          Options
	child      *child
	stdin      *os.File
	tail       *tail
	waitStderr func()
	stdout     *os.File
	wg         sync.WaitGroup // reader and writer
	wake       chan struct{}  // there is something to write, or nothing more will be

	mu       sync.Mutex // guards the fields below
	pending  map[ackwise.LeaseToken]chan error
	answered answers
	lines    [][]byte // to be written
	noMore   bool     // stdin ends after lines
	ended    bool
	why      error // what ended it, where that was us
	given    int
	answers  int
	nonsense int // reported lines
}

// maxNonsense is how many faults of one process are reported one by one.
const maxNonsense = 20

func (h *PipeHandler) start() (*pipeProcess, error) {
	var ends []*os.File
	pipe := func() (r, w *os.File, err error) {
		r, w, err = os.Pipe()
		if err == nil {
			ends = append(ends, r, w)
		}
		return r, w, err
	}
	inR, inW, err1 := pipe()
	outR, outW, err2 := pipe()
	errR, errW, err3 := pipe()
	err := errors.Join(err1, err2, err3)
	var c *child
	if err == nil {
		c, err = h.family.start(h.command, cleanEnviron(os.Environ()),
			stdio{in: inR, out: outW, err: errW})
	}
	if err != nil {
		for _, f := range ends {
			_ = f.Close()
		}
		return nil, fmt.Errorf("start handler process: %w", err)
	}
	_, _, _ = inR.Close(), outW.Close(), errW.Close()
	p := &pipeProcess{o: h.o, child: c, stdin: inW, stdout: outR, wake: make(chan struct{}, 1),
		pending: make(map[ackwise.LeaseToken]chan error), tail: &tail{pass: h.o.Stderr}}
	p.waitStderr = copyFrom(errR, p.tail)
	p.wg.Go(p.read)  // ends with the process
	p.wg.Go(p.write) // ends with the process, or when stdin is to end
	h.update(func() {
		h.starting = p
		if h.stopping {
			p.notice(Line{Stop: true})
		}
	})
	return p, nil
}

// give queues a delivery's line. The channel gets what its handler returns; nil = the process has
// ended.
func (p *pipeProcess) give(token ackwise.LeaseToken, line []byte) <-chan error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.noMore {
		return nil
	}
	answer := make(chan error, 1)
	p.pending[token] = answer
	p.given++
	p.queue(line)
	return answer
}

// forget gives up waiting for an answer and reports whether there was none yet.
func (p *pipeProcess) forget(token ackwise.LeaseToken, lost bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, waiting := p.pending[token]; !waiting {
		return false
	}
	delete(p.pending, token)
	p.answered.add(token, false)
	if lost {
		p.queueNotice(Line{Token: token, Lost: true})
	}
	return true
}

// settled queues the notice of a settlement's return.
func (p *pipeProcess) settled(token ackwise.LeaseToken, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.answered.awaits(token) {
		return
	}
	switch {
	case err == nil:
		p.answered.add(token, false)
		p.queueNotice(Line{Token: token, Settled: true})
	case errors.Is(err, ackwise.ErrLeaseLost):
		p.answered.add(token, false)
		p.queueNotice(Line{Token: token, Lost: true})
	}
}

func (p *pipeProcess) notice(l Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queueNotice(l)
}

func (p *pipeProcess) queueNotice(l Line) {
	if line, err := AppendLine(nil, l); err == nil {
		p.queue(line)
	}
}

// queue adds a line for the writer. p.mu is held.
func (p *pipeProcess) queue(line []byte) {
	if p.ended || p.noMore {
		return
	}
	if len(p.lines) >= p.o.MaxUnread {
		p.kill(fmt.Errorf("it left %d lines unread", len(p.lines)))
		return
	}
	p.lines = append(p.lines, line)
	p.wakeWriter()
}

func (p *pipeProcess) wakeWriter() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// kill ends the process for a fault of its own. p.mu is held.
func (p *pipeProcess) kill(why error) {
	if p.why == nil {
		p.why = why
	}
	p.child.signal(syscall.SIGKILL)
}

// write writes the queued lines and then closes stdin.
func (p *pipeProcess) write() {
	defer func() { _ = p.stdin.Close() }() // the process has ended, or will when it sees this
	for {
		p.mu.Lock()
		lines, over := p.lines, p.noMore || p.ended
		p.lines = nil
		p.mu.Unlock()
		for _, line := range lines {
			if err := p.writeLine(line); err != nil {
				p.writeFailed(err)
				return
			}
		}
		if len(lines) > 0 {
			continue
		}
		if over {
			return
		}
		select {
		case <-p.wake:
		case <-p.child.done:
			return
		}
	}
}

// writeLine writes a line in parts, so that a slow reader of a long line does not look stalled.
func (p *pipeProcess) writeLine(line []byte) error {
	const part = 32 << 10
	for len(line) > 0 {
		if err := p.stdin.SetWriteDeadline(time.Now().Add(p.o.Stall)); err != nil {
			return err
		}
		n, err := p.stdin.Write(line[:min(part, len(line))])
		if err != nil {
			return err
		}
		line = line[n:]
	}
	return nil
}

// writeFailed ends a process that cannot be given anything more.
func (p *pipeProcess) writeFailed(err error) {
	p.mu.Lock()
	p.noMore = true
	p.mu.Unlock()
	why := fmt.Errorf("write its standard input: %w", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		why = fmt.Errorf("it read nothing from its standard input for %s", p.o.Stall)
	} else if p.endsBy(p.o.Grace) {
		return // it closed its input because it was ending: it says why itself
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kill(why)
}

// endsBy waits for the process and reports whether it ended within d.
func (p *pipeProcess) endsBy(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.child.done:
		return true
	case <-t.C:
		return false
	}
}

// read reads answers until the process closes its output. One that does so and lives on cannot
// answer any more, and is killed.
func (p *pipeProcess) read() {
	r := NewLineReader(p.stdout, p.o.MaxLine)
	for {
		line, err := r.Next()
		if err != nil {
			break
		}
		if line.TooLong {
			p.report(line.Number, fmt.Errorf("longer than %d bytes", p.o.MaxLine))
			continue
		}
		a, err := ParseAnswer(line.Text)
		p.take(line.Number, a, err)
	}
	if !p.endsBy(p.o.Grace) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.kill(errors.New("it closed its standard output"))
	}
}

// take carries out an answer; fault is what is wrong with it.
func (p *pipeProcess) take(number int, a Answer, fault error) {
	p.mu.Lock()
	answer, waiting := p.pending[a.Token]
	known := p.answered.has(a.Token)
	if waiting {
		delete(p.pending, a.Token)
		p.answered.add(a.Token, true)
		p.answers++
	}
	p.mu.Unlock()
	switch {
	case waiting && fault == nil:
		answer <- a.Err()
	case waiting:
		fault = fmt.Errorf("the handler process's line %d: %w", number, fault)
		answer <- fault
		p.report(number, fault)
	case fault != nil:
		p.report(number, fault)
	case known:
		p.report(number, fmt.Errorf("token %.80q was answered before, or its lease was lost",
			a.Token))
	default:
		p.report(number, fmt.Errorf("unknown token %.80q", a.Token))
	}
}

// report reports a fault in a line of the process.
func (p *pipeProcess) report(number int, fault error) {
	p.mu.Lock()
	p.nonsense++
	n := p.nonsense
	p.mu.Unlock()
	switch {
	case n < maxNonsense:
		p.o.Report(fmt.Sprintf("handler process, line %d of its standard output: %v", number, fault))
	case n == maxNonsense:
		p.o.Report(fmt.Sprintf("handler process, line %d of its standard output: %v "+
			"(further faults of this process are not shown)", number, fault))
	}
}

// shutDown ends the process in good order.
func (p *pipeProcess) shutDown(grace time.Duration) {
	p.mu.Lock()
	p.noMore = true // what is queued is still written
	p.wakeWriter()
	p.mu.Unlock()
	if !p.endsBy(grace) {
		endChild(p.child, grace)
	}
}

// end is called when the process has ended. It takes the last answers, gives up what was not
// answered, and returns how it ended.
func (p *pipeProcess) end() error {
	_ = p.stdout.SetReadDeadline(time.Now().Add(drainTime))
	_ = p.stdin.SetWriteDeadline(time.Now())
	p.wg.Wait()
	_ = p.stdout.Close()
	p.waitStderr()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	err := p.child.err
	switch {
	case p.why != nil:
		err = p.why
	case err == nil:
		err = errors.New("exit status 0")
	}
	if line := p.tail.line(); line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	for token, answer := range p.pending {
		delete(p.pending, token)
		answer <- &LostError{err}
	}
	return err
}

// maxAnswers bounds how many answered tokens a process's answers remember.
const maxAnswers = 4096

// answers remembers the last tokens that need no answer any more. The zero value is empty.
type answers struct {
	tokens map[ackwise.LeaseToken]bool // whether its settlement is still awaited
	ring   []ackwise.LeaseToken
	next   int // the oldest place of a full ring
}

func (a *answers) has(t ackwise.LeaseToken) bool    { _, ok := a.tokens[t]; return ok }
func (a *answers) awaits(t ackwise.LeaseToken) bool { return a.tokens[t] }

func (a *answers) add(t ackwise.LeaseToken, awaited bool) {
	if a.tokens == nil {
		a.tokens = make(map[ackwise.LeaseToken]bool)
	}
	if !a.has(t) {
		if len(a.ring) < maxAnswers {
			a.ring = append(a.ring, t)
		} else {
			delete(a.tokens, a.ring[a.next])
			a.ring[a.next] = t
			a.next = (a.next + 1) % maxAnswers
		}
	}
	a.tokens[t] = awaited
}
