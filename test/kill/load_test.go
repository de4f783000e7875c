package kill

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pair is a publisher and a consumer on one directory, under load.
type pair struct {
	*world
	rng      *rand.Rand
	lines    []input // of this round
	batch    int     // of publish
	window   int     // how far the input may run ahead of the handler; 0 = it does not wait
	syncAcks bool
	conc     int // of consume

	bodyBytes int // what each line is filled up with

	publisher, consumer *process
}

// newPair draws the circumstances of a round.
func newPair(w *world, rng *rand.Rand) *pair {
	p := &pair{world: w, rng: rng, batch: 256, syncAcks: rng.IntN(2) == 0,
		conc: 1 + rng.IntN(24)}
	n := 200 + rng.IntN(1800)
	switch rng.IntN(3) {
	case 0:
		p.batch, n = 1+rng.IntN(8), 200+rng.IntN(400)
	case 1:
		p.window = 20 + rng.IntN(200)
	}
	p.lines = w.add(n, 1+rng.IntN(40))
	return p
}

func (p *pair) String() string {
	return fmt.Sprintf("%d messages, batch %d, window %d, concurrency %d, sync-acks %t",
		len(p.lines), p.batch, p.window, p.conc, p.syncAcks)
}

// note remembers what was done, for the report of a fault.
func (p *pair) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf("%d ", time.Now().UnixNano())+
		fmt.Sprintf(format, args...))
}

// startPublisher starts publish with all lines of the round whose ID was not printed yet.
func (p *pair) startPublisher(t *testing.T) {
	t.Helper()
	have := texts(p.pub)
	var left []input
	for _, m := range p.lines {
		if _, ok := have[m.ID]; !ok {
			left = append(left, m)
		}
	}
	c := prepare(t, nil, "publish", "--dir", p.dir, "--create", "--print-ids", "--id-field", "id",
		"--key-field", "key", "--batch", strconv.Itoa(p.batch), topic, "-")
	c.out = p.pub
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.launch(t)
	p.note("publisher %d started with %d lines", c.cmd.Process.Pid, len(left))
	go func() { // ends with the process
		c.readLines()
		c.end()
	}()
	go p.feed(c, in, left) // ends with the process
	p.publisher = c
}

// feed writes lines to a publisher. With a window, it waits for the handler in between.
func (p *pair) feed(c *process, in io.WriteCloser, lines []input) {
	defer in.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	before := len(p.inputs) - len(lines) // those that need not be given again
	for i, m := range lines {
		for p.window > 0 {
			if done, _ := p.journal.count(); before+i-done < p.window {
				break
			}
			select {
			case <-tick.C:
			case <-c.done:
				return
			}
		}
		if _, err := io.WriteString(in, bodied(m, p.bodyBytes)); err != nil {
			return // the process has ended
		}
	}
}

// startConsumer starts consume with this test binary as its handler process.
func (p *pair) startConsumer(t *testing.T, more ...string) {
	t.Helper()
	args := []string{"consume", "--dir", p.dir, "--create", "--ordered", "--lease", "2s",
		"--print-acks", "--max-crashes", "1000", "--backoff", "5ms", "--pipe", self(t),
		"--concurrency", strconv.Itoa(p.conc)}
	if p.syncAcks {
		args = append(args, "--sync-acks")
	}
	args = append(append(args, more...), pipeline)
	p.consumer = start(t, p.ack, p.handlerEnv(), args...)
	p.note("consumer %d started", p.consumer.cmd.Process.Pid)
}

// start starts both, in a random order.
func (p *pair) start(t *testing.T) {
	t.Helper()
	if p.rng.IntN(2) == 0 {
		p.startPublisher(t)
		p.startConsumer(t)
		return
	}
	p.startConsumer(t)
	p.startPublisher(t)
}

// owner returns which of the two owns the directory; nil = neither, at this moment.
func (p *pair) owner() *process {
	pid := ownerOf(p.dir)
	for _, c := range []*process{p.publisher, p.consumer} {
		if c.cmd.Process.Pid == pid && c.alive() {
			return c
		}
	}
	return nil
}

// ownerOf returns the process that the lock file names and that serves the directory; 0 = nobody.
func ownerOf(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "LOCK"))
	var info struct {
		PID    int
		Socket string
	}
	if err != nil || json.Unmarshal(b, &info) != nil || info.Socket == "" {
		return 0
	}
	return info.PID
}

// unpublished is how many IDs are not printed as published.
func (p *pair) unpublished() int { return len(p.inputs) - len(texts(p.pub)) }

// undone is how many messages the handler has not done. (Acks do not tell: a kill may fall between
// an ack and its print.)
func (p *pair) undone() int {
	done, _ := p.journal.count()
	return len(p.inputs) - done
}

// finish lets publish end by itself, stops consume softly, and lets another one do the rest.
func (p *pair) finish(t *testing.T) {
	t.Helper()
	p.publisher.wantExit(t, 0)
	if n := p.unpublished(); n > 0 {
		t.Fatalf("publish ended well, but %d IDs are not printed; it said:\n%s", n,
			p.publisher.said())
	}
	until(t, "the consumer works, or ends", func() bool {
		return p.undone() == 0 || p.consumer.prints() || !p.consumer.alive()
	})
	p.note("consumer %d asked to stop", p.consumer.cmd.Process.Pid)
	if p.consumer.prints() {
		p.consumer.signal(syscall.SIGINT)
		p.consumer.wantExit(t, 0)
	} else { // it may not listen to signals yet
		p.consumer.kill(t)
	}
	p.startConsumer(t, "--until-empty")
	p.consumer.wantExit(t, 0)
}

// inFlight counts what of this round the handler was given and no ack was printed of.
func (p *pair) inFlight(t *testing.T) int {
	t.Helper()
	acks, open := texts(p.ack), map[string]bool{}
	for _, m := range p.lines {
		_, acked := acks[m.ID]
		open[m.ID] = !acked
	}
	n := 0
	for _, h := range p.handled(t) {
		if open[h.ID] {
			open[h.ID] = false
			n++
		}
	}
	return n
}

// spread is a list of measured times.
type spread []time.Duration

func (s spread) String() string {
	if len(s) == 0 {
		return "none"
	}
	slices.Sort(s)
	var b strings.Builder
	for _, q := range []struct {
		name string
		at   int
	}{{"min", 0}, {"median", len(s) / 2}, {"p90", len(s) * 9 / 10}, {"max", len(s) - 1}} {
		fmt.Fprintf(&b, "%s %s, ", q.name, s[q.at].Round(100*time.Microsecond))
	}
	return fmt.Sprintf("%sof %d", b.String(), len(s))
}
