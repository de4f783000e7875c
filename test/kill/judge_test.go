package kill

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// pipeline is what the tests publish to and consume.
const (
	topic    = "orders"
	pipeline = topic + "/billing"
)

// input is one message of the test's own list.
type input struct {
	ID  string `json:"id"`
	Key string `json:"key"`
	N   int    `json:"n"` // its number within the key, from 0 on

	Filling string `json:"filling,omitempty"`
}

func (i input) line() string {
	b, err := json.Marshal(i)
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

// bodied is a message's line with so many bytes more.
func bodied(m input, more int) string {
	m.Filling = strings.Repeat("x", more)
	return m.line()
}

// world is a directory and what the test knows of it: its own lists, across rounds.
type world struct {
	dir     string   // of the store
	file    string   // where the handler processes write
	journal *journal // of that file
	pub     *record
	ack     *record
	inputs  []input
	byID    map[string]input
	nextOf  map[string]int // the next number of a key
	notes   []string       // what was done to the processes, and when
	faults  int            // found by judge
}

func newWorld(t *testing.T) *world {
	t.Helper()
	base := t.TempDir()
	file := filepath.Join(base, "handled")
	return &world{dir: filepath.Join(base, "store"), file: file,
		journal: &journal{path: file, done: map[string]int{}}, pub: newRecord(),
		ack: newRecord(), byID: map[string]input{}, nextOf: map[string]int{}}
}

// handlerEnv makes this test binary the handler process of the directory. Built with the race
// detector, it would otherwise take a second to end.
func (w *world) handlerEnv() []string {
	return []string{handlerVar + "=" + w.file, "GORACE=atexit_sleep_ms=0"}
}

// add appends n messages over some keys to the lists and returns them.
func (w *world) add(n, keys int) []input {
	fresh := make([]input, 0, n)
	for range n {
		key := fmt.Sprintf("k%d", len(w.inputs)%keys)
		m := input{ID: fmt.Sprintf("m-%d", len(w.inputs)), Key: key, N: w.nextOf[key]}
		w.nextOf[key]++
		w.inputs = append(w.inputs, m)
		w.byID[m.ID] = m
		fresh = append(fresh, m)
	}
	return fresh
}

// handled reads what the handler processes wrote.
func (w *world) handled(t *testing.T) []handling {
	t.Helper()
	all, err := w.journal.read()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// texts is the set of the printed lines.
func texts(r *record) map[string]printed {
	lines, _ := r.read()
	set := make(map[string]printed, len(lines))
	for _, l := range lines {
		if _, again := set[l.text]; !again {
			set[l.text] = l
		}
	}
	return set
}

// judge compares the test's lists with each other and with the books.
func (w *world) judge(t *testing.T) {
	t.Helper()
	handled := w.handled(t)
	w.judgePrinted(t, handled)
	w.judgeOrder(t, handled)
	w.judgeBooks(t)
}

// found is what is wrong with a message.
type found struct{ id, what string }

const (
	// lostMessage and lostAck are what only a machine that loses what it said can show.
	lostMessage = "was printed as published and never handled"
	lostAck     = "came back after its ack was printed"
)

// judgePrinted checks what was printed against what the handler did.
func (w *world) judgePrinted(t *testing.T, handled []handling) {
	t.Helper()
	for _, f := range w.compare(handled) {
		w.fault(t, f.id, f.what)
	}
	for id := range texts(w.pub) {
		if _, ok := w.byID[id]; !ok {
			t.Errorf("publish printed %q, which nobody published", id)
		}
	}
}

// compare compares what was printed with what the handler did.
func (w *world) compare(handled []handling) []found {
	var all []found
	add := func(id, what string) { all = append(all, found{id, what}) }
	done, times := map[string]bool{}, map[string]int{}
	acks := texts(w.ack)
	for _, h := range handled {
		times[h.ID]++
		done[h.ID] = done[h.ID] || h.Outcome == "done"
		if a, ok := acks[h.ID]; ok && h.At > a.at.UnixNano() {
			add(h.ID, lostAck)
		}
	}
	for id := range texts(w.pub) {
		if !done[id] {
			add(id, lostMessage)
		}
	}
	for _, m := range w.inputs {
		if times[m.ID] == 0 {
			add(m.ID, "was never handed to the handler")
		}
	}
	once := map[string]bool{}
	lines, _ := w.ack.read()
	for _, l := range lines {
		if once[l.text] {
			add(l.text, "was printed as acked twice")
		}
		if once[l.text] = true; !done[l.text] {
			add(l.text, "was printed as acked and never handled")
		}
	}
	return all
}

// judgeOrder checks that no key ever went on without a message: what is handled is at most the one
// after the last that was done. Repeats are legal.
func (w *world) judgeOrder(t *testing.T, handled []handling) {
	t.Helper()
	next := map[string]int{}
	for _, h := range handled {
		m, ok := w.byID[h.ID]
		if !ok {
			t.Errorf("the handler got %q, which nobody published", h.ID)
			continue
		}
		if m.N > next[m.Key] {
			w.fault(t, h.ID, fmt.Sprintf("was handled as number %d of its key, before number %d "+
				"was done", m.N, next[m.Key]))
		}
		if h.Outcome == "done" {
			next[m.Key] = max(next[m.Key], m.N+1)
		}
	}
}

// books is what audit says of a subscription.
type books struct {
	Accepted, Acked, Ready, Delayed, Parked, Dead, Dropped int
	InFlight                                               int `json:"in_flight"`
	Balanced                                               bool
	Causes                                                 map[string]int
	Crashes                                                int
}

func auditAll(t *testing.T, dir string) []books {
	t.Helper()
	out, _ := run(t, "", 0, "audit", "--dir", dir, "--json")
	var all []books
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("audit: %v in %s", err, out)
	}
	return all
}

// audit returns the books of the only subscription.
func audit(t *testing.T, dir string) books {
	t.Helper()
	all := auditAll(t, dir)
	if len(all) != 1 {
		t.Fatalf("books of %d subscriptions, want 1", len(all))
	}
	return all[0]
}

// judgeBooks checks that the engine's own figures are those of the test's lists.
func (w *world) judgeBooks(t *testing.T) {
	t.Helper()
	b := audit(t, w.dir)
	n := len(w.inputs)
	left := b.Ready + b.Delayed + b.InFlight + b.Parked + b.Dead + b.Dropped
	if !b.Balanced || b.Accepted != n || b.Acked != n || left != 0 {
		t.Errorf("the books of %d published and handled messages: %+v", n, b)
	}
	run(t, "", 0, "verify", "--dir", w.dir)
}

// maxFaults is how many faults of one kind are told one by one.
const maxFaults = 5

// fault reports what went wrong with a message, with everything the test knows of it.
func (w *world) fault(t *testing.T, id, what string) {
	t.Helper()
	if w.faults++; w.faults > maxFaults {
		t.Fail()
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", id, what)
	for name, r := range map[string]*record{"published": w.pub, "acked": w.ack} {
		lines, _ := r.read()
		for _, l := range lines {
			if l.text == id {
				fmt.Fprintf(&b, "  %s printed by %d at %d\n", name, l.by.cmd.Process.Pid,
					l.at.UnixNano())
			}
		}
	}
	for _, h := range w.handled(t) {
		if h.ID == id {
			fmt.Fprintf(&b, "  handled %+v\n", h)
		}
	}
	for _, n := range w.notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	t.Error(b.String())
}
