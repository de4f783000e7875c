package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// TableHarness makes the tables under test.
type TableHarness struct {
	// Open opens an empty table. It is closed by its own t.Cleanup.
	Open func(t *testing.T) idempotency.Table
	// Reopen closes a table and opens it again, as a new process would. Nil = it cannot be.
	Reopen func(t *testing.T, table idempotency.Table) idempotency.Table
	// Advance moves the clock of every open table. Nil = time is real.
	Advance func(d time.Duration)
}

// RunTable runs the contract of a table. Every test has a table of its own.
func RunTable(t *testing.T, h TableHarness) {
	for _, c := range []struct {
		name string
		test func(*tableBench)
	}{
		{"a value is read as it was put", putsAndGets},
		{"nil data removes", removes},
		{"versions change with every write and never come again", versions},
		{"a swap wants the version that is there", swaps},
		{"of many swaps from one version one wins", swapsOnce},
		{"many increments by Apply are exact", appliesAll},
		{"the later stamp wins", upserts},
		{"every order of arrival ends alike", endsAlike},
		{"equal stamps go by the fixed rule", breaksTies},
		{"many upserts at once end as one after the other", upsertsAtOnce},
		{"a tombstone loses to later stamps only", keepsTombstones},
		{"old tombstones are purged, values never", purges},
		{"a key is written with stamps or without", separatesWays},
		{"a stamp that is none is refused", refusesStamps},
		{"an ended context does nothing", tableEndsWithContext},
		{"everything survives a close", tableSurvives},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			c.test(&tableBench{T: t, ctx: ctx, h: h, Table: h.Open(t)})
		})
	}
}

// tableBench is one test's table and what the test needs around it.
type tableBench struct {
	*testing.T
	idempotency.Table
	ctx context.Context
	h   TableHarness
}

func (b *tableBench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *tableBench) wantErr(what string, got, want error) {
	b.Helper()
	if !errors.Is(got, want) {
		b.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// get reads a key and checks its data; want nil = missing or a tombstone.
func (b *tableBench) get(key string, want []byte) idempotency.Entry {
	b.Helper()
	e, err := b.Get(b.ctx, key)
	b.check(err)
	if !bytes.Equal(e.Data, want) || (e.Data == nil) != (want == nil) {
		b.Fatalf("%s holds %q (nil: %t), want %q", key, e.Data, e.Data == nil, want)
	}
	if want != nil && (e.Version == 0 || e.Deleted) {
		b.Fatalf("%s: %+v, want a version and no tombstone", key, e)
	}
	return e
}

// upsert upserts a value ("-" = a tombstone) and checks whether it was written.
func (b *tableBench) upsert(key string, stamp ackwise.Stamp, value string, want bool) {
	b.Helper()
	wrote, err := b.Upsert(b.ctx, key, stamp, dataOf(value))
	b.check(err)
	if wrote != want {
		b.Errorf("upsert %q at %s: wrote %t, want %t", value, stamp, wrote, want)
	}
}

func dataOf(value string) []byte {
	if value == "-" {
		return nil
	}
	return []byte(value)
}

func at(millis int64) ackwise.Stamp { return ackwise.Stamp{Millis: millis, Node: "n"} }

func putsAndGets(b *tableBench) {
	if e := b.get("missing", nil); e.Version != 0 || e.Deleted || !e.Stamp.IsZero() {
		b.Errorf("a missing key is %+v", e)
	}
	for i, value := range [][]byte{[]byte("a"), {}, {0, 255, '\'', 0},
		bytes.Repeat([]byte("x"), 9999)} {
		key := fmt.Sprintf("k/%d é", i)
		b.check(b.Put(b.ctx, key, value))
		if e := b.get(key, value); !e.Stamp.IsZero() {
			b.Errorf("a value that was put has the stamp %s", e.Stamp)
		}
	}
	value := []byte("mine")
	b.check(b.Put(b.ctx, "owned", value))
	copy(value, "your")
	got := b.get("owned", []byte("mine"))
	copy(got.Data, "your")
	b.get("owned", []byte("mine"))
}

func removes(b *tableBench) {
	b.check(b.Put(b.ctx, "k", nil)) // which is not there
	b.check(b.Put(b.ctx, "k", []byte("a")))
	b.check(b.Put(b.ctx, "k", nil))
	if e := b.get("k", nil); e.Version != 0 || e.Deleted {
		b.Errorf("a removed key is %+v, want a missing one", e)
	}
	b.check(b.Put(b.ctx, "k", []byte("b")))
	e := b.get("k", []byte("b"))
	_, err := b.Swap(b.ctx, "k", e.Version, nil)
	b.check(err)
	b.get("k", nil)
}

func versions(b *tableBench) {
	seen := map[uint64]bool{0: true}
	see := func(what string) uint64 {
		b.Helper()
		e, err := b.Get(b.ctx, "k")
		b.check(err)
		if seen[e.Version] {
			b.Fatalf("%s: the version %d was there before", what, e.Version)
		}
		seen[e.Version] = true
		return e.Version
	}
	var first uint64
	for i := range 4 {
		b.check(b.Put(b.ctx, "k", []byte("same")))
		if v := see("put"); i == 0 {
			first = v
		}
		v, err := b.Swap(b.ctx, "k", versionOf(b, "k"), []byte("same"))
		b.check(err)
		if got := see("swap"); got != v {
			b.Errorf("swap returned the version %d, and %d is there", v, got)
		}
		b.check(b.Put(b.ctx, "k", nil))
	}
	b.check(b.Put(b.ctx, "k", []byte("same")))
	_, err := b.Swap(b.ctx, "k", first, []byte("old"))
	b.wantErr("swap from a version of before a removal", err, idempotency.ErrChanged)

	b.upsert("s", at(1), "a", true)
	one := b.get("s", []byte("a")).Version
	b.upsert("s", at(2), "a", true)
	if two := b.get("s", []byte("a")).Version; two == one {
		b.Errorf("an upsert left the version %d", two)
	}
}

func versionOf(b *tableBench, key string) uint64 {
	b.Helper()
	e, err := b.Get(b.ctx, key)
	b.check(err)
	return e.Version
}

func swaps(b *tableBench) {
	_, err := b.Swap(b.ctx, "k", 7, []byte("a"))
	b.wantErr("swap of a missing key from a version", err, idempotency.ErrChanged)
	b.get("k", nil)
	v, err := b.Swap(b.ctx, "k", 0, []byte("a"))
	b.check(err)
	_, err = b.Swap(b.ctx, "k", 0, []byte("b"))
	b.wantErr("swap of what is there as if it were missing", err, idempotency.ErrChanged)
	_, err = b.Swap(b.ctx, "k", v+1000, []byte("b"))
	b.wantErr("swap from another version", err, idempotency.ErrChanged)
	_, err = b.Swap(b.ctx, "k", v+1000, nil)
	b.wantErr("removal of another version", err, idempotency.ErrChanged)
	b.get("k", []byte("a"))
	_, err = b.Swap(b.ctx, "k", v, []byte("b"))
	b.check(err)
	b.get("k", []byte("b"))
	_, err = b.Swap(b.ctx, "k", v, []byte("c"))
	b.wantErr("swap from the same version again", err, idempotency.ErrChanged)
	b.get("k", []byte("b"))
}

// atOnce runs f for each of n and waits for all.
func atOnce(n int, f func(i int) error) error {
	errs := make([]error, n)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	return errors.Join(errs...)
}

func swapsOnce(b *tableBench) {
	for round := range 10 {
		old := versionOf(b, "k") // 0 the first time
		won := make([]bool, 6)
		b.check(atOnce(len(won), func(i int) error {
			_, err := b.Swap(b.ctx, "k", old, fmt.Appendf(nil, "%d-%d", round, i))
			won[i] = err == nil
			if errors.Is(err, idempotency.ErrChanged) {
				return nil
			}
			return err
		}))
		winner := -1
		for i, w := range won {
			if w && winner >= 0 {
				b.Fatalf("both swap %d and swap %d from one version succeeded", winner, i)
			}
			if w {
				winner = i
			}
		}
		if winner < 0 {
			b.Fatal("no swap succeeded")
		}
		b.get("k", fmt.Appendf(nil, "%d-%d", round, winner))
	}
}

func appliesAll(b *tableBench) {
	const workers, each = 4, 10
	add := func(have []byte) ([]byte, error) {
		n := 0
		if have != nil {
			var err error
			if n, err = strconv.Atoi(string(have)); err != nil {
				return nil, err
			}
		}
		return strconv.AppendInt(nil, int64(n+1), 10), nil
	}
	b.check(atOnce(workers, func(int) error {
		for range each {
			// One that has lost every one of its tries to the others begins again.
			_, err := idempotency.Apply(b.ctx, b.Table, "n", add)
			for errors.Is(err, idempotency.ErrChanged) {
				_, err = idempotency.Apply(b.ctx, b.Table, "n", add)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	b.get("n", strconv.AppendInt(nil, workers*each, 10))
}

func upserts(b *tableBench) {
	b.upsert("k", at(5), "five", true)
	b.upsert("k", at(5), "five", false) // it is there already
	b.upsert("k", at(4), "four", false)
	b.upsert("k", at(6), "six", true)
	b.upsert("k", ackwise.Stamp{Millis: 6, Counter: 1, Node: "a"}, "six and one", true)
	b.upsert("k", ackwise.Stamp{Millis: 6, Counter: 1, Node: "B"}, "B is before a", false)
	b.upsert("k", ackwise.Stamp{Millis: 6, Counter: 1, Node: "b"}, "b", true)
	b.upsert("k", ackwise.Stamp{Millis: 1 << 45, Counter: 1<<32 - 1, Node: "b"}, "", true)
	e := b.get("k", []byte{})
	if want := (ackwise.Stamp{Millis: 1 << 45, Counter: 1<<32 - 1, Node: "b"}); e.Stamp != want {
		b.Errorf("the stamp is %s, want %s", e.Stamp, want)
	}
	b.upsert("k", ackwise.Stamp{Millis: 1 << 45, Node: "z"}, "fewer", false)
}

// write is one upsert of a history.
type write struct {
	stamp ackwise.Stamp
	value string
}

// history makes writes with stamps that tie often.
func history(r *rand.Rand, n int) []write {
	all := make([]write, n)
	for i := range all {
		all[i] = write{ackwise.Stamp{Millis: 1 + r.Int64N(3), Counter: r.Uint32N(2),
			Node: []string{"a", "b"}[r.IntN(2)]}, []string{"-", "", "x", "xx", "y"}[r.IntN(5)]}
	}
	return all
}

// settled returns the value that a history has to end with, by trying every write against all.
func settled(all []write) (ackwise.Stamp, string) {
	best := all[0]
	for _, w := range all[1:] {
		c := w.stamp.Compare(best.stamp)
		if c == 0 && best.value != "-" && (w.value == "-" || w.value > best.value) {
			c = 1
		}
		if c > 0 {
			best = w
		}
	}
	return best.stamp, best.value
}

func (b *tableBench) wantSettled(key string, all []write) {
	b.Helper()
	stamp, value := settled(all)
	e := b.get(key, dataOf(value))
	if e.Stamp != stamp || e.Deleted != (value == "-") {
		b.Fatalf("%s ends as %+v, want %q at %s", key, e, value, stamp)
	}
}

func endsAlike(b *tableBench) {
	seed := rand.Uint64()
	b.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	all := history(r, 8)
	for i := range 8 {
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		key := fmt.Sprintf("k%d", i)
		for _, w := range append(all, all[r.IntN(len(all))]) { // and one of them comes again
			_, err := b.Upsert(b.ctx, key, w.stamp, dataOf(w.value))
			b.check(err)
		}
		b.wantSettled(key, all)
	}
}

func breaksTies(b *tableBench) {
	b.upsert("k", at(1), "b", true)
	b.upsert("k", at(1), "a", false)
	b.upsert("k", at(1), "ba", true)
	b.upsert("k", at(1), "c", true)
	b.upsert("k", at(1), "\xff", true)
	b.upsert("k", at(1), "-", true)
	b.upsert("k", at(1), "\xff\xff", false)
	b.upsert("k", at(1), "-", false)
	if e := b.get("k", nil); !e.Deleted || e.Version == 0 || e.Stamp != at(1) {
		b.Errorf("the tombstone is %+v", e)
	}
}

func upsertsAtOnce(b *tableBench) {
	seed := rand.Uint64()
	b.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 5 {
		key, all := fmt.Sprintf("k%d", i), history(r, 8)
		b.check(atOnce(len(all), func(i int) error {
			_, err := b.Upsert(b.ctx, key, all[i].stamp, dataOf(all[i].value))
			return err
		}))
		b.wantSettled(key, all)
	}
}

func keepsTombstones(b *tableBench) {
	b.upsert("k", at(5), "-", true) // of a key that is not there
	b.upsert("k", at(4), "late", false)
	b.upsert("k", at(5), "equal", false)
	if e := b.get("k", nil); !e.Deleted {
		b.Errorf("%+v, want a tombstone", e)
	}
	b.upsert("k", at(6), "back", true)
	if e := b.get("k", []byte("back")); e.Stamp != at(6) {
		b.Errorf("%+v, want the stamp %s", e, at(6))
	}
	b.upsert("k", at(7), "-", true)
	b.upsert("k", at(6), "back", false)
	b.get("k", nil)
}

func purges(b *tableBench) {
	b.upsert("old", at(9), "a", true)
	b.upsert("old", at(10), "-", true)
	b.upsert("value", at(1), "a", true)
	b.check(b.Put(b.ctx, "plain", []byte("a")))
	purge := func(age time.Duration, want int) {
		b.Helper()
		n, err := b.Purge(b.ctx, age)
		b.check(err)
		if n != want {
			b.Errorf("purged %d tombstones of more than %s, want %d", n, age, want)
		}
	}
	purge(time.Hour, 0)
	if b.h.Advance != nil {
		b.h.Advance(time.Hour + time.Second)
		b.upsert("young", at(1), "-", true)
		purge(time.Hour, 1)
		purge(time.Hour, 0)
		b.upsert("young", at(1), "late", false)
	} else {
		total, tick := 0, time.NewTicker(10*time.Millisecond)
		defer tick.Stop()
		for total == 0 { // until the store's clock has gone on by a millisecond
			n, err := b.Purge(b.ctx, time.Millisecond)
			b.check(err)
			total += n
			<-tick.C
		}
	}
	if e := b.get("old", nil); e.Version != 0 || e.Deleted {
		b.Errorf("a purged key is %+v, want a missing one", e)
	}
	b.get("value", []byte("a"))
	b.get("plain", []byte("a"))
	b.upsert("old", at(8), "back", true) // what is purged knows nothing
	b.get("old", []byte("back"))
}

func separatesWays(b *tableBench) {
	b.check(b.Put(b.ctx, "plain", []byte("a")))
	_, err := b.Upsert(b.ctx, "plain", at(1), []byte("b"))
	b.wantErr("upsert of a plain value", err, idempotency.ErrStamped)
	_, err = b.Upsert(b.ctx, "plain", at(1), nil)
	b.wantErr("delete by stamp of a plain value", err, idempotency.ErrStamped)
	b.get("plain", []byte("a"))

	b.upsert("value", at(1), "a", true)
	b.upsert("tombstone", at(1), "-", true)
	for _, key := range []string{"value", "tombstone"} {
		version := versionOf(b, key)
		b.wantErr("put of "+key, b.Put(b.ctx, key, []byte("b")), idempotency.ErrStamped)
		b.wantErr("remove "+key, b.Put(b.ctx, key, nil), idempotency.ErrStamped)
		_, err = b.Swap(b.ctx, key, version, []byte("b"))
		b.wantErr("swap of "+key, err, idempotency.ErrStamped)
	}
	b.get("value", []byte("a"))
	b.get("tombstone", nil)
	b.check(b.Put(b.ctx, "plain", nil))
	b.upsert("plain", at(1), "free again", true)
}

func refusesStamps(b *tableBench) {
	for _, stamp := range []ackwise.Stamp{{}, {Millis: -1, Node: "n"}, {Millis: 1, Node: "a b"}} {
		_, err := b.Upsert(b.ctx, "k", stamp, []byte("a"))
		if _, ok := errors.AsType[*ackwise.InvalidError](err); !ok {
			b.Errorf("upsert at the stamp %+v: %v, want an *ackwise.InvalidError", stamp, err)
		}
	}
	b.get("k", nil)
}

func tableEndsWithContext(b *tableBench) {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	_, errGet := b.Get(ctx, "k")
	_, errSwap := b.Swap(ctx, "k", 0, []byte("a"))
	_, errUpsert := b.Upsert(ctx, "k", at(1), []byte("a"))
	_, errPurge := b.Purge(ctx, 0)
	for what, err := range map[string]error{"get": errGet, "swap": errSwap, "upsert": errUpsert,
		"purge": errPurge, "put": b.Put(ctx, "k", []byte("a"))} {
		if err == nil {
			b.Errorf("%s with an ended context: no error", what)
		}
	}
	b.get("k", nil)
}

func tableSurvives(b *tableBench) {
	if b.h.Reopen == nil {
		b.Skip("this table does not outlive its process")
	}
	b.check(b.Put(b.ctx, "plain", []byte("a")))
	version := versionOf(b, "plain")
	b.check(b.Put(b.ctx, "removed", []byte("a")))
	removed := versionOf(b, "removed")
	b.check(b.Put(b.ctx, "removed", nil))
	b.upsert("value", at(5), "a", true)
	b.upsert("tombstone", at(5), "-", true)

	b.Table = b.h.Reopen(b.T, b.Table)
	if e := b.get("plain", []byte("a")); e.Version != version {
		b.Errorf("the version is %d after a close, was %d", e.Version, version)
	}
	b.upsert("value", at(4), "late", false)
	b.upsert("tombstone", at(4), "late", false)
	b.check(b.Put(b.ctx, "removed", []byte("a")))
	if got := versionOf(b, "removed"); got == removed {
		b.Errorf("the version %d came again after a close", got)
	}
}
