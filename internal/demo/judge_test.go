package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
)

func TestFlightsAreThoseOfTheTable(t *testing.T) {
	flights, err := Flights(0)
	if err != nil {
		t.Fatal(err)
	}
	types, keys, miles := map[string]int{}, map[string]int{}, map[string]int64{}
	ids := map[string]bool{}
	for i := range flights {
		f := &flights[i]
		types[f.Type]++
		ids[f.ID] = true
		miles[""] += f.Flown()
		miles[f.Carrier] += f.Flown()
		keys[f.Key]++
		if f.Key != "" && f.Seq != keys[f.Key] {
			t.Fatalf("%s is number %d of %s, seq says %d", f.ID, keys[f.Key], f.Key, f.Seq)
		}
	}
	if keys[""] != 155 || len(keys) != 3148+1 || len(flights) != 27004 || len(ids) != 27004 {
		t.Errorf("%d flights, %d IDs, %d aircraft, %d without one", len(flights), len(ids),
			len(keys)-1, keys[""])
	}
	if types["departed"] != 26483 || types["cancelled"] != 521 {
		t.Errorf("types %v", types)
	}
	for carrier, want := range map[string]int64{"": 26859611, "UA": 6746943, "B6": 4693728,
		"DL": 4478402, "AA": 3700495} {
		if miles[carrier] != want {
			t.Errorf("miles of %q = %d, want %d", carrier, miles[carrier], want)
		}
	}
	if Sum(flights) != 26859611 {
		t.Errorf("sum = %d", Sum(flights))
	}
}

// few are three flights of one aircraft, one of another and one of none.
func few() []Flight {
	return []Flight{{ID: "a1", Key: "a", Seq: 1}, {ID: "a2", Key: "a", Seq: 2},
		{ID: "a3", Key: "a", Seq: 3}, {ID: "b1", Key: "b", Seq: 1}, {ID: "x"}}
}

// story makes marks of short words: "a1" is a delivery of a1 with its effect of 10 miles, "a1-" one
// that was killed before it, "a1+" an effect alone.
func story(words string) []mark {
	var marks []mark
	for i, w := range strings.Fields(words) {
		id := strings.TrimRight(w, "-+")
		if !strings.HasSuffix(w, "+") {
			marks = append(marks, mark{markBegin, int64(2 * i), id, "first"})
		}
		if !strings.HasSuffix(w, "-") {
			marks = append(marks, mark{markEffect, int64(2*i + 1), id, "10"})
		}
	}
	return marks
}

func TestJudge(t *testing.T) {
	type seen struct{ delivered, duplicates, lost, repeated, miles, violations, strangers int }
	for _, c := range []struct {
		name, story string
		skips       bool
		want        seen
	}{
		{"all once", "a1 b1 a2 x a3", false, seen{5, 0, 0, 0, 50, 0, 0}},
		{"one lost", "a1 b1 a2 a3", false, seen{4, 0, 1, 0, 40, 0, 0}},
		{"one killed before its effect", "a1 b1 a2 x a3-", false, seen{5, 0, 1, 0, 40, 0, 0}},
		{"killed and again", "a1 b1 a2- a2 x a3", false, seen{6, 1, 0, 0, 50, 0, 0}},
		{"applied twice", "a1 b1 a2 a2 x a3", false, seen{6, 1, 0, 1, 60, 0, 0}},
		{"an old one again", "a1 b1 a2 a1 x a3", false, seen{6, 1, 0, 1, 60, 0, 0}},
		{"a loss does not hide a repeat", "a1 a1 a2 a3 b1", false, seen{5, 1, 1, 1, 50, 0, 0}},
		{"overtaken", "a2 a1 b1 x a3", false, seen{5, 0, 0, 0, 50, 2, 0}},
		{"left out", "a1 a3 b1 x", false, seen{4, 0, 1, 0, 40, 1, 0}},
		{"left out, which may be", "a1 a3 b1 x", true, seen{4, 0, 1, 0, 40, 0, 0}},
		{"gone back", "a1 a3 a2 b1 x", true, seen{5, 0, 0, 0, 50, 1, 0}},
		{"an effect without a delivery", "a1 a2 a3 b1 x+", false, seen{4, 0, 0, 0, 50, 0, 0}},
		{"never published", "a1 a2 a3 b1 x y", false, seen{5, 0, 0, 0, 50, 0, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			marks := story(c.story)
			slices.Reverse(marks) // several files are not in the order of time
			v, err := judge(few(), marks, rules{skips: c.skips})
			if err != nil {
				t.Fatal(err)
			}
			got := seen{v.delivered, v.duplicates, v.lost, v.repeated, int(v.miles), v.violations,
				v.strangers}
			if got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	if _, err := judge(few(), []mark{{what: markEffect, id: "x", text: "ten"}}, rules{}); err == nil {
		t.Error("an effect of ten was taken")
	}
}

func TestTraceOfAKilledConsumerEndsAtItsLastWholeLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	r := reader{path: path}
	if marks, err := r.next(); len(marks) > 0 || err != nil {
		t.Errorf("before it is there: %v, %v", marks, err)
	}
	tr, err := openTrace(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.write(markBegin, "a", "first"); err != nil {
		t.Fatal(err)
	}
	add(t, path, "effect 1 a 1")
	marks, err := r.next()
	if err != nil || len(marks) != 1 || marks[0].id != "a" || marks[0].text != "first" {
		t.Errorf("got %v, %v", marks, err)
	}
	add(t, path, "0\nbegin 2 ")
	marks, err = r.next()
	if want := []mark{{markEffect, 1, "a", "10"}}; err != nil || !reflect.DeepEqual(marks, want) {
		t.Errorf("got %v, %v, want %v", marks, err, want)
	}
	for _, bad := range []string{"x\n", "begin two a first\n"} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (&reader{path: path}).next(); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func add(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSeenAppliesEachKeyOnceForAllConsumers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "applied")
	var consumers []*seen
	for range 2 {
		s, err := openSeen(path)
		if err != nil {
			t.Fatal(err)
		}
		consumers = append(consumers, s)
	}
	add(t, path, "effect 1 torn ") // its process was killed at it
	var got []string
	for i, key := range []string{"a", "a", "b", "torn", "b", "torn", "a#1"} {
		applied, err := consumers[i%2].apply(key, 7, true)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(key, " ", applied))
	}
	want := []string{"a true", "a false", "b true", "torn true", "b false", "torn false",
		"a#1 true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if applied, err := consumers[0].apply("a", 7, false); !applied || err != nil {
		t.Errorf("without asking: %t, %v", applied, err)
	}
	marks, err := (&reader{path: path}).next()
	if err != nil || len(marks) != 5 || marks[0].text != "7" {
		t.Errorf("the file holds %v, %v", marks, err)
	}
}

func TestPlan(t *testing.T) {
	flights, err := Flights(3000)
	if err != nil {
		t.Fatal(err)
	}
	plans := map[string]uint64{}
	for seed := range uint64(200) {
		p := newPlan(seed, 1, flights, true)
		if again := newPlan(seed, 1, flights, true); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d makes two plans", seed)
		}
		if other := newPlan(seed, 2, flights, true); reflect.DeepEqual(p, other) {
			t.Fatalf("seed %d makes the same plan for two runs", seed)
		}
		if p.count(killing) < minKills || p.count(leaving) < minLeaves ||
			len(p.unheard) < minUnheard || len(p.fails) < minFailing ||
			len(p.withholds) < minWithheld {
			t.Errorf("seed %d: too little in %+v", seed, p)
		}
		for id := range p.fails {
			if p.withholds[id] {
				t.Errorf("seed %d: %s fails and is withheld", seed, id)
			}
		}
		text := fmt.Sprint(p)
		if before, found := plans[text]; found {
			t.Errorf("seeds %d and %d make the same plan", before, seed)
		}
		plans[text] = seed
	}
	if minKills*4 < minAllKills {
		t.Errorf("four runs of %d kills are less than %d", minKills, minAllKills)
	}
	p := newPlan(1, 0, flights, false)
	if len(p.fails)+len(p.withholds) > 0 {
		t.Errorf("faults that at-most-once cannot survive: %+v", p)
	}
}

// A consumer was killed between its increment and the completion of its claim: whoever takes the
// claim over finds the increment in the file, and makes no second one.
func TestATakenOverClaimAsksTheFile(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	store, err := queue.Open(filepath.Join(dir, "store"), queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	flights, err := Flights(2)
	if err != nil {
		t.Fatal(err)
	}
	applied, err := openSeen(filepath.Join(dir, "applied"))
	if err != nil {
		t.Fatal(err)
	}
	trace, err := openTrace(filepath.Join(dir, "trace"))
	if err != nil {
		t.Fatal(err)
	}
	h, err := (&work{trace: trace}).deduplicated(ctx, applied, store, "ids")
	if err != nil {
		t.Fatal(err)
	}
	killed := flights[0].Message("flights")
	answers, err := store.Claim(ctx, "ids", []idempotency.Ask{{Key: killed.ID,
		Sum: idempotency.Fingerprint(killed.Body), Lease: time.Millisecond}})
	if err != nil || answers[0].Status != idempotency.Claimed {
		t.Fatalf("claim: %+v, %v", answers, err)
	}
	if _, err := applied.apply(killed.ID, 7, false); err != nil {
		t.Fatal(err)
	}
	for i := range flights {
		d := &ackwise.Delivery{Message: flights[i].Message("flights"), Attempt: 1}
		for range 1000 { // until the claim has run out
			if err = h.Handle(ctx, d); err == nil {
				break
			}
			if v := ackwise.OutcomeOf(err); v.Outcome != ackwise.OutcomeSnooze {
				t.Fatal(err)
			}
			if err := pause(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	marks, err := (&reader{path: filepath.Join(dir, "applied")}).next()
	if err != nil || len(marks) != 2 || marks[0].id != killed.ID || marks[0].text != "7" {
		t.Errorf("the file holds %v, %v", marks, err)
	}
}
