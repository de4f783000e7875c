package logsource

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

// dense is the part of a note that says much of many neighbours, where positions are decimal
// numbers of one length (offsets): two bits for each number from origin on.
//
//	part     bytes   content
//	origin   P       against base
//	other    1+      flags and counts as of an entry, see note: what code 3 stands for
//	bits     uvarint number of bytes, then four codes in each, the lowest bits first
//
// The codes are 0: nothing is said, 1: handed out once, for the first time, and in flight,
// 2: settled, 3: an entry like other. A number that is no message's has code 0 or 2.
type dense struct {
	origin ackwise.Position
	other  entry  // without a position
	count  uint64 // numbers that there is room for
	bits   []byte
	named  int     // entries in bits
	loose  []entry // that have to be named one by one
	cut    bool    // not all that there is to say is in it
}

const (
	codeOut     = 1
	codeSettled = 2
	codeOther   = 3
)

// plainOut is what most entries are.
func plainOut(pos ackwise.Position) entry {
	return entry{pos: pos, out: true, cause: ackwise.CauseFirst,
		counts: ackwise.Counts{HandOuts: 1}}
}

// number reads a position as a decimal number.
func number(p ackwise.Position) (uint64, bool) {
	v, err := strconv.ParseUint(string(p), 10, 63)
	return v, err == nil && p[0] != '+'
}

// distance is how many numbers lie from one position to a later one. Most neighbours differ in
// their last digits only, and only those are read.
func distance(from, to ackwise.Position) (uint64, bool) {
	if len(from) != len(to) {
		return 0, false
	}
	same := 0
	for same < len(to) && from[same] == to[same] {
		if to[same]-'0' > 9 {
			return 0, false
		}
		same++
	}
	a, ok := suffix(from[same:])
	b, ok2 := suffix(to[same:])
	return b - a, ok && ok2 && a <= b
}

// suffix reads the last digits of a number.
func suffix(p ackwise.Position) (v uint64, ok bool) {
	if len(p) > maxSuffix {
		return 0, false
	}
	for i := range len(p) {
		digit := p[i] - '0'
		if digit > 9 {
			return 0, false
		}
		v = v*10 + uint64(digit)
	}
	return v, true
}

// maxSuffix digits fit 63 bits.
const maxSuffix = 18

func (n *note) firstAndLast() (first, last ackwise.Position) {
	if w := n.window; len(w) > 0 {
		return w[0].pos, w[len(w)-1].pos
	}
	if k := len(n.entries); k > 0 {
		first, last = n.entries[0].pos, n.entries[k-1].pos
	}
	if k := len(n.spans); k > 0 {
		if first == "" || n.spans[0].first < first {
			first = n.spans[0].first
		}
		last = max(last, n.spans[k-1].last)
	}
	return first, last
}

// dense makes the dense part of at most room bytes; ok = positions are such numbers.
func (n *note) dense(room int) (d dense, ok bool) {
	first, last := n.firstAndLast()
	count, ok := distance(first, last)
	if _, isNumber := number(first); !ok || !isNumber || room < 64 {
		return d, false
	}
	count++
	d = dense{origin: first, count: min(count, uint64(room)*4)}
	d.bits = make([]byte, (d.count+3)/4)
	if n.window != nil {
		ok = d.addWindow(n.window, n.now, count == uint64(len(n.window)))
	} else {
		d.other = commonest(n.entries)
		ok = d.addEntries(n.entries) && d.addSpans(n.spans)
	}
	return d, ok
}

// addWindow adds slots; adjacent says that their positions are one number after the other.
func (d *dense) addWindow(window []slot, now time.Time, adjacent bool) bool {
	var odd []entry
	for i := range window {
		s, at := &window[i], uint64(i)
		if s.state == slotFresh {
			continue
		}
		if !adjacent {
			var ok bool
			if at, ok = distance(d.origin, s.pos); !ok {
				return false
			}
		}
		switch {
		case s.state == slotNoted:
			odd = append(odd, s.entry(now))
		case at >= d.count:
			d.cut = true
		case s.state == slotSettled:
			d.set(at, codeSettled)
		default:
			d.set(at, codeOut)
			d.named++
		}
	}
	d.other = commonest(odd)
	return d.addEntries(odd)
}

func (d *dense) addEntries(entries []entry) bool {
	for _, e := range entries {
		i, ok := distance(d.origin, e.pos)
		if !ok {
			return false
		}
		like := d.other
		like.pos = e.pos
		switch {
		case e != plainOut(e.pos) && e != like:
			d.loose = append(d.loose, e)
		case i >= d.count:
			d.cut = true
		case e == like:
			d.set(i, codeOther)
			d.named++
		default:
			d.set(i, codeOut)
			d.named++
		}
	}
	return true
}

func (d *dense) addSpans(spans []span) bool {
	for _, s := range spans {
		i, ok := distance(d.origin, s.first)
		j, ok2 := distance(d.origin, s.last)
		if !ok || !ok2 {
			return false
		}
		d.cut = d.cut || j >= d.count
		for ; i <= j && i < d.count; i++ {
			d.set(i, codeSettled)
		}
	}
	return true
}

func (d *dense) set(i uint64, code byte) { d.bits[i/4] |= code << (i % 4 * 2) }

// commonest returns what most entries are that are not plain, without a position.
func commonest(entries []entry) (most entry) {
	seen := map[entry]int{}
	for _, e := range entries {
		if e == plainOut(e.pos) || e.wait > 0 {
			continue
		}
		e.pos = ""
		seen[e]++
		if seen[e] > seen[most] {
			most = e
		}
	}
	return most
}

// encodeDense writes the note with a dense part; nil where that cannot be, or would name no more
// than so many entries though it has to cut.
func (n *note) encodeDense(limit, named int) (data []byte, entryBytes int, cut bool) {
	room := limit - noteFixed - positionRoom(n.base) - n.blindRoom()
	first, last := n.firstAndLast()
	head := positionRoom(first) + 1 + 3*binary.MaxVarintLen32 + binary.MaxVarintLen32
	d, ok := n.dense((room - head) * 3 / 4)
	if !ok {
		return nil, 0, false
	}
	loose, kept := fit(len(d.loose), room-head-len(d.bits), func(buf []byte, i int) []byte {
		prev := n.base
		if i > 0 {
			prev = d.loose[i-1].pos
		}
		return appendEntry(buf, prev, &d.loose[i])
	})
	blind := n.blind
	cut = d.cut || kept < len(d.loose)
	if cut {
		if d.named+kept <= named {
			return nil, 0, true
		}
		blind = max(blind, last)
	}
	data = n.head(limit, flagDense, blind)
	data = append(binary.AppendUvarint(data, uint64(kept)), loose...)
	data = binary.AppendUvarint(data, 0) // spans are among the bits
	data = appendPosition(data, n.base, d.origin)
	data = appendState(data, &d.other)
	data = append(binary.AppendUvarint(data, uint64(len(d.bits))), d.bits...)
	return withCheck(data), len(loose) + len(d.bits), cut
}

// dense reads what encodeDense wrote, as entries and spans.
func (r *noteReader) dense(n *note) {
	origin := r.position(n.base)
	other := entry{}
	r.state(&other)
	bits := r.take(int(r.number(uint64(len(r.data)))))
	from, ok := number(origin)
	if !ok || r.bad {
		r.bad = true
		return
	}
	at := func(i int) ackwise.Position {
		digits := strconv.FormatUint(from+uint64(i), 10)
		return ackwise.Position(strings.Repeat("0", max(0, len(origin)-len(digits))) + digits)
	}
	before := byte(0)
	for i := range 4 * len(bits) {
		code := bits[i/4] >> (i % 4 * 2) & 3
		switch pos := at(i); {
		case code != 0 && len(pos) != len(origin): // numbers of other lengths are not in order
			r.bad = true
		case code == codeOut:
			n.entries = append(n.entries, plainOut(pos))
		case code == codeOther:
			e := other
			e.pos = pos
			n.entries = append(n.entries, e)
		case code == codeSettled && before == codeSettled:
			n.spans[len(n.spans)-1].last = pos
		case code == codeSettled:
			n.spans = append(n.spans, span{first: pos, last: pos})
		}
		before = code
	}
	slices.SortFunc(n.entries, func(a, b entry) int { return compare(a.pos, b.pos) })
	prev := n.base
	for i := range n.entries {
		r.bad = r.bad || n.entries[i].pos <= prev
		prev = n.entries[i].pos
	}
}
