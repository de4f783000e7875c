package kill

import (
	"bufio"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lines are the input lines of messages.
func lines(all []input) string {
	var b strings.Builder
	for _, m := range all {
		b.WriteString(m.line())
	}
	return b.String()
}

// publishArgs are the arguments of a publish of the test's lines.
func (w *world) publishArgs(more ...string) []string {
	return append([]string{"publish", "--dir", w.dir, "--create", "--id-field", "id", "--key-field",
		"key", "--print-ids"}, append(more, topic)...)
}

// publish publishes messages and notes what was printed.
func (w *world) publish(t *testing.T, all []input) {
	t.Helper()
	p := prepare(t, nil, w.publishArgs()...)
	p.out = w.pub
	p.cmd.Stdin = strings.NewReader(lines(all))
	p.launch(t)
	go func() { // ends with the process
		p.readLines()
		p.end()
	}()
	p.wantExit(t, 0)
}

// drain consumes what is there.
func (w *world) drain(t *testing.T) {
	t.Helper()
	p := start(t, w.ack, w.handlerEnv(), "consume", "--dir", w.dir, "--create",
		"--ordered", "--until-empty", "--print-acks", "--backoff", "5ms", "--pipe", self(t),
		pipeline)
	p.wantExit(t, 0)
}

// cutOff runs the command with an output whose reader takes one line and goes, and returns it.
func cutOff(t *testing.T, p *process) string {
	t.Helper()
	p.launch(t)
	line, err := bufio.NewReader(p.stdout).ReadString('\n')
	if err != nil {
		t.Errorf("%s printed no line: %v", p.name, err)
	}
	p.stdout.Close()
	go p.end() // ends with the process
	return strings.TrimSuffix(line, "\n")
}

// gate is an empty part of an input that comes once it is closed.
type gate chan struct{}

// Read waits.
func (g gate) Read([]byte) (int, error) {
	<-g
	return 0, io.EOF
}

// wantSaid fails the test where a process did not say a word of these.
func (p *process) wantSaid(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(p.said(), w) {
			t.Errorf("%s did not say %q, but:\n%s", p.name, w, p.said())
		}
	}
}

// TestReaderGone lets whoever reads the output go after a line, as "| head -1" does. The command
// says so and ends with 1; what was published or handled stays, all else is still there.
func TestReaderGone(t *testing.T) {
	t.Parallel()
	t.Run("publish", func(t *testing.T) {
		w := newWorld(t)
		all := w.add(5000, 10)
		p := prepare(t, nil, w.publishArgs("--batch", "16")...)
		gone := make(gate) // more is to be printed once the reader has gone
		p.cmd.Stdin = io.MultiReader(strings.NewReader(lines(all[:2500])), gone,
			strings.NewReader(lines(all[2500:])))
		first := cutOff(t, p)
		close(gone)
		p.wantExit(t, 1)
		p.wantSaid(t, "broken pipe")
		if first != all[0].ID {
			t.Errorf("the first line is %q, want %q", first, all[0].ID)
		}
		w.publish(t, all) // again, from the start
		w.drain(t)
		w.judge(t)
	})
	t.Run("consume with a handler", func(t *testing.T) {
		w := newWorld(t)
		w.publish(t, w.add(1000, 10))
		p := prepare(t, w.handlerEnv(), "consume", "--dir", w.dir, "--create",
			"--ordered", "--print-acks", "--pipe", self(t), pipeline)
		first := cutOff(t, p)
		p.wantExit(t, 1)
		p.wantSaid(t, "broken pipe")
		if n := len(w.handled(t)); n == 0 || n == 1000 {
			t.Fatalf("%d handled when the reader went; the test needs some", n)
		}
		before := len(w.handled(t))
		w.drain(t)
		for _, h := range w.handled(t)[before:] {
			if h.ID == first {
				t.Errorf("%s came back after its ack was printed", first)
			}
		}
		w.judge(t)
	})
	t.Run("consume without a handler", func(t *testing.T) {
		w := newWorld(t)
		w.publish(t, w.add(1000, 10))
		p := prepare(t, nil, "consume", "--dir", w.dir, "--create", "--ordered", pipeline)
		got := map[string]int{deliveredID(t, cutOff(t, p)): 1}
		p.wantExit(t, 1)
		p.wantSaid(t, "broken pipe")
		if b := audit(t, w.dir); b.Acked >= 1000 {
			t.Fatal("all was acked before the reader went")
		}
		out, _ := run(t, "", 0, "consume", "--dir", w.dir, "--until-empty", pipeline)
		for line := range strings.Lines(out) {
			got[deliveredID(t, line)]++
		}
		// What the pipe had taken when its reader went was written and is acked.
		if b := audit(t, w.dir); !b.Balanced || b.Acked != 1000 || len(got) < 100 {
			t.Errorf("%d IDs were printed; the books: %+v", len(got), b)
		}
	})
}

func deliveredID(t *testing.T, line string) string {
	t.Helper()
	var d handed
	if err := json.Unmarshal([]byte(line), &d); err != nil || d.ID == "" {
		t.Fatalf("no delivery (%v): %q", err, line)
	}
	return d.ID
}

// TestOutputFull runs consume with a standard output that takes nothing: it says so and ends with
// 1. With none at all it goes on: the system then puts /dev/null in its place.
func TestOutputFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, w.add(1000, 10))
	consume := func(redirect string, code int) *process {
		p := prepare(t, w.handlerEnv(), "consume")
		p.cmd.Path, p.cmd.Args = "/bin/sh", []string{"sh", "-c", `exec "$0" "$@" ` + redirect,
			binary, "consume", "--dir", w.dir, "--create", "--ordered", "--until-empty",
			"--backoff", "5ms", "--print-acks", "--pipe", self(t), pipeline}
		p.cmd.Stdout = os.Stderr
		p.launch(t)
		go p.end() // ends with the process
		p.wantExit(t, code)
		return p
	}
	if exists("/dev/full") {
		consume(">/dev/full", 1).wantSaid(t, "standard output", "no space left")
		if n := len(w.handled(t)); n == 0 || n >= 1000 {
			t.Errorf("%d handled by a consumer that cannot print", n)
		}
	}
	consume(">&-", 0)
	w.judge(t)
}

// TestLongPath uses a directory whose path is too long for a socket, from two processes, and kills
// the owner.
func TestLongPath(t *testing.T) {
	w := newWorld(t)
	w.dir = filepath.Join(filepath.Dir(w.dir), strings.Repeat("long/", 30), "store")
	if err := os.MkdirAll(filepath.Dir(w.dir), 0o700); err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("/tmp", "s") //nolint:usetesting // a short path is what it needs
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	t.Setenv("XDG_RUNTIME_DIR", sockets)
	p := &pair{world: w, batch: 16, conc: 8, window: 50}
	p.lines = w.add(1000, 10)
	p.startPublisher(t)
	p.startConsumer(t)
	until(t, "acks are printed", func() bool { return p.ack.count() > 200 })
	var owner *process
	until(t, "there is an owner", func() bool {
		owner = p.owner()
		return owner != nil
	})
	if found, err := os.ReadDir(sockets); err != nil || len(found) == 0 {
		t.Errorf("no socket in the runtime directory: %v %v", found, err)
	}
	if !owner.kill(t) || p.undone() == 0 {
		t.Fatal("the owner was not killed at work")
	}
	p.rng = rand.New(rand.NewPCG(*seed, 0))
	p.revive(t)
	p.finish(t)
	p.judge(t)
}
