package orders

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// trace reads what a consumer has noted.
type trace struct {
	path    string
	at      int64
	in, did map[string]int // by flight
}

func newTrace(path string) *trace {
	return &trace{path: path, in: map[string]int{}, did: map[string]int{}}
}

// read reads the lines that are new.
func (tr *trace) read(t *testing.T) {
	t.Helper()
	f, err := os.Open(tr.path)
	if err != nil {
		return // it has not begun
	}
	text, err := io.ReadAll(io.NewSectionReader(f, tr.at, 1<<40))
	if err := cmp.Or(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	text = text[:strings.LastIndexByte(string(text), '\n')+1]
	tr.at += int64(len(text))
	for line := range strings.Lines(string(text)) {
		word, flight, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "in" {
			tr.in[flight]++
		} else {
			tr.did[flight]++
		}
	}
}

// hop is a place that all changes have to reach.
type hop struct {
	name                    string
	seen, lost, extra, more int // more = copies beyond the first
}

func judgeHop(name string, want map[string]bool, got map[string]int) hop {
	h := hop{name: name, seen: len(got)}
	for id, n := range got {
		h.more += n - 1
		if !want[id] {
			h.extra++
		}
	}
	for id := range want {
		if got[id] == 0 {
			h.lost++
		}
	}
	return h
}

// effect is what became of a consumer's state.
type effect struct {
	name  string
	wrong int
	what  string
}

// report is what a pass has shown.
type report struct {
	pass    *pass
	hops    []hop
	copies  map[string]int // at Nakadi, by reason
	ids     int            // distinct eids there
	effects []effect
	late    int // aircraft whose changes came out of order at Nakadi
	stale   int // aircraft whose last change to come there is not the newest
	items   int
}

// judge compares everything with what was written.
func judge(t *testing.T, p *pass) *report {
	t.Helper()
	want := map[string]bool{}
	for i := range p.flights {
		want[p.flights[i].ID] = true
	}
	r := &report{pass: p, copies: map[string]int{}}
	r.judgeNakadi(t, want)
	for _, kind := range kinds() {
		p.traces[kind].read(t)
		r.hops = append(r.hops, judgeHop("consumer "+kind, want, p.traces[kind].in))
	}
	r.effects = []effect{p.judgeUpsert(t), p.judgeDedup(t), p.judgeSequence(t)}
	return r
}

type storedEvent struct {
	EID   string          `json:"eid"`
	Event json.RawMessage `json:"event"`
}

// judgeNakadi counts what Nakadi has, why it has it more than once, and in which order it came.
func (r *report) judgeNakadi(t *testing.T, want map[string]bool) {
	t.Helper()
	var all struct{ Events []storedEvent }
	r.pass.nakadi.call(t, http.MethodGet, "/admin/events?type=orders.changed", nil, &all)
	passages := r.pass.toNakadi.passages()
	maps.Copy(passages, r.pass.requeue.passages())
	count, eids := map[string]int{}, map[string]string{}
	stored := map[string][]*passage{} // what stored the copies of an ID
	highest, late, stale := map[string]int64{}, map[string]bool{}, map[string]bool{}
	for _, e := range all.Events {
		o, err := readOrder(e.Event)
		var m struct {
			Metadata struct {
				Flow string `json:"flow_id"`
			} `json:"metadata"`
		}
		if err := cmp.Or(err, json.Unmarshal(e.Event, &m)); err != nil {
			t.Fatal(err)
		}
		if flight, ok := eids[e.EID]; ok && flight != o.Flight {
			t.Errorf("%s is the ID of %s and %s", e.EID, flight, o.Flight)
		}
		eids[e.EID] = o.Flight
		count[o.Flight]++
		now := passages[m.Metadata.Flow]
		if now == nil {
			t.Fatalf("no request stored %s", o.Flight)
		}
		if stored[e.EID] == nil && o.Seq < highest[o.ID] {
			late[o.ID] = true
		}
		stale[o.ID] = o.Seq < highest[o.ID]
		highest[o.ID] = max(highest[o.ID], o.Seq)
		stored[e.EID] = append(stored[e.EID], now)
	}
	for eid, list := range stored { // in the order in which they were sent
		slices.SortFunc(list, func(a, b *passage) int { return a.at.Compare(b.at) })
		for i := range list[1:] {
			r.copies[reason(list[i+1], list[i], eid)]++
		}
	}
	r.ids, r.late, r.items = len(eids), len(late), len(highest)
	for _, is := range stale {
		if is {
			r.stale++
		}
	}
	r.hops = append(r.hops, judgeHop("Nakadi", want, count))
}

// reason says why there is another copy: the requeue job sent it, or the relay did, because of what
// it had heard of the one before.
func reason(now, before *passage, eid string) string {
	switch {
	case strings.HasPrefix(now.flow, "requeue"):
		return "requeued"
	case before.fate == fatePartial && !before.failed[eid]:
		return "relay came again"
	case before.fate == fateAnswered:
		return "relay came again"
	}
	return string(before.fate)
}

func (p *pass) openEngine(t *testing.T, kind string) *queue.Store {
	t.Helper()
	s, err := queue.Open(filepath.Join(p.path(kind), "engine"), queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// judgeUpsert compares where each aircraft is with where its last flight took it.
func (p *pass) judgeUpsert(t *testing.T) effect {
	t.Helper()
	table, err := queuestore.OpenTable(p.openEngine(t, kindUpsert), "aircraft")
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]order{}
	for i := range p.flights {
		o := orderOf(&p.flights[i])
		last[o.ID] = o
	}
	e := effect{name: kindUpsert, what: fmt.Sprintf("%d places", len(last))}
	for id, o := range last {
		have, err := table.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if string(have.Data) != string(o.json()) {
			e.wrong++
			t.Logf("upsert: %s is %s, want %s", id, have.Data, o.json())
		}
	}
	return e
}

// judgeDedup compares the increments with the flights: each has one, and the sum is theirs.
func (p *pass) judgeDedup(t *testing.T) effect {
	t.Helper()
	lines, err := readLines(filepath.Join(p.path(kindDedup), "miles"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]int{}
	var sum, want int64
	for _, line := range lines {
		have[line]++
		var flight, carrier string
		var miles int64
		if _, err := fmt.Sscan(line, &flight, &carrier, &miles); err != nil {
			t.Fatalf("the line %q: %v", line, err)
		}
		sum += miles
	}
	e := effect{name: kindDedup}
	for i := range p.flights {
		f := &p.flights[i]
		want += f.Flown()
		if n := have[strings.TrimSpace(fmt.Sprintln(f.ID, f.Carrier, f.Flown()))]; n != 1 {
			e.wrong++
			t.Logf("dedup: %s was added %d times", f.ID, n)
		}
	}
	if sum != want {
		e.wrong++
	}
	e.what = fmt.Sprintf("%d increments, %d miles of %d", len(lines), sum, want)
	return e
}

// judgeSequence compares each aircraft's chain of flights with that of a clean run.
func (p *pass) judgeSequence(t *testing.T) effect {
	t.Helper()
	engine := p.openEngine(t, kindSequence)
	want := map[string]*legs{}
	for i := range p.flights {
		o := orderOf(&p.flights[i])
		if want[o.ID] == nil {
			want[o.ID] = &legs{}
		}
		want[o.ID].add(o.Flight, o.Seq)
	}
	e := effect{name: kindSequence}
	disorder := int64(0)
	for id, w := range want {
		entry, err := engine.Get(t.Context(), tableLegs, id)
		if err != nil {
			t.Fatal(err)
		}
		var l legs
		if entry.Value != nil {
			if err := json.Unmarshal(entry.Value, &l); err != nil {
				t.Fatal(err)
			}
		}
		disorder += l.Disorder
		if l != *w {
			e.wrong++
			t.Logf("sequence: %s is %+v, want %+v", id, l, *w)
		}
	}
	e.what = fmt.Sprintf("%d chains, %d steps out of order", len(want), disorder)
	return e
}

// check fails the test where anything is not as it has to be.
func (r *report) check(t *testing.T) {
	t.Helper()
	n := len(r.pass.flights)
	for _, h := range r.hops {
		if h.seen != n || h.lost != 0 || h.extra != 0 {
			t.Errorf("%s: %+v, want %d", h.name, h, n)
		}
	}
	for _, e := range r.effects {
		if e.wrong != 0 {
			t.Errorf("the effects of %s differ from a clean run's: %d wrong, %s", e.name, e.wrong, e.what)
		}
	}
	if r.ids != n {
		t.Errorf("%d IDs at Nakadi, want %d", r.ids, n)
	}
	if r.late == 0 {
		t.Error("no aircraft saw its changes out of order at Nakadi: nothing was repaired")
	}
}

// checkFaults fails the test where a system was not hit.
func checkFaults(t *testing.T, reports []*report) {
	t.Helper()
	hit, copies := map[string]int{}, map[string]int{}
	for _, r := range reports {
		for why, n := range r.copies {
			copies[why] += n
		}
		for _, f := range r.pass.faults {
			hit[f.system]++
		}
		for _, system := range []string{r.pass.relayName(), "Nakadi", "consumer " + kindUpsert,
			"consumer " + kindDedup, "consumer " + kindSequence} {
			if !slices.ContainsFunc(r.pass.faults, func(f fault) bool { return f.system == system }) {
				t.Errorf("%s: %s was never hit", r.pass.name, system)
			}
		}
	}
	for _, why := range []string{string(fateTimeout), string(fateLost), string(fatePartial),
		"requeued"} {
		if copies[why] == 0 {
			t.Errorf("no copy at Nakadi for the reason %q", why)
		}
	}
	for _, system := range []string{"DynamoDB Local", "ElasticMQ", "moto", "requeue job",
		"ackwise run (bridge)"} {
		if hit[system] == 0 {
			t.Errorf("%s was never hit", system)
		}
	}
}

// table prints what the passes have shown, a column each.
func table(w io.Writer, reports []*report) error {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(name string, value func(r *report) string) {
		cells := []string{"| " + name}
		for _, r := range reports {
			cells = append(cells, "| "+value(r))
		}
		_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t")+"\t|") // Flush says what went wrong
	}
	row("relay", func(r *report) string { return r.pass.relayName() })
	row("---", func(*report) string { return "---" })
	row("changes written", func(r *report) string { return fmt.Sprint(r.pass.writer.done()) })
	for i := range reports[0].hops {
		row("IDs at "+reports[0].hops[i].name, func(r *report) string {
			h := r.hops[i]
			return fmt.Sprintf("%d: %d lost, %d extra; %d copies", h.seen, h.lost, h.extra, h.more)
		})
	}
	reasons := map[string]bool{}
	for _, r := range reports {
		for why := range r.copies {
			reasons[why] = true
		}
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		row("copies at Nakadi: "+why, func(r *report) string { return fmt.Sprint(r.copies[why]) })
	}
	for i := range reports[0].effects {
		row("effects of "+reports[0].effects[i].name, func(r *report) string {
			e := r.effects[i]
			return fmt.Sprintf("%d wrong; %s", e.wrong, e.what)
		})
	}
	row("items out of order at Nakadi", func(r *report) string {
		return fmt.Sprintf("%d of %d", r.late, r.items)
	})
	row("items whose last copy there is not the newest", func(r *report) string {
		return fmt.Sprint(r.stale)
	})
	row("requeue job", func(r *report) string {
		j := r.pass.job
		return fmt.Sprintf("%d runs, %d letters accepted, exit codes %v", j.runs, j.accepted, j.codes)
	})
	var systems []string
	for _, r := range reports {
		for _, f := range r.pass.faults {
			if !slices.Contains(systems, f.system) {
				systems = append(systems, f.system)
			}
		}
	}
	for _, system := range systems {
		row("faults: "+system, func(r *report) string {
			var what []string
			for _, f := range r.pass.faults {
				if f.system == system {
					what = append(what, f.what)
				}
			}
			return strings.Join(what, ", ")
		})
	}
	row("seconds", func(r *report) string { return fmt.Sprintf("%.0f", r.pass.took.Seconds()) })
	return tw.Flush()
}
