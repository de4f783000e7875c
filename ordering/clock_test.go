package ordering

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// memory is a Keeper that a restart keeps and that counts its saves.
type memory struct {
	kept  map[string][]byte
	saves int
	fail  error
}

func newMemory() *memory { return &memory{kept: map[string][]byte{}} }

func (m *memory) Load(_ context.Context, fn func(Record) error) error {
	for name, value := range m.kept {
		if err := fn(Record{Name: name, Value: value}); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) Save(_ context.Context, rs []Record) error {
	if m.fail != nil {
		return m.fail
	}
	m.saves++
	for _, r := range rs {
		if r.Value == nil {
			delete(m.kept, r.Name)
		} else {
			m.kept[r.Name] = r.Value
		}
	}
	return nil
}

// wall is a wall clock that a test sets.
type wall struct {
	mu  sync.Mutex // guards at
	at  time.Time
	how int
}

func (w *wall) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.how++
	return w.at
}

func (w *wall) set(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
}

func clockOn(t *testing.T, k Keeper, w *wall, node string) *Clock {
	t.Helper()
	c, err := NewClock(t.Context(), ClockOptions{Node: node, Keeper: k, Now: w.now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func now(t *testing.T, c *Clock) ackwise.Stamp {
	t.Helper()
	s, err := c.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A wall clock that is set back, in one process or over restarts, never makes a stamp come again
// or go back; nor does a restart right after a stamp.
func TestClockNeverGoesBack(t *testing.T) {
	keeper, w := newMemory(), &wall{at: zeroTime}
	c := clockOn(t, keeper, w, "a")
	var last ackwise.Stamp
	for i, step := range []time.Duration{0, time.Millisecond, -time.Hour, 0, time.Second, -time.Minute,
		2 * time.Hour, -24 * time.Hour, 0, 0} {
		w.set(w.at.Add(step))
		for range 3 {
			s := now(t, c)
			if s.Compare(last) <= 0 {
				t.Fatalf("step %d: %s does not follow %s", i, s, last)
			}
			last = s
		}
		if i%2 == 1 { // killed: nothing is saved at the end
			c = clockOn(t, keeper, w, "a")
		}
	}
}

// The keeper saves ahead: about once a second, however many stamps are given.
func TestClockSavesOnceASecond(t *testing.T) {
	keeper, w := newMemory(), &wall{at: zeroTime}
	c := clockOn(t, keeper, w, "a")
	for range 10_000 { // ten seconds
		w.set(w.at.Add(time.Millisecond))
		now(t, c)
	}
	if keeper.saves > 11 {
		t.Errorf("%d saves in ten seconds", keeper.saves)
	}
}

// A stamp that is not saved ahead is not given.
func TestClockWaitsForItsKeeper(t *testing.T) {
	keeper, w := newMemory(), &wall{at: zeroTime}
	c := clockOn(t, keeper, w, "a")
	keeper.fail = errors.New("no disk")
	if s, err := c.Now(t.Context()); err == nil {
		t.Fatalf("%s was given without a save", s)
	}
	keeper.fail = nil
	now(t, c)
}

// A counter that is full moves the clock on.
func TestClockCounterOverflow(t *testing.T) {
	w := &wall{at: zeroTime}
	c := clockOn(t, newMemory(), w, "a")
	first := now(t, c)
	err := c.Observe(t.Context(), ackwise.Stamp{Millis: first.Millis, Counter: math.MaxUint32,
		Node: "z"})
	if err != nil {
		t.Fatal(err)
	}
	if s := now(t, c); s.Millis != first.Millis+1 || s.Counter != 0 {
		t.Errorf("behind a full counter comes %s", s)
	}
}

// A remote stamp too far ahead is refused and changes nothing; one within the bound is never
// overtaken, over a restart either.
func TestClockDrift(t *testing.T) {
	keeper, w := newMemory(), &wall{at: zeroTime}
	c := clockOn(t, keeper, w, "a")
	ahead := func(d time.Duration) ackwise.Stamp {
		return ackwise.Stamp{Millis: zeroTime.Add(d).UnixMilli(), Counter: 3, Node: "b"}
	}
	err := c.Observe(t.Context(), ahead(time.Minute+time.Millisecond))
	var drift *DriftError
	if !errors.As(err, &drift) || drift.Max != time.Minute {
		t.Fatalf("a minute and a millisecond ahead: %v", err)
	}
	if s := now(t, c); s.Millis != zeroTime.UnixMilli() {
		t.Errorf("a refused stamp moved the clock to %s", s)
	}
	if err := c.Observe(t.Context(), ahead(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c = clockOn(t, keeper, w, "a") // killed before it gave a stamp
	if s := now(t, c); s.Compare(ahead(time.Minute)) <= 0 {
		t.Errorf("%s does not follow what was observed before the restart", s)
	}
	if err := c.Observe(t.Context(), ackwise.Stamp{Millis: -1, Node: "b"}); err == nil {
		t.Error("a stamp before 1970 was observed")
	}
}

// Two nodes that observe each other order cause before effect, whatever their wall clocks say.
func TestClocksExchange(t *testing.T) {
	fast, slow := &wall{at: zeroTime.Add(30 * time.Second)}, &wall{at: zeroTime}
	a, b := clockOn(t, newMemory(), fast, "a"), clockOn(t, newMemory(), slow, "b")
	last := now(t, a)
	for i := range 100 {
		from := []*Clock{b, a}[i%2]
		if err := from.Observe(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		s := now(t, from)
		if s.Compare(last) <= 0 {
			t.Fatalf("%s does not follow %s, which it answers", s, last)
		}
		last = s
	}
}

// Stamps are unique among goroutines, also while the limit is saved.
func TestClockIsConcurrent(t *testing.T) {
	w := &wall{at: zeroTime}
	c, err := NewClock(t.Context(), ClockOptions{Node: "a", Keeper: newMemory(), Now: w.now,
		Ahead: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	got := make([][]ackwise.Stamp, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			for n := range 500 {
				if n%10 == 0 {
					w.set(zeroTime.Add(time.Duration(n) * time.Millisecond))
				}
				s, err := c.Now(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = append(got[i], s)
			}
		})
	}
	wg.Wait()
	seen := map[ackwise.Stamp]bool{}
	for _, ss := range got {
		if !slices.IsSortedFunc(ss, ackwise.Stamp.Compare) {
			t.Error("one goroutine saw the clock go back")
		}
		for _, s := range ss {
			if seen[s] {
				t.Fatalf("%s was given twice", s)
			}
			seen[s] = true
		}
	}
}

// On the real clock, one save a second in a second of stamps.
func TestClockOnPackageTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keeper := newMemory()
		c, err := NewClock(t.Context(), ClockOptions{Node: "a", Keeper: keeper})
		if err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range 300 {
			<-tick.C
			now(t, c)
		}
		if keeper.saves > 4 {
			t.Errorf("%d saves in three seconds", keeper.saves)
		}
	})
}

func TestClockOptions(t *testing.T) {
	for name, o := range map[string]ClockOptions{
		"no node":           {Keeper: newMemory()},
		"no keeper":         {Node: "a"},
		"a node with space": {Node: "a b", Keeper: newMemory()},
		"no drift":          {Node: "a", Keeper: newMemory(), MaxDrift: -1},
	} {
		if _, err := NewClock(t.Context(), o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	other := newMemory()
	other.kept["ksomething"] = []byte{1}
	if _, err := NewClock(t.Context(), ClockOptions{Node: "a", Keeper: other}); err == nil {
		t.Error("a sequencer's keeper is accepted")
	}
}

// A clock on a file goes on behind its last stamp.
func TestClockOnAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "clock")
	w := &wall{at: zeroTime}
	var last ackwise.Stamp
	for range 5 {
		k, err := OpenFileKeeper(dir)
		if err != nil {
			t.Fatal(err)
		}
		s := now(t, clockOn(t, k, w, "a"))
		if s.Compare(last) <= 0 {
			t.Fatalf("%s does not follow %s", s, last)
		}
		last = s
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Restarts in a row, while the wall clock hardly moves, do not carry a clock away: a peer with the
// same wall clock still takes its stamps. So does one whose MaxDrift is more than what the clock
// may have observed and its Ahead.
func TestRestartsDoNotCarryAClockAway(t *testing.T) {
	w := &wall{at: zeroTime}
	peer := clockOn(t, newMemory(), w, "peer")
	keeper := newMemory()
	var last ackwise.Stamp
	for range 90 {
		s := now(t, clockOn(t, keeper, w, "a"))
		if s.Compare(last) <= 0 {
			t.Fatalf("%s does not follow %s", s, last)
		}
		last = s
	}
	if err := peer.Observe(t.Context(), last); err != nil {
		t.Error(err)
	}
	c := clockOn(t, keeper, w, "a")
	far := ackwise.Stamp{Millis: w.at.Add(time.Minute).UnixMilli(), Node: "x"}
	if err := c.Observe(t.Context(), far); err != nil {
		t.Fatal(err)
	}
	for range 90 {
		last = now(t, clockOn(t, keeper, w, "a"))
	}
	patient, err := NewClock(t.Context(), ClockOptions{Node: "b", Keeper: newMemory(), Now: w.now,
		MaxDrift: time.Minute + 2*time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := patient.Observe(t.Context(), last); err != nil {
		t.Error(err)
	}
}
