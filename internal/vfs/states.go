package vfs

import (
	"hash/maphash"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
)

// manyStates is how many states CrashStates yields where not every subset is tried.
const manyStates = 64

// cutter decides what of the unsynced persists over a power cut.
type cutter interface {
	keepOp(op *memOp) bool
	keepBlock(n *memNode, block int64) bool
	// length says by how much of grown a file's length has changed. Blocks come after it.
	length(n *memNode, grown int) int
}

// unsynced names one thing that a power cut keeps or loses: a directory operation, a block of a
// file, or a file's length (block -1).
type unsynced struct {
	op    *memOp
	node  *memNode
	block int64
}

// CrashStates yields what a power cut may leave, after the legal model in the package comment. With
// up to most unsynced things (512-byte blocks, lengths of files, directory operations) it yields
// every subset of them; with more, 64: all, none, single ones missing or kept, beginnings, ends,
// and random ones. A length that is lost ends behind the last block that is kept. m is not changed,
// and may be used meanwhile.
func (m *Mem) CrashStates(most int, rng *rand.Rand) iter.Seq[*Mem] {
	base := m.Clone()
	return func(yield func(*Mem) bool) {
		things := base.unsynced()
		for keep := range subsets(len(things), most, rng) {
			c := chosen{}
			for i, thing := range things {
				c[thing] = keep[i]
			}
			if !yield(base.clone(c)) {
				return
			}
		}
	}
}

// unsynced lists what a power cut may lose, in an order that does not change.
func (m *Mem) unsynced() []unsynced {
	m.mu.Lock()
	defer m.mu.Unlock()
	var things []unsynced
	seen := map[*memNode]bool{}
	add := func(n *memNode) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		if len(n.data) != len(n.synced) {
			things = append(things, unsynced{node: n, block: -1})
		}
		for _, b := range slices.Sorted(maps.Keys(n.dirty)) {
			things = append(things, unsynced{node: n, block: b})
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(m.dirs)) {
		d := m.dirs[dir]
		for i := range d.ops {
			things = append(things, unsynced{op: &d.ops[i]})
			add(d.ops[i].node)
		}
		for _, name := range slices.Sorted(maps.Keys(d.synced)) {
			add(d.synced[name])
		}
	}
	return things
}

// subsets yields all subsets of n things, or 64 chosen ones where n is more than most. The slice is
// used again.
func subsets(n, most int, rng *rand.Rand) iter.Seq[[]bool] {
	keep := make([]bool, n)
	return func(yield func([]bool) bool) {
		if n <= most {
			for bits := range 1 << n {
				for i := range keep {
					keep[i] = bits>>i&1 == 1
				}
				if !yield(keep) {
					return
				}
			}
			return
		}
		forms := ordered(n, rng)
		for at := range manyStates {
			bias := [...]float64{0.1, 0.5, 0.9}[rng.IntN(3)]
			for i := range keep {
				if at < len(forms) {
					keep[i] = forms[at](i)
				} else {
					keep[i] = rng.Float64() < bias
				}
			}
			if !yield(keep) {
				return
			}
		}
	}
}

// ordered returns the regular subsets of many things: none, all, and a draw of the others.
func ordered(n int, rng *rand.Rand) []func(i int) bool {
	var others []func(i int) bool
	for at := range n {
		others = append(others,
			func(i int) bool { return i != at }, // it alone is missing
			func(i int) bool { return i == at }, // it alone is kept
			func(i int) bool { return i < at },  // those before it
			func(i int) bool { return i > at })  // those behind it
	}
	rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	none, all := func(int) bool { return false }, func(int) bool { return true }
	return append([]func(i int) bool{none, all}, others[:min(len(others), manyStates-16)]...)
}

// chosen is a cutter that was told.
type chosen map[unsynced]bool

func (c chosen) keepOp(op *memOp) bool { return c[unsynced{op: op}] }

func (c chosen) keepBlock(n *memNode, block int64) bool {
	return c[unsynced{node: n, block: block}]
}

func (c chosen) length(n *memNode, grown int) int {
	if c[unsynced{node: n, block: -1}] {
		return grown
	}
	end := 0
	for b := range n.dirty {
		if c.keepBlock(n, b) {
			end = max(end, int(b+1)*BlockBytes-len(n.synced))
		}
	}
	return min(end, grown)
}

// Watch has fn called before each call, by its goroutine and outside any mutex, so that a test can
// look at the disk at that moment, or let the call take its time. A clone is not watched.
func (m *Mem) Watch(fn func(Op)) { m.watch.Store(&fn) }

func (m *Mem) called(op Op) {
	if fn := m.watch.Load(); fn != nil {
		(*fn)(op)
	}
}

// ForgetDirty does what some systems do when a sync fails: what was written and not synced can
// still be read, but counts as clean, so that no later sync writes it. A power cut loses it.
func (m *Mem) ForgetDirty() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.dirs {
		for _, n := range d.names {
			clear(n.dirty)
		}
	}
}

// Flip changes bits of a byte of a file in place, synced content too: a rotten disk.
func (m *Mem) Flip(name string, at int64, mask byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("flip", name)
	if err != nil {
		return err
	}
	n := d.names[base]
	n.own()
	n.data[at] ^= mask
	if at < int64(len(n.synced)) {
		n.synced[at] ^= mask
	}
	return nil
}

// Sum returns a hash of all names and contents, by which equal states are told.
func (m *Mem) Sum(seed maphash.Seed) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var h maphash.Hash
	h.SetSeed(seed)
	for _, dir := range slices.Sorted(maps.Keys(m.dirs)) {
		d := m.dirs[dir]
		for _, name := range slices.Sorted(maps.Keys(d.names)) {
			n := d.names[name]
			maphash.WriteComparable(&h, struct {
				dir, name string
				size      int
			}{dir, name, len(n.data)})
			_, _ = h.Write(n.data) // never fails
		}
	}
	return h.Sum64()
}

// Used returns the bytes of all files, as SetCapacity bounds them.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}
