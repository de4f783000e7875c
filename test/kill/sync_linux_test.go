package kill

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// syncs are the calls of the kernel that make data durable.
const syncs = "fsync,fdatasync"

// trace has strace do something to the syncs of a process that is not started yet, as its option
// inject says, and returns strace's own log. The process stays our child; strace is its grandchild.
func (p *process) trace(t *testing.T, inject string) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "strace")
	args := []string{"strace", "-D", "-f", "-qq", "-o", log, "-e", "trace=" + syncs, "-e",
		"inject=" + syncs + ":" + inject}
	p.cmd.Args = append(args, append([]string{p.cmd.Path}, p.cmd.Args[1:]...)...)
	p.cmd.Path = path
	return log
}

// struck counts the calls to which strace did something.
func struck(t *testing.T, log string) int {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, word := range []string{"(INJECTED)", "(DELAYED)", "killed by SIGKILL"} {
		n += bytes.Count(b, []byte(word))
	}
	return n
}

// traced starts a publisher under strace, as the owner of the directory, with lines of this round.
func (p *pair) traced(t *testing.T, inject string) (log string) {
	t.Helper()
	c := prepare(t, nil, p.publishArgs("--batch", strconv.Itoa(p.batch))...)
	c.out = p.pub
	c.cmd.Stdin = bytes.NewReader([]byte(lines(p.lines)))
	log = c.trace(t, inject)
	c.launch(t)
	go func() { // ends with the process
		c.readLines()
		c.end()
	}()
	p.publisher = c
	return log
}

// TestSyncFails fails the n-th sync of each thread of the owner, with what disks and file systems
// fail with. The owner says so and opens the store from the disk again; what was printed holds also
// when the plug is pulled afterwards.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	needs(t, tracing)
	cases := map[string][]string{"EIO": {"3", "9"}}
	if long() {
		cases = map[string][]string{
			"EIO":    {"1", "2", "3", "4", "5", "6", "8", "9", "12", "16", "24"},
			"ENOSPC": {"3", "7", "12"},
			"EDQUOT": {"3", "7", "12"},
		}
	}
	for errno, whens := range cases {
		for _, when := range whens {
			t.Run(errno+" at "+when, func(t *testing.T) {
				t.Parallel()
				syncFails(t, errno, when)
			})
		}
	}
}

func syncFails(t *testing.T, errno, when string) {
	w, d := newWorld(t), newDisk(t, 256<<20)
	w.dir = filepath.Join(d.dir, "store")
	w.publish(t, w.add(10, 10)) // so that the directory and the topic are there
	p := &pair{world: w, batch: 16, conc: 8, syncAcks: true}
	p.lines = w.add(1000, 10)
	log := p.traced(t, "error="+errno+":when="+when)
	until(t, "syncs have failed, or the publisher ends", func() bool {
		told := strings.Contains(p.publisher.said(), wordsOf(errno))
		return p.pub.count() > 500 && told || !p.publisher.alive()
	})
	alive := p.publisher.alive()
	w.cut(t, d, func() { p.publisher.kill(t) })
	n := struck(t, log)
	if n == 0 {
		t.Fatalf("no sync failed; publish printed %d IDs", p.pub.count())
	}
	p.publisher.wantSaid(t, "sync", wordsOf(errno))
	t.Logf("%d syncs failed, %d of %d IDs printed before the plug, publish went on: %t", n,
		p.pub.count(), len(w.inputs), alive)
	d.plugIn(t)
	p.startPublisher(t)
	p.publisher.wantExit(t, 0)
	w.drain(t)
	w.judge(t)
}

// wordsOf is how an error of the kernel is told.
func wordsOf(errno string) string {
	return map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC,
		"EDQUOT": syscall.EDQUOT}[errno].Error()
}

// TestSyncAlwaysFails fails every sync from the n-th of each thread on. Publish ends with 1 and
// says why; what it printed is there.
func TestSyncAlwaysFails(t *testing.T) {
	t.Parallel()
	needs(t, tracing)
	whens := []string{"1+"}
	if long() {
		whens = []string{"1+", "2+", "5+"}
	}
	for _, when := range whens {
		t.Run("from "+when, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := &pair{world: w, batch: 16, conc: 8}
			p.lines = w.add(1000, 10)
			log := p.traced(t, "error=EIO:when="+when)
			p.publisher.wantExit(t, 1)
			p.publisher.wantSaid(t, "input/output error")
			if n := struck(t, log); n == 0 || w.pub.count() == len(p.lines) {
				t.Errorf("%d syncs failed, %d IDs printed", n, w.pub.count())
			}
			p.startPublisher(t)
			p.publisher.wantExit(t, 0)
			w.drain(t)
			w.judge(t)
		})
	}
}

// TestConsumerSyncFails fails syncs of a consumer that owns the directory and lets its acks wait
// for the disk.
func TestConsumerSyncFails(t *testing.T) {
	t.Parallel()
	needs(t, tracing)
	whens := []string{"4"}
	if long() {
		whens = []string{"1", "2", "3", "4", "6", "9", "13"}
	}
	for _, when := range whens {
		t.Run("at "+when, func(t *testing.T) {
			t.Parallel()
			w, d := newWorld(t), newDisk(t, 256<<20)
			w.dir = filepath.Join(d.dir, "store")
			w.publish(t, w.add(600, 10))
			c := prepare(t, w.handlerEnv(), "consume", "--dir", w.dir, "--create", "--ordered",
				"--print-acks", "--sync-acks", "--backoff", "5ms", "--pipe", self(t), pipeline)
			c.out = w.ack
			log := c.trace(t, "error=EIO:when="+when)
			c.launch(t)
			go func() { // ends with the process
				c.readLines()
				c.end()
			}()
			until(t, "syncs have failed, or the consumer ends", func() bool {
				told := strings.Contains(c.said(), "input/output error")
				return w.ack.count() > 200 && told || !c.alive()
			})
			w.cut(t, d, func() { c.kill(t) })
			if struck(t, log) == 0 {
				t.Fatal("no sync failed")
			}
			c.wantSaid(t, "sync", "input/output error")
			t.Logf("%d syncs failed, %d acks printed before the plug", struck(t, log), w.ack.count())
			d.plugIn(t)
			w.drain(t)
			w.judge(t)
		})
	}
}

// TestDeathInSync has the kernel kill the owner inside a sync, while another process waits to take
// over.
func TestDeathInSync(t *testing.T) {
	t.Parallel()
	needs(t, tracing)
	whens := []string{"4"}
	if long() {
		whens = []string{"1", "2", "3", "4", "5", "6", "8", "11", "15"}
	}
	for _, when := range whens {
		t.Run("at "+when, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := &pair{world: w, batch: 16, conc: 8, syncAcks: true}
			p.lines = w.add(1000, 10)
			log := p.traced(t, "signal=KILL:when="+when)
			until(t, "the publisher prints, or ends", func() bool {
				return p.publisher.prints() || !p.publisher.alive()
			})
			p.startConsumer(t)
			p.publisher.wait(t)
			if !p.publisher.wasKilled(t) || struck(t, log) == 0 {
				t.Fatalf("the publisher was not killed in a sync; it said:\n%s", p.publisher.said())
			}
			t.Logf("killed after %d IDs were printed", w.pub.count())
			p.startPublisher(t)
			p.finish(t)
			p.judge(t)
		})
	}
}

// TestSlowSync makes each sync of the owner slow. Nothing is printed as published before a sync can
// have ended, other processes wait for it, and all is done in the end.
func TestSlowSync(t *testing.T) {
	t.Parallel()
	needs(t, tracing)
	const delay = 150 * time.Millisecond
	w := newWorld(t)
	w.publish(t, w.add(10, 10)) // so that the topic is there
	p := &pair{world: w, batch: 64, conc: 8, syncAcks: true}
	p.lines = w.add(300, 10)
	log := p.traced(t, fmt.Sprintf("delay_enter=%d:when=1+", delay.Microseconds()))
	until(t, "the publisher owns the directory", func() bool {
		return ownerOf(w.dir) == p.publisher.cmd.Process.Pid
	})
	p.startConsumer(t)
	p.finish(t)
	p.judge(t)
	printed, _ := w.pub.read()
	batches, last := 1, printed[10]
	for _, line := range printed[11:] {
		if line.at.Sub(last.at) > delay/2 {
			batches++
		}
		last = line
	}
	// Five batches, each of which waits for a sync of its own.
	if want := (len(p.lines) + p.batch - 1) / p.batch; batches < want-1 {
		t.Errorf("the IDs were printed in %d steps, want about %d: one a sync", batches, want)
	}
	t.Logf("%d syncs were slow, the IDs were printed in %d steps", struck(t, log), batches)
}
