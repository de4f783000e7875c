package vfs

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"testing"
)

// half makes a disk with unsynced things: blocks written behind a synced one, their length, and a
// file that got a name.
func half(t *testing.T, blocks int) *Mem {
	t.Helper()
	m := NewMem()
	must(t, m.MkdirAll("/d"))
	f, err := m.Create("/d/a")
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("s"), BlockBytes), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, m.SyncDir("/d"))
	_, err = f.WriteAt(bytes.Repeat([]byte("u"), blocks*BlockBytes), BlockBytes)
	must(t, err)
	_, err = m.Create("/d/b")
	must(t, err)
	return m
}

// form is what a state shows: a letter a block, then the names.
func form(t *testing.T, m *Mem) string {
	t.Helper()
	b, err := m.ReadFile("/d/a")
	must(t, err)
	if !bytes.Equal(b[:BlockBytes], bytes.Repeat([]byte("s"), BlockBytes)) {
		t.Fatal("the synced block was lost")
	}
	s := ""
	for at := BlockBytes; at < len(b); at += BlockBytes {
		s += string(max(b[at], '0'))
	}
	names, err := m.ReadDir("/d")
	must(t, err)
	return s + fmt.Sprint(names)
}

func TestCrashStatesAreAllSubsets(t *testing.T) {
	m := half(t, 2)
	var got []string
	n := 0
	seed := maphash.MakeSeed()
	sums := map[uint64]string{}
	for c := range m.CrashStates(10, rand.New(rand.NewPCG(1, 1))) {
		n++
		s := form(t, c)
		if was, ok := sums[c.Sum(seed)]; ok && was != s {
			t.Errorf("%s and %s have one sum", was, s)
		}
		sums[c.Sum(seed)] = s
		got = append(got, s)
	}
	slices.Sort(got)
	var want []string
	for _, blocks := range []string{"", "u", "00", "0u", "u0", "uu"} {
		want = append(want, blocks+"[a]", blocks+"[a b]")
	}
	slices.Sort(want)
	if got = slices.Compact(got); n != 16 || !slices.Equal(got, want) || len(sums) != len(want) {
		t.Errorf("%d states, %d sums, forms %v, want 16 of %v", n, len(sums), got, want)
	}
	if s := form(t, m); s != "uu[a b]" {
		t.Errorf("the disk itself became %s", s)
	}
}

func TestCrashStatesBeyondTheMost(t *testing.T) {
	m := half(t, 20)
	n := 0
	seen := map[string]bool{}
	for c := range m.CrashStates(10, rand.New(rand.NewPCG(1, 1))) {
		n++
		seen[form(t, c)] = true
	}
	none, all := "[a]", string(bytes.Repeat([]byte("u"), 20))+"[a b]"
	if n != manyStates || len(seen) < 40 || !seen[none] || !seen[all] {
		t.Errorf("%d states, %d forms, none %t, all %t", n, len(seen), seen[none], seen[all])
	}
}

func TestWatchAndFlip(t *testing.T) {
	m := half(t, 1)
	var ops []Op
	m.Watch(func(op Op) { ops = append(ops, op) })
	f, err := m.Edit("/d/a")
	must(t, err)
	must(t, f.Sync())
	must(t, m.Clone().SyncDir("/d")) // not watched
	if !slices.Equal(ops, []Op{OpOpen, OpSync}) {
		t.Errorf("saw %v", ops)
	}
	must(t, m.Flip("/d/a", 3, 's'^'x'))
	b, err := m.CrashClone(rand.New(rand.NewPCG(1, 1))).ReadFile("/d/a")
	must(t, err)
	if b[3] != 'x' || b[2] != 's' {
		t.Errorf("after the flip: %q", b[:8])
	}
}

// What a system forgets after a failed sync is read until the power goes, and no later sync saves
// it.
func TestForgetDirty(t *testing.T) {
	m := half(t, 1)
	m.ForgetDirty()
	f, err := m.Edit("/d/a")
	must(t, err)
	must(t, f.Sync())
	must(t, m.SyncDir("/d"))
	if s := form(t, m); s != "u[a b]" {
		t.Errorf("before the cut: %s", s)
	}
	if s := form(t, m.CrashClone(rand.New(rand.NewPCG(1, 1)))); s != "0[a b]" {
		t.Errorf("after the cut: %s", s)
	}
}
