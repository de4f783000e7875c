package ordering

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// long reports whether the long fault runs were asked for.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

func runs(sample, all int) int {
	if long() {
		return all
	}
	return sample
}

// zeroTime is where virtual time begins.
var zeroTime = time.UnixMilli(1_000_000)

// world plays a caller of the machine: what it made durable survives a restart, and nothing else.
type world struct {
	t    *testing.T
	m    *Resequencer
	opt  ResequencerOptions
	rng  *rand.Rand
	now  time.Time
	rows map[string][]byte
	held map[Missing]Arrival // durable
	at   map[Missing]time.Time

	out     map[string][]uint64 // released, in order
	late    map[string][]uint64
	gave    map[Missing]Whereabouts
	seen    map[Missing]bool // taken or late: it must come out, once
	parked  map[Missing]bool
	repeats int
	restart int
}

func newWorld(t *testing.T, rng *rand.Rand, o ResequencerOptions) *world {
	w := &world{t: t, opt: o, rng: rng, now: zeroTime, rows: map[string][]byte{},
		held: map[Missing]Arrival{}, at: map[Missing]time.Time{}, out: map[string][]uint64{},
		late: map[string][]uint64{}, gave: map[Missing]Whereabouts{}, seen: map[Missing]bool{},
		parked: map[Missing]bool{}}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	m, err := NewResequencer(w.opt)
	if err != nil {
		w.t.Fatal(err)
	}
	w.m = m
	for at, a := range w.held {
		w.learn(at.Key)
		if !m.Restore(w.at[at], a) {
			w.t.Fatalf("%v is not held again", at)
		}
	}
}

func (w *world) learn(key string) {
	w.t.Helper()
	if !w.m.Knows(key) {
		if err := w.m.Learn(w.now, key, w.rows[key]); err != nil {
			w.t.Fatal(err)
		}
	}
}

func bodySum(key string, n uint64) uint64 { return sumOf(fmt.Appendf(nil, "%s/%d", key, n)) }

// arrive hands a message in, and makes durable what comes of it.
func (w *world) arrive(key string, n uint64) Verdict {
	w.t.Helper()
	w.learn(key)
	a := Arrival{Key: key, Number: n, Sum: bodySum(key, n), Size: 10, Ref: n}
	v, err := w.m.Arrive(w.now, a)
	at := Missing{key, n}
	switch v {
	case VerdictTaken:
		if w.seen[at] {
			w.t.Fatalf("%v is taken twice", at)
		}
		w.seen[at], w.held[at], w.at[at] = true, a, w.now
	case VerdictDuplicate:
		if !w.seen[at] {
			w.t.Fatalf("%v is called a duplicate and never came", at)
		}
		w.repeats++
	case VerdictLate:
		if w.seen[at] {
			w.t.Fatalf("%v is late and came before", at)
		}
		w.seen[at] = true
		w.late[key] = append(w.late[key], n)
	case VerdictFull:
	case VerdictRefused:
		w.t.Fatalf("%v is refused: %v", at, err)
	}
	w.release()
	w.rows[key] = w.m.Row(key)
	return v
}

func (w *world) release() {
	w.t.Helper()
	for {
		a, ok := w.m.Next(w.now)
		if !ok {
			return
		}
		at := Missing{a.Key, a.Number}
		if _, there := w.held[at]; !there || a.Sum != bodySum(a.Key, a.Number) || a.Ref != a.Number {
			w.t.Fatalf("%+v goes and was not held", a)
		}
		delete(w.held, at)
		w.out[a.Key] = append(w.out[a.Key], a.Number)
		w.rows[a.Key] = w.m.Row(a.Key)
	}
}

// tick lets time pass and answers questions.
func (w *world) tick(d time.Duration) {
	w.t.Helper()
	w.now = w.now.Add(d)
	missing := w.m.Missing(w.now, 1+w.rng.IntN(20))
	states := make([]Whereabouts, len(missing))
	for i, m := range missing {
		if w.seen[m] {
			w.t.Fatalf("%v is asked for and was here", m)
		}
		states[i] = Lost
		if w.parked[m] {
			states[i] = Parked
		}
	}
	gaps, err := w.m.Answer(w.now, missing, states)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, g := range gaps {
		for n := g.First; n <= g.Last; n++ {
			at := Missing{g.Key, n}
			if _, twice := w.gave[at]; twice || w.seen[at] {
				w.t.Fatalf("%v is given up, twice or though it came", at)
			}
			w.gave[at] = g.State
		}
		w.rows[g.Key] = w.m.Row(g.Key)
	}
	w.release()
}

// TestAnyArrivalOrder is the property: whatever the order of arrival, the repeats, the gaps, the
// bounds and the restarts, each key comes out sorted, each message once, and what is given up is
// just what did not come in time.
func TestAnyArrivalOrder(t *testing.T) {
	var repeats, restarts, given, late, full int
	for run := range runs(150, 20_000) {
		seed := uint64(run)
		rng := rand.New(rand.NewPCG(7, seed))
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			w, pushed := play(t, rng)
			repeats += w.repeats
			restarts += w.restart
			given += len(w.gave)
			full += pushed
			for _, ns := range w.late {
				late += len(ns)
			}
		})
	}
	if repeats == 0 || restarts == 0 || given == 0 || late == 0 || full == 0 {
		t.Errorf("not everything happened: %d repeats, %d restarts, %d given up, %d late, %d full",
			repeats, restarts, given, late, full)
	}
}

func play(t *testing.T, rng *rand.Rand) (w *world, pushed int) {
	t.Helper()
	keys := 1 + rng.IntN(4)
	o := ResequencerOptions{Remember: 1 + rng.IntN(8), Ask: time.Second,
		MaxHeld: 3 + rng.IntN(60), First: 1 + rng.Uint64N(2),
		Policy: func(key string) Policy {
			if key == "key 0" {
				return Policy{}
			}
			return Policy{GiveUpAfter: 3 * time.Second, Known: 10 * time.Second}
		}}
	w = newWorld(t, rng, o)
	var all, coming []Missing
	for k := range keys {
		key := fmt.Sprint("key ", k)
		for n := o.First; n < o.First+uint64(5+rng.IntN(60)); n++ {
			all = append(all, Missing{key, n})
			switch {
			case k > 0 && rng.IntN(15) == 0: // never
			case k > 0 && rng.IntN(15) == 0: // after a redrive
				w.parked[Missing{key, n}] = true
			default:
				coming = append(coming, Missing{key, n})
			}
		}
	}
	// Somewhat or wholly out of order, and some of them again.
	spread := 1 + rng.IntN(len(coming))
	shuffle(rng, coming, spread)
	for len(coming) > 0 {
		m := coming[0]
		coming = coming[1:]
		switch w.arrive(m.Key, m.Number) {
		case VerdictFull:
			pushed++
			coming = append(coming, m)
		case VerdictTaken, VerdictDuplicate, VerdictLate, VerdictRefused:
			if rng.IntN(10) == 0 {
				coming = slices.Insert(coming, rng.IntN(len(coming)+1), m)
			}
		}
		if rng.IntN(5) == 0 {
			w.tick(time.Duration(rng.IntN(2000)) * time.Millisecond)
		}
		if rng.IntN(20) == 0 {
			w.restart++
			w.open()
		}
	}
	for m := range w.parked {
		if rng.IntN(2) == 0 { // a redrive, while the key waits or after
			w.arrive(m.Key, m.Number)
		}
	}
	for range 300 {
		w.tick(time.Second)
	}
	w.check(all)
	return w, pushed
}

// shuffle moves each by about spread places.
func shuffle(rng *rand.Rand, ms []Missing, spread int) {
	type placed struct {
		m  Missing
		at int
	}
	var ps []placed
	for i, m := range ms {
		ps = append(ps, placed{m, i + rng.IntN(spread)})
	}
	slices.SortStableFunc(ps, func(a, b placed) int { return cmp.Compare(a.at, b.at) })
	for i, p := range ps {
		ms[i] = p.m
	}
}

func (w *world) check(all []Missing) {
	w.t.Helper()
	want := map[string][]uint64{} // the oracle: what came and was not late, sorted
	for at := range w.seen {
		if !slices.Contains(w.late[at.Key], at.Number) {
			want[at.Key] = append(want[at.Key], at.Number)
		}
	}
	for key, ns := range want {
		slices.Sort(ns)
		if !slices.Equal(w.out[key], ns) {
			w.t.Errorf("%s came out as %v, want %v", key, w.out[key], ns)
		}
	}
	if r := w.m.Report(); r.Held != 0 || r.Keys != 0 || r.Oldest != nil || len(w.held) != 0 {
		w.t.Errorf("at the end it holds %+v", r)
	}
	highest := map[string]uint64{}
	for key, ns := range w.out {
		highest[key] = ns[len(ns)-1]
	}
	for _, at := range all {
		state, gave := w.gave[at]
		came := w.seen[at] && !slices.Contains(w.late[at.Key], at.Number)
		switch {
		case gave && came, !gave && !came && at.Number < highest[at.Key]:
			w.t.Errorf("%v: given up %v, came in time %v", at, gave, came)
		case gave && w.parked[at] != (state == Parked):
			w.t.Errorf("%v was given up as %s", at, state)
		}
	}
}

// machine returns a resequencer that knows a key.
func machine(t *testing.T, o ResequencerOptions, keys ...string) *Resequencer {
	t.Helper()
	m, err := NewResequencer(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if err := m.Learn(zeroTime, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func arrival(key string, n uint64) Arrival {
	return Arrival{Key: key, Number: n, Sum: bodySum(key, n)}
}

// taken hands in what has to be taken.
func taken(t *testing.T, m *Resequencer, now time.Time, a Arrival) {
	t.Helper()
	if v, err := m.Arrive(now, a); v != VerdictTaken || err != nil {
		t.Fatalf("%+v: %d, %v", a, v, err)
	}
}

func drainAll(m *Resequencer, now time.Time) (ns []uint64) {
	for {
		a, ok := m.Next(now)
		if !ok {
			return ns
		}
		ns = append(ns, a.Number)
	}
}

// A key that is first seen at 2 waits for 1; so does one that jumps.
func TestAKeyThatStartsAt2WaitsFor1(t *testing.T) {
	m := machine(t, ResequencerOptions{}, "k")
	for _, n := range []uint64{2, 5} {
		if v, err := m.Arrive(zeroTime, arrival("k", n)); v != VerdictTaken || err != nil {
			t.Fatalf("%d: %v, %v", n, v, err)
		}
	}
	if ns := drainAll(m, zeroTime); len(ns) != 0 {
		t.Fatalf("%v went without 1", ns)
	}
	if r := m.Report(); r.Oldest == nil || r.Oldest.First != 1 || r.Oldest.Last != 1 || r.Held != 2 {
		t.Errorf("report %+v", r)
	}
	taken(t, m, zeroTime, arrival("k", 1))
	if ns := drainAll(m, zeroTime); !slices.Equal(ns, []uint64{1, 2}) {
		t.Errorf("%v went", ns)
	}
	if r := m.Report(); r.Oldest == nil || r.Oldest.First != 3 || r.Oldest.Last != 4 {
		t.Errorf("report %+v", r)
	}
}

// What is wrong with a number is refused with a reason; a plain repeat is let go.
func TestWrongNumbers(t *testing.T) {
	m := machine(t, ResequencerOptions{MaxJump: 100, Remember: 2}, "k")
	for n := uint64(1); n <= 5; n++ {
		taken(t, m, zeroTime, arrival("k", n))
	}
	taken(t, m, zeroTime, arrival("k", 9))
	drainAll(m, zeroTime)
	other := func(n uint64) Arrival { return Arrival{Key: "k", Number: n, Sum: 99} }
	for _, c := range []struct {
		name string
		a    Arrival
		want Verdict
	}{
		{"released, the same body", arrival("k", 5), VerdictDuplicate},
		{"released, another body", other(4), VerdictRefused},
		{"released too long ago to know", other(1), VerdictDuplicate},
		{"held, the same body", arrival("k", 9), VerdictDuplicate},
		{"held, another body", other(9), VerdictRefused},
		{"too far ahead", arrival("k", 106), VerdictRefused},
		{"before the first", arrival("k", 0), VerdictRefused},
	} {
		v, err := m.Arrive(zeroTime, c.a)
		_, typed := errors.AsType[*SequenceError](err)
		if v != c.want || typed != (v == VerdictRefused) {
			t.Errorf("%s: %d, %v, want %d", c.name, v, err, c.want)
		}
	}
	if r := m.Report(); r.Duplicates != 3 || r.Unchecked != 1 || r.Refused != 4 {
		t.Errorf("report %+v", r)
	}
}

// Headers that are missing or malformed are errors that say so.
func TestWrongHeaders(t *testing.T) {
	byNumber := machine(t, ResequencerOptions{})
	byStamp := machine(t, ResequencerOptions{ByStamp: true})
	for _, text := range []string{"", "x", "0", "-1", "1.5", "18446744073709551616"} {
		m := ackwise.Message{Key: "k", Headers: []ackwise.Header{
			{Name: ackwise.HeaderSequence, Value: []byte(text)},
			{Name: ackwise.HeaderStamp, Value: []byte(text)}}}
		for _, r := range []*Resequencer{byNumber, byStamp} {
			if _, err := r.Read(&m); err == nil {
				t.Errorf("%q was read", text)
			}
		}
	}
	for _, r := range []*Resequencer{byNumber, byStamp} {
		_, err := r.Read(&ackwise.Message{Key: "k"})
		if _, typed := errors.AsType[*SequenceError](err); !typed {
			t.Errorf("no header: %v", err)
		}
	}
}

// A policy that stops does so when its time is over.
func TestStopPolicy(t *testing.T) {
	m := machine(t, ResequencerOptions{Ask: time.Second, Policy: func(string) Policy {
		return Policy{StopAfter: 5 * time.Second}
	}}, "k")
	taken(t, m, zeroTime, arrival("k", 2))
	var stop *GapError
	for s := range 10 {
		now := zeroTime.Add(time.Duration(s) * time.Second)
		missing := m.Missing(now, 10)
		_, err := m.Answer(now, missing, slices.Repeat([]Whereabouts{Parked}, len(missing)))
		if errors.As(err, &stop) {
			if s != 5 {
				t.Errorf("it stopped after %d s", s)
			}
			break
		}
	}
	if stop == nil || stop.Gap.First != 1 || stop.Gap.State != Parked {
		t.Fatalf("stopped with %v", stop)
	}
	// What a person orders is done: the key goes on.
	if gaps := m.GiveUp(zeroTime, "k", 7); len(gaps) != 1 || gaps[0].Last != 1 {
		t.Errorf("gave up %v", gaps)
	}
	if ns := drainAll(m, zeroTime); !slices.Equal(ns, []uint64{2}) {
		t.Errorf("%v went", ns)
	}
}

// A gap longer than what is asked for at a time is given up in several turns, at one time.
func TestLongGap(t *testing.T) {
	m := machine(t, ResequencerOptions{Ask: time.Second, Policy: func(string) Policy {
		return Policy{GiveUpAfter: time.Second}
	}}, "k")
	taken(t, m, zeroTime, arrival("k", 2000))
	now := zeroTime.Add(2 * time.Second)
	for turns := 0; m.Report().Held > 0; turns++ {
		if turns > 10 {
			t.Fatal("it does not end")
		}
		missing := m.Missing(now, 10_000)
		if _, err := m.Answer(now, missing, make([]Whereabouts, len(missing))); err != nil {
			t.Fatal(err)
		}
		drainAll(m, now)
	}
	if r := m.Report(); r.GivenUp[Unknown] != 1999 {
		t.Errorf("report %+v", r)
	}
}

// The spans of numbers that were given up are bounded. Below what is forgotten, a number is late:
// rather twice than never.
func TestManyGaps(t *testing.T) {
	m := machine(t, ResequencerOptions{Ask: time.Second, Policy: func(string) Policy {
		return Policy{GiveUpAfter: time.Second}
	}}, "k")
	now := zeroTime
	for n := uint64(2); n <= 200; n += 2 {
		taken(t, m, now, arrival("k", n))
		now = now.Add(2 * time.Second)
		missing := m.Missing(now, 10)
		if _, err := m.Answer(now, missing, make([]Whereabouts, len(missing))); err != nil {
			t.Fatal(err)
		}
		drainAll(m, now)
	}
	row := m.Row("k")
	again := machine(t, ResequencerOptions{})
	if err := again.Learn(now, "k", row); err != nil || string(again.Row("k")) != string(row) {
		t.Fatalf("the row is not read back: %v", err)
	}
	for _, c := range []struct {
		n    uint64
		want []Verdict
	}{{1, []Verdict{VerdictLate, VerdictLate}}, {199, []Verdict{VerdictLate, VerdictDuplicate}},
		{151, []Verdict{VerdictLate, VerdictDuplicate}}} {
		for i, want := range c.want {
			if v, err := again.Arrive(now, arrival("k", c.n)); v != want {
				t.Errorf("%d for the %d. time: %d, %v, want %d", c.n, i+1, v, err, want)
			}
		}
	}
	if len(row) > 600 {
		t.Errorf("a row has %d bytes", len(row))
	}
}

// Keys that hold nothing do not stay in memory for good, and go on from their rows.
func TestIdleKeysAreForgotten(t *testing.T) {
	m := machine(t, ResequencerOptions{})
	rows := map[string][]byte{}
	for i := range maxIdle + 10 {
		key := fmt.Sprint(i)
		if err := m.Learn(zeroTime, key, nil); err != nil {
			t.Fatal(err)
		}
		taken(t, m, zeroTime, arrival(key, 1))
		drainAll(m, zeroTime)
		rows[key] = m.Row(key)
	}
	m.Trim()
	if len(m.lanes) != 0 {
		t.Fatalf("%d keys stay", len(m.lanes))
	}
	if err := m.Learn(zeroTime, "7", rows["7"]); err != nil {
		t.Fatal(err)
	}
	if v, _ := m.Arrive(zeroTime, arrival("7", 1)); v != VerdictDuplicate {
		t.Errorf("a repeat is %d", v)
	}
}

// By stamp, what comes within the waiting time is sorted; what comes later is told as late.
func TestByStamp(t *testing.T) {
	const wait = 10 * time.Second
	for seed := range uint64(runs(40, 5000)) {
		rng := rand.New(rand.NewPCG(seed, 3))
		m := machine(t, ResequencerOptions{ByStamp: true, Wait: wait}, "a", "b")
		type sent struct {
			key   string
			stamp ackwise.Stamp
			at    time.Time
		}
		var msgs []sent
		for i := range 200 {
			stamp := ackwise.Stamp{Millis: int64(i/4)*500 + 1, Counter: uint32(i % 4 / 2),
				Node: []string{"x", "y"}[i%2]}
			delay := time.Duration(rng.Int64N(int64(wait)))
			if rng.IntN(20) == 0 {
				delay += 3 * wait
			}
			msgs = append(msgs, sent{[]string{"a", "b"}[rng.IntN(2)], stamp,
				zeroTime.Add(time.Duration(stamp.Millis)*time.Millisecond + delay)})
		}
		slices.SortStableFunc(msgs, func(a, b sent) int { return a.at.Compare(b.at) })
		out, late := map[string][]ackwise.Stamp{}, map[ackwise.Stamp]bool{}
		take := func(now time.Time) {
			for {
				a, ok := m.Next(now)
				if !ok {
					return
				}
				out[a.Key] = append(out[a.Key], a.Stamp)
			}
		}
		for _, s := range msgs {
			take(s.at)
			a := Arrival{Key: s.key, Stamp: s.stamp, Sum: 5}
			v, err := m.Arrive(s.at, a)
			late[s.stamp] = v == VerdictLate
			if v != VerdictLate && v != VerdictTaken {
				t.Fatalf("seed %d: %v is %d, %v", seed, s, v, err)
			}
			if onTime := s.at.Sub(zeroTime.Add(time.Duration(s.stamp.Millis)*time.Millisecond)) <
				wait; onTime && late[s.stamp] {
				t.Errorf("seed %d: %v came in time and is late", seed, s)
			}
		}
		take(zeroTime.Add(time.Hour))
		if !m.Wake().IsZero() {
			t.Errorf("seed %d: it wakes at %v with nothing held", seed, m.Wake())
		}
		total := 0
		for key, stamps := range out {
			total += len(stamps)
			if !slices.IsSortedFunc(stamps, ackwise.Stamp.Compare) {
				t.Errorf("seed %d: %s came out as %v", seed, key, stamps)
			}
		}
		for _, is := range late {
			if is {
				total++
			}
		}
		if total != len(msgs) {
			t.Errorf("seed %d: %d of %d messages came out or late", seed, total, len(msgs))
		}
	}
}

// The sorted list agrees with a map, whatever is put in and taken out.
func TestEntries(t *testing.T) {
	byNumber := func(a, b rank) int { return cmp.Compare(a.hi, b.hi) }
	for seed := range uint64(runs(6, 60)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var l entries
		model := map[uint64]bool{}
		for i := range 2000 {
			n := rng.Uint64N(2500)
			switch seed % 3 {
			case 0:
				n = uint64(i)
			case 1:
				n = uint64(10_000 - i)
			}
			p, there := l.find(rank{hi: n}, byNumber)
			if there != model[n] {
				t.Fatalf("seed %d: %d is there: %v", seed, n, there)
			}
			if !there {
				l.add(p, entry{rank: rank{hi: n}})
				model[n] = true
			}
			if rng.IntN(3) == 0 {
				least := slices.Min(slices.Collect(maps.Keys(model)))
				if first := l.first().hi; first != least {
					t.Fatalf("seed %d: %d is the first, want %d", seed, first, least)
				}
				l.removeFirst()
				delete(model, least)
			}
		}
		if l.len != len(model) {
			t.Errorf("seed %d: %d entries, want %d", seed, l.len, len(model))
		}
	}
}

// A gap as long as MaxJump allows is given up when its time is over, and not a little at a time.
func TestTheLongestGapIsGivenUpInTime(t *testing.T) {
	m := machine(t, ResequencerOptions{Ask: time.Second, Policy: func(string) Policy {
		return Policy{GiveUpAfter: time.Second}
	}}, "k")
	const last, most = 1_000_000, 1 << 16
	taken(t, m, zeroTime, arrival("k", last))
	now := zeroTime.Add(time.Second)
	turns := 0
	for ; m.Report().Held > 0 && turns < 100; turns++ {
		missing := m.Missing(now, most)
		states := slices.Repeat([]Whereabouts{Lost}, len(missing))
		if _, err := m.Answer(now, missing, states); err != nil {
			t.Fatal(err)
		}
		drainAll(m, now)
	}
	if want := last/most + 1; turns > want {
		t.Errorf("it took %d questions of at most %d numbers, want %d", turns, most, want)
	}
	if r := m.Report(); r.GivenUp[Lost] != last-1 {
		t.Errorf("report %+v", r)
	}
}

// Names of nodes that nobody uses any more make room for new ones: where producers come and go, a
// good message is never refused, and where too many are there at a time, it is put off.
func TestNodesThatComeAndGo(t *testing.T) {
	m := machine(t, ResequencerOptions{ByStamp: true, Wait: time.Second}, "k")
	now := zeroTime
	stamped := func(i int) Arrival {
		return Arrival{Key: "k", Sum: 3, Stamp: ackwise.Stamp{Millis: int64(i + 1),
			Node: fmt.Sprint("pod-", i)}}
	}
	trim := func() { // as a shell does
		row := m.Row("k")
		if m.Trim(); m.Knows("k") {
			return
		}
		if err := m.Learn(now, "k", row); err != nil {
			t.Fatal(err)
		}
	}
	i := 0
	for ; i < maxNames+maxNames/2; i++ {
		trim()
		taken(t, m, now, stamped(i))
		now = now.Add(time.Second)
		if a, ok := m.Next(now); !ok || a.Stamp != stamped(i).Stamp {
			t.Fatalf("%v went, want %v", a, stamped(i))
		}
	}
	if n := len(m.names.all); n > maxNames {
		t.Errorf("%d names are kept", n)
	}
	first := i
	for ; m.Report().Held < maxNames+1; i++ { // all within the waiting time
		v, err := m.Arrive(now, stamped(i))
		if v == VerdictFull {
			trim()
			if v, err = m.Arrive(now, stamped(i)); v == VerdictFull {
				break
			}
		}
		if v != VerdictTaken {
			t.Fatalf("message %d: %d, %v", i, v, err)
		}
	}
	if i-first > maxNames || i-first < maxNames-10 {
		t.Errorf("there was room for %d names", i-first)
	}
	// Its time comes, and the stamps are still the right ones.
	now = now.Add(time.Second)
	at := int64(0)
	for m.Report().Held > 0 {
		a, _ := m.Next(now)
		if want := fmt.Sprint("pod-", a.Stamp.Millis-1); a.Stamp.Node != want || a.Stamp.Millis <= at {
			t.Fatalf("stamp %s after %d, want node %s", a.Stamp, at, want)
		}
		at = a.Stamp.Millis
	}
	trim()
	taken(t, m, now, stamped(i))
}

// A message that was taken and could not be kept is no longer held, and comes again.
func TestUntake(t *testing.T) {
	m := machine(t, ResequencerOptions{}, "k")
	for _, n := range []uint64{2, 4, 5} {
		taken(t, m, zeroTime, arrival("k", n))
	}
	m.Untake(zeroTime, arrival("k", 2))
	m.Untake(zeroTime, arrival("k", 3)) // is not held
	m.Untake(zeroTime, arrival("j", 1)) // is not known
	if r := m.Report(); r.Held != 2 || r.Keys != 1 || r.Oldest == nil || r.Oldest.Last != 3 {
		t.Errorf("report %+v", r)
	}
	taken(t, m, zeroTime, arrival("k", 1))
	m.Untake(zeroTime, arrival("k", 1))
	m.Untake(zeroTime, arrival("k", 4))
	m.Untake(zeroTime, arrival("k", 5))
	if ns := drainAll(m, zeroTime); len(ns) != 0 {
		t.Errorf("%v went", ns)
	}
	if r := m.Report(); r.Held != 0 || r.Keys != 0 || r.Oldest != nil {
		t.Errorf("report %+v", r)
	}
	for n := uint64(1); n <= 5; n++ {
		taken(t, m, zeroTime, arrival("k", n))
	}
	if ns := drainAll(m, zeroTime); !slices.Equal(ns, []uint64{1, 2, 3, 4, 5}) {
		t.Errorf("%v went", ns)
	}
}
