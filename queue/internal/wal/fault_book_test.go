package wal

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise/internal/vfs"
)

// longFaults reports whether the long fault runs were asked for.
func longFaults() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

// enumerated is up to how many unsynced things every subset of them is tried.
const enumerated = 10

// faultOptions make every history long enough to have several segments.
func faultOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, SegmentBytes: 1024, StoreID: [16]byte{7}}
}

// book is the oracle: the client's own list of what it appended, and what it was told.
type book struct {
	mu    sync.Mutex // the log's goroutine looks at the list while the client writes to it
	sent  []string
	pos   []uint64 // of sent; the last unit's may still be missing
	units []bookUnit
	freed int // of sent, the client let go
	kept  int // of sent, a Close or an Open that returned has made durable
}

// bookUnit is what one Append made atomic.
type bookUnit struct {
	end   int // of sent
	group *Group
}

// never is a rate: one of so many states.
const never = 1 << 30

// page is the list at one moment.
type page struct {
	sent            []string
	pos             []uint64
	ends            map[int]bool // where a unit ends
	freed           int
	written, synced int // of sent, told as such
}

func (b *book) page() page {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := page{sent: slices.Clone(b.sent), pos: slices.Clone(b.pos), freed: b.freed,
		ends:    map[int]bool{0: true, b.freed: true, len(b.sent): true, b.kept: true},
		written: b.kept, synced: b.kept}
	for _, u := range b.units {
		p.ends[u.end] = true
		if told(u.group.Written()) && u.group.Err() == nil {
			p.written = max(p.written, u.end)
		}
		if told(u.group.Synced()) && u.group.Err() == nil {
			p.synced = max(p.synced, u.end)
		}
	}
	return p
}

func told(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// holds checks a log that was opened after a fault: all that was told is there, in its order and at
// its place, units are whole, and nothing is invented. It returns what is there, and where.
func (p *page) holds(l *Log, told int) (found []string, at []uint64, err error) {
	start := -1
	err = l.Replay(0, 0, func(r Record) error {
		got := string(r.Payload)
		if start < 0 {
			if start = slices.Index(p.sent, got); start < 0 || start > p.freed {
				return fmt.Errorf("it begins with %.20q", got)
			}
		}
		i := start + len(found)
		if i >= len(p.sent) || p.sent[i] != got || int(r.Type) != len(got)%256 {
			return fmt.Errorf("record %d is %.20q of type %d", i, got, r.Type)
		}
		if i < len(p.pos) && p.pos[i] != r.Pos {
			return fmt.Errorf("record %d stands at %d, not at %d", i, r.Pos, p.pos[i])
		}
		found, at = append(found, got), append(at, r.Pos)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	end := max(start, 0) + len(found)
	switch {
	case end < told && told > p.freed:
		return nil, nil, fmt.Errorf("%d records up to %d, but %d were told", len(found), end, told)
	case !p.ends[end] && len(found) > 0:
		return nil, nil, fmt.Errorf("it ends at %d, inside a unit", end)
	}
	if len(found) > 0 {
		r, err := l.ReadAt(at[len(at)-1], nil)
		if err != nil || string(r.Payload) != p.sent[end-1] {
			return nil, nil, fmt.Errorf("read of the last record: %.20q, %w", r.Payload, err)
		}
	}
	return found, at, nil
}

// counts says what was tried. Only states that were opened and judged count.
type counts struct {
	kills, cuts, again, rewritten, equal int
}

func (c *counts) states() int { return c.kills + c.cuts + c.again + c.rewritten }

func (c *counts) add(o counts) {
	c.kills += o.kills
	c.cuts += o.cuts
	c.again += o.again
	c.rewritten += o.rewritten
	c.equal += o.equal
}

func (c *counts) String() string {
	return fmt.Sprintf("%d crash states: %d kills, %d power cuts, %d second ones in recovery, "+
		"%d after writing on; %d equal ones passed over", c.states(), c.kills, c.cuts, c.again,
		c.rewritten, c.equal)
}

// player plays one history against a log in memory, and looks at what a fault leaves.
type player struct {
	disk *vfs.Mem
	fs   vfs.FS // of the log that the client uses; nil = disk
	log  *Log
	book book
	rng  *rand.Rand // draws the states
	text *rand.Rand // draws the payloads
	seed maphash.Seed
	opt  func(vfs.FS) Options

	judging sync.Mutex // guards all below: the log's goroutine and the client's judge
	counts
	deep, on int   // one of so many states is crashed again in recovery, or written on
	err      error // the first thing that is wrong
}

func newPlayer(seed uint64) *player {
	return &player{disk: vfs.NewMem(), rng: rand.New(rand.NewPCG(seed, 11)),
		text: rand.New(rand.NewPCG(seed, 12)),
		seed: maphash.MakeSeed(), opt: faultOptions, deep: 1, on: 1}
}

func (p *player) fail(what string, err error) {
	if p.err == nil && err != nil {
		p.err = fmt.Errorf("%s: %w", what, err)
	}
}

// do plays one operation: D a durable unit, N one that is not, B a big one that fills its segment,
// R the oldest segment is freed, I a quiet second in which the mark is written, O close and open.
func (p *player) do(op rune) error {
	switch op {
	case 'D', 'N', 'B':
		size := 20
		if op == 'B' {
			size = 1300
		}
		return p.append(op != 'N', size)
	case 'R':
		return p.remove()
	case 'I':
		time.Sleep(2 * markDelay) // virtual
		synctest.Wait()
		return nil
	case 'O':
		if p.log != nil {
			if err := p.log.Close(); err != nil {
				return err
			}
			p.book.mu.Lock()
			p.book.kept = len(p.book.sent)
			p.book.mu.Unlock()
		}
		o := p.opt(p.disk)
		if p.fs != nil {
			o.FS = p.fs
		}
		l, _, err := Open(o)
		p.log = l
		return err
	}
	return fmt.Errorf("no operation %c", op)
}

// append puts a unit of two records, of a length that depends on the operation only, so that what
// comes after a cut fits the place of what was cut.
func (p *player) append(durable bool, size int) error {
	b := &p.book
	unit := make([]Record, 2)
	b.mu.Lock()
	for i := range unit {
		s := fmt.Sprintf("%04d/%08x %s", len(b.sent), p.text.Uint32(), strings.Repeat("p", i*size))
		unit[i] = Record{Type: byte(len(s)), Payload: []byte(s)}
		b.sent = append(b.sent, s)
	}
	b.mu.Unlock()
	g := p.log.Append(unit, durable)
	b.mu.Lock()
	b.units = append(b.units, bookUnit{len(b.sent), g})
	b.pos = append(b.pos, unit[0].Pos, unit[1].Pos)
	b.mu.Unlock()
	if durable {
		<-g.Synced()
	} else {
		<-g.Written()
	}
	return g.Err()
}

// remove frees the oldest segment; the client knows by the positions what it lets go.
func (p *player) remove() error {
	all := p.log.Segments()
	if len(all) < 2 {
		return p.log.Remove(all[0].ID) // the one that is written: nothing happens
	}
	p.book.mu.Lock()
	for i, pos := range p.book.pos {
		if pos < all[0].End {
			p.book.freed = max(p.book.freed, i+1)
		}
	}
	p.book.mu.Unlock()
	return p.log.Remove(all[0].ID)
}

// crash looks at all that a kill and a power cut at this moment may leave.
func (p *player) crash(what string) {
	p.judging.Lock()
	defer p.judging.Unlock()
	if p.err != nil {
		return
	}
	now := p.book.page()
	p.kills++
	p.open(p.disk.Clone(), now, now.written, what+", killed")
	seen := map[uint64]bool{}
	for state := range p.disk.CrashStates(enumerated, p.rng) {
		if sum := state.Sum(p.seed); seen[sum] {
			p.equal++
			continue
		} else {
			seen[sum] = true
		}
		p.cuts++
		p.open(state, now, now.synced, what+", power cut")
	}
}

// open judges one state: it opens, in some states with a second fault at every call of that, and
// goes on writing where the crash has cut.
func (p *player) open(state *vfs.Mem, now page, told int, what string) {
	if p.err != nil {
		return
	}
	if p.rng.IntN(p.deep) == 0 {
		n := 0
		state.Watch(func(op vfs.Op) {
			if n++; op.Changes() {
				p.second(state, now, told, fmt.Sprintf("%s, then at call %d of recovery", what, n))
			}
		})
	}
	l, _, err := Open(p.opt(state))
	state.Watch(func(vfs.Op) {})
	if err != nil {
		p.fail(what, err)
		return
	}
	found, at, err := now.holds(l, told)
	p.fail(what, err)
	if p.rng.IntN(p.on) == 0 && p.err == nil {
		p.goOn(state, l, page{sent: found, pos: at}, what)
	}
	p.fail(what, l.Close())
}

// second crashes once more, in recovery.
func (p *player) second(state *vfs.Mem, now page, told int, what string) {
	seen := map[uint64]bool{}
	judge := func(m *vfs.Mem, told int) {
		if sum := m.Sum(p.seed); seen[sum] {
			p.equal++
			return
		} else {
			seen[sum] = true
		}
		p.again++
		l, _, err := Open(p.opt(m))
		if err != nil {
			p.fail(what, err)
			return
		}
		_, _, err = now.holds(l, told)
		p.fail(what, errors.Join(err, l.Close()))
	}
	judge(state.Clone(), told)
	for m := range state.CrashStates(enumerated, p.rng) {
		judge(m, min(told, now.synced))
	}
}

// goOn writes on after a recovery, units of the lengths that were cut, and crashes: what the
// recovery has shown is durable by now, and nothing of what it cut comes back.
func (p *player) goOn(state *vfs.Mem, l *Log, found page, what string) {
	q := &player{disk: state, log: l, rng: p.rng, text: p.rng, seed: p.seed, opt: p.opt,
		deep: never, on: never}
	q.book.sent, q.book.pos, q.book.kept = found.sent, found.pos, len(found.sent)
	what += ", written on"
	for range 2 {
		if err := q.append(true, 20); err != nil {
			p.fail(what, err)
			return
		}
		q.crash(what)
	}
	p.fail(what, q.err)
	p.rewritten += q.kills + q.cuts
	p.equal += q.equal
}

// play plays operations, and then some more, in which it crashes at every call that changes the
// disk, and behind each.
func (p *player) play(before, crashed string) error {
	for _, op := range "O" + before {
		if err := p.do(op); err != nil {
			return err
		}
	}
	synctest.Wait()
	n := 0
	p.disk.Watch(func(op vfs.Op) {
		if n++; op.Changes() {
			p.crash(fmt.Sprintf("before call %d of %s", n, crashed))
		}
	})
	for i, op := range crashed {
		if err := p.do(op); err != nil {
			return err
		}
		synctest.Wait()
		p.crash("after " + crashed[:i+1])
	}
	p.disk.Watch(func(vfs.Op) {})
	return errors.Join(p.err, p.log.Close())
}

// repeat names the command that repeats a failure.
func repeat(t *testing.T, seed uint64) string {
	return fmt.Sprintf("go test ./queue/internal/wal -run '%s' -seed %d", t.Name(), seed)
}
