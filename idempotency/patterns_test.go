package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

func newTable() *memstore.Table {
	return memstore.OpenTable(memstore.TableOptions{})
}

func wantValue(t *testing.T, table idempotency.Table, key, want string) {
	t.Helper()
	e, err := table.Get(t.Context(), key)
	if err != nil || string(e.Data) != want {
		t.Errorf("%s holds %q (%v), want %q", key, e.Data, err, want)
	}
}

func TestWriteSetsWhatTheMessageSays(t *testing.T) {
	table := newTable()
	h := idempotency.Write(table, func(d *ackwise.Delivery) (string, []byte, error) {
		if d.Body == nil {
			return d.Key, nil, nil
		}
		return d.Key, d.Body, nil
	})
	d := delivery("m1")
	d.Key = "plane"
	for range 3 {
		outcome(t, h, d, ackwise.OutcomeAck)
	}
	wantValue(t, table, "plane", "body of m1")
	gone := &ackwise.Delivery{Message: ackwise.Message{ID: "m2", Key: "plane"}}
	outcome(t, h, gone, ackwise.OutcomeAck)
	wantValue(t, table, "plane", "")
	outcome(t, h, delivery("no key"), ackwise.OutcomeDead)
	if _, err := table.Upsert(t.Context(), "plane", ackwise.Stamp{Millis: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if err := outcomeOf(t, h, d, ackwise.OutcomeDead); !strings.Contains(err.Error(),
		idempotency.ErrStamped.Error()) {
		t.Errorf("a key that is written with stamps: %v", err)
	}
}

func TestAFullTablePushesBack(t *testing.T) {
	table := memstore.OpenTable(memstore.TableOptions{MaxBytes: 500})
	h := idempotency.Write(table, func(d *ackwise.Delivery) (string, []byte, error) {
		return d.ID, d.Body, nil
	})
	d := delivery("m1")
	d.Body = make([]byte, 300)
	outcome(t, h, d, ackwise.OutcomeAck)
	if err := outcomeOf(t, h, delivery("m2"), ackwise.OutcomeNack); !errors.Is(err, ackwise.ErrFull) {
		t.Errorf("a full table: %v, want ErrFull", err)
	}
	if e, err := table.Get(t.Context(), "m1"); err != nil || len(e.Data) != 300 {
		t.Errorf("the other key holds %d bytes, %v", len(e.Data), err)
	}
	d.Body = nil
	outcome(t, h, d, ackwise.OutcomeAck)
	outcome(t, h, delivery("m2"), ackwise.OutcomeAck)
}

// Of any two different writes exactly one wins over the other, and winning is transitive: so every
// order of arrival ends alike.
func TestWinsIsATotalOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	type write struct {
		stamp ackwise.Stamp
		data  []byte
	}
	draw := func() write {
		w := write{stamp: ackwise.Stamp{Millis: 1 + r.Int64N(2), Counter: r.Uint32N(2),
			Node: []string{"", "a", "b"}[r.IntN(3)]}}
		if text := []string{"-", "", "x", "xx", "y", "\xff"}[r.IntN(6)]; text != "-" {
			w.data = []byte(text)
		}
		return w
	}
	equal := func(a, b write) bool {
		return a.stamp == b.stamp && bytes.Equal(a.data, b.data) && (a.data == nil) == (b.data == nil)
	}
	wins := func(a, b write) bool {
		return idempotency.Wins(a.stamp, a.data, idempotency.Entry{Data: b.data, Version: 1,
			Stamp: b.stamp, Deleted: b.data == nil})
	}
	ties := 0
	for range 20_000 {
		a, b, c := draw(), draw(), draw()
		if equal(a, b) && wins(a, b) {
			t.Fatalf("%v wins over itself", a)
		}
		if !equal(a, b) && wins(a, b) == wins(b, a) {
			t.Fatalf("of %v and %v both or none wins", a, b)
		}
		if wins(a, b) && wins(b, c) && !wins(a, c) {
			t.Fatalf("%v wins over %v, which wins over %v, and yet not over that", a, b, c)
		}
		if a.stamp == b.stamp && !equal(a, b) {
			ties++
		}
	}
	if ties == 0 {
		t.Error("no two writes had equal stamps")
	}
	for range 50 {
		all := make([]write, 7)
		for i := range all {
			all[i] = draw()
		}
		ends := ""
		for i := range 10 {
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			table := newTable()
			for _, w := range all {
				if _, err := table.Upsert(t.Context(), "k", w.stamp, w.data); err != nil {
					t.Fatal(err)
				}
			}
			e, err := table.Get(t.Context(), "k")
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%q %t at %s", e.Data, e.Deleted, e.Stamp)
			if i > 0 && got != ends {
				t.Fatalf("%v ends as %s, and in another order as %s", all, got, ends)
			}
			ends = got
		}
	}
}

func TestUpsertRefusesWhatNoRetryHelps(t *testing.T) {
	c, table := newClock(), newTable()
	now := c.now().UnixMilli()
	row := idempotency.Row{Key: "plane", Data: []byte("a")}
	h := idempotency.Upsert(table, func(*ackwise.Delivery) (idempotency.Row, error) {
		return row, nil
	}, idempotency.UpsertOptions{MaxDrift: time.Minute, Now: c.now})
	for _, k := range []struct {
		millis int64
		want   string // "" = accepted
	}{
		{now, ""}, {now + 60_000, ""}, {now - 1_000_000, ""},
		{now + 60_001, "it is 1m0.001s ahead of this clock, at most 1m0s are allowed"},
		{math.MaxInt64, "ahead of this clock"},
		{-1, "its time is before 1970"}, {0, "it is zero"},
	} {
		row.Stamp = ackwise.Stamp{Millis: k.millis}
		err := h.Handle(t.Context(), delivery("m1"))
		if k.want == "" {
			wantOutcome(t, err, ackwise.OutcomeAck)
			continue
		}
		if v := wantOutcome(t, err, ackwise.OutcomeDead); !strings.Contains(v.Reason, k.want) {
			t.Errorf("at %d: %s, want it to say %s", k.millis, v.Reason, k.want)
		}
	}
	if e, err := table.Get(t.Context(), "plane"); err != nil || e.Stamp.Millis != now+60_000 {
		t.Errorf("the table holds %+v, %v", e, err)
	}
	row = idempotency.Row{Stamp: ackwise.Stamp{Millis: 1}}
	outcome(t, h, delivery("m1"), ackwise.OutcomeDead)
	if err := table.Put(t.Context(), "plain", []byte("a")); err != nil {
		t.Fatal(err)
	}
	row.Key = "plain"
	outcome(t, h, delivery("m1"), ackwise.OutcomeDead)
	wantValue(t, table, "plain", "a")
}

// rival is a table whose key is written by somebody else between each read and the write.
type rival struct {
	*memstore.Table
	times int
}

func (r *rival) Swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error) {
	if r.times > 0 {
		r.times--
		if err := r.Put(ctx, key, fmt.Append(nil, r.times)); err != nil {
			return 0, err
		}
	}
	return r.Table.Swap(ctx, key, old, data)
}

func TestApplyWritesTheDifferenceOnly(t *testing.T) {
	table := &rival{Table: newTable()}
	to := func(value string) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) {
			if value == "-" {
				return nil, nil
			}
			return []byte(value), nil
		}
	}
	apply := func(value string, wrote bool, tries int) idempotency.Change {
		t.Helper()
		c, err := idempotency.Apply(t.Context(), table, "k", to(value))
		if err != nil || c.Wrote != wrote || c.Tries != tries {
			t.Errorf("apply %q: %+v, %v, want wrote %t after %d tries", value, c, err, wrote, tries)
		}
		return c
	}
	apply("-", false, 1)
	one := apply("a", true, 1)
	if same := apply("a", false, 1); same.Version != one.Version {
		t.Errorf("nothing was to write, and the version went from %d to %d", one.Version, same.Version)
	}
	apply("", true, 1)
	apply("", false, 1)
	apply("-", true, 1)
	table.times = 3
	apply("b", true, 4)
	table.times = 100
	if c, err := idempotency.Apply(t.Context(), table, "k", to("c")); !errors.Is(err,
		idempotency.ErrChanged) || c.Tries != 16 || c.Wrote {
		t.Errorf("a key that is always busy: %+v, %v, want ErrChanged after 16 tries", c, err)
	}
	broken := errors.New("broken")
	if _, err := idempotency.Apply(t.Context(), table, "k", func([]byte) ([]byte, error) {
		return nil, broken
	}); !errors.Is(err, broken) {
		t.Errorf("want's error became %v", err)
	}
}

func TestCompareAppliesAMessageOnce(t *testing.T) {
	table := newTable()
	// Each message says how far the carrier has flown up to and with its flight.
	h := idempotency.Compare(table,
		func(_ context.Context, d *ackwise.Delivery, have []byte) ([]byte, error) {
			was, _ := strconv.Atoi(string(have))
			is, err := strconv.Atoi(string(d.Body))
			if err != nil {
				return nil, ackwise.Reject(err)
			}
			return strconv.AppendInt(nil, int64(max(was, is)), 10), nil
		}, func(d *ackwise.Delivery) string { return d.Key })
	for _, body := range []string{"100", "250", "100", "250"} {
		d := delivery("m")
		d.Key, d.Body = "carrier", []byte(body)
		outcome(t, h, d, ackwise.OutcomeAck)
	}
	wantValue(t, table, "carrier", "250")
	outcome(t, h, delivery("no key"), ackwise.OutcomeDead)
	bad := delivery("m")
	bad.Key = "carrier"
	outcome(t, h, bad, ackwise.OutcomeDead)
}

func ask(key string) idempotency.Ask { return idempotency.Ask{Key: key} }

func TestOnceReturnsTheStoredResult(t *testing.T) {
	type receipt struct {
		Number int
		Text   string
	}
	c, calls := newClock(), 0
	s := openMemory(t, memstore.Options{Window: time.Hour, Now: c.now})
	charge := func(context.Context) (receipt, error) {
		calls++
		return receipt{calls, "paid"}, nil
	}
	for i := range 3 {
		got, again, err := idempotency.Once(t.Context(), s, ask("order 7"), charge)
		if err != nil || got != (receipt{1, "paid"}) || again != (i > 0) {
			t.Errorf("call %d: %+v, again %t, %v", i, got, again, err)
		}
	}
	c.advance(time.Hour + time.Hour/8)
	if got, again, err := idempotency.Once(t.Context(), s, ask("order 7"), charge); err != nil ||
		again || got.Number != 2 {
		t.Errorf("behind the window: %+v, again %t, %v", got, again, err)
	}
}

func TestOnceSaysWhyNot(t *testing.T) {
	s := &flaky{Store: openMemory(t, memstore.Options{MaxKeys: 2})}
	call := func(a idempotency.Ask, effect func() (string, error)) (string, bool, error) {
		return idempotency.Once(t.Context(), s, a,
			func(context.Context) (string, error) { return effect() })
	}
	never := func() (string, error) {
		t.Error("the effect was made")
		return "", nil
	}
	_, _, err := call(ask("m1"), func() (string, error) {
		_, _, err := call(ask("m1"), never)
		wantOutcome(t, err, ackwise.OutcomeSnooze)
		return "", errors.New("fails")
	})
	wantOutcome(t, err, ackwise.OutcomeNack)
	sum := idempotency.Ask{Key: "m1", Sum: idempotency.Sum{1}}
	if _, _, err := call(sum, func() (string, error) { return "ok", nil }); err != nil {
		t.Fatalf("after a failure: %v", err)
	}
	_, _, err = call(idempotency.Ask{Key: "m1", Sum: idempotency.Sum{2}}, never)
	wantOutcome(t, err, ackwise.OutcomeDead)
	_, _, err = call(ask(""), never)
	wantOutcome(t, err, ackwise.OutcomeDead)

	// A result that is too long is not kept, and the effect is not made again for its sake.
	long := func() (string, error) { return strings.Repeat("x", idempotency.MaxResultBytes), nil }
	if got, again, err := call(ask("m2"), long); err == nil || again || len(got) == 0 {
		t.Errorf("a result that is too long: %d bytes, again %t, %v", len(got), again, err)
	}
	if _, again, err := call(ask("m2"), never); err == nil || !again {
		t.Errorf("and its duplicate: again %t, %v, want an error", again, err)
	}
	_, _, err = call(ask("m3"), never)
	if wantOutcome(t, err, ackwise.OutcomeNack); !errors.Is(err, ackwise.ErrFull) {
		t.Errorf("a full store: %v", err)
	}
	s.set(func(f *flaky) { f.claimDown = always })
	_, _, err = call(ask("m1"), never)
	if wantOutcome(t, err, ackwise.OutcomeNack); !errors.Is(err, errDown) {
		t.Errorf("a store that is away: %v", err)
	}
	s.faults(t)
}

func TestOnceSaysThatTheCompletionIsNotKnown(t *testing.T) {
	t.Run("x", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &flaky{Store: openMemory(t, memstore.Options{}), settleDown: alwaysVerb}
			got, again, err := idempotency.Once(t.Context(), s, ask("m1"),
				func(context.Context) (int, error) { return 7, nil })
			if got != 7 || again || !errors.Is(err, errDown) ||
				!strings.Contains(err.Error(), "its effect was made, its completion is not known") {
				t.Errorf("got %d, again %t, %v", got, again, err)
			}
			s.faults(t)
		})
	})
}
