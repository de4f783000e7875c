package logsource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/ackwise/ackwise"
)

// A note is the journal of one partition at one moment. It travels with the partition's position,
// so that the next owner knows what was handed out, how often, and what was settled out of order.
//
//	part     bytes   content
//	magic    1       0xA7
//	version  1       1
//	flags    1       1 clean, 2 sole, 4 open, 8 ceiling, 16 dense
//	owner    8       big-endian: the member that wrote it
//	base     P       everything at or below is settled
//	blind    P       see note.blind
//	entries  uvarint number, then for each: P, flags (1 out, 2 suspect, 4 wait, 8 counts,
//	                 high half: cause), [hand-outs, failures, crashes], [wait in ms] as uvarints
//	spans    uvarint number, then for each: P first, P last
//	dense            with that flag, see there: what would not fit as entries and spans
//	check    4       CRC-32C of all before, big-endian
//
// A position P is written against the one before it (blind, the first entry and the first span
// against base): where both are equally long, one byte n < 0x80 and the last n bytes; else 0x80,
// the length as uvarint and all bytes. Consecutive numbers of fixed width take two or three bytes.
type note struct {
	base  ackwise.Position // everything at or below is settled
	owner uint64
	clean bool // the owner gave the partition back
	sole  bool // the one entry that is out was all that its owner held, here and elsewhere
	// ceiling: hand-outs were not written one by one, so that out says nothing after a crash.
	ceiling bool
	exact   bool // not written: only what does not fit otherwise is to be dense
	// blind: up to here (open: everywhere) a message that is neither in entries nor in spans may
	// have been handed out, or even settled; above, it was not. "" = nowhere.
	blind ackwise.Position
	open  bool

	entries []entry // messages handed out and not settled, by position
	spans   []span  // settled out of order, by position; disjoint

	// window, not nil, says what entries and spans would: they are made when they are needed. It is
	// the partition's own, so the note is encoded before anything happens there. now is when.
	window []slot
	now    time.Time
	rest   inheritance // what is not read again yet comes behind it
}

// unread adds what the last owner has left and was not read again yet.
func (n *note) unread(past *inheritance, lastRead ackwise.Position) {
	for _, e := range past.entries {
		if e.pos > lastRead {
			n.rest.entries = append(n.rest.entries, e)
		}
	}
	for _, s := range past.spans {
		if s.last > lastRead {
			n.rest.spans = append(n.rest.spans, s)
		}
	}
	if len(n.rest.entries)+len(n.rest.spans) > 0 {
		n.spell()
	}
}

// spell makes entries and spans of the window and of the rest.
func (n *note) spell() {
	if n.window != nil {
		n.spans = spansOf(n.window)
		for i := range n.window {
			if s := &n.window[i]; s.state == slotOut || s.state == slotNoted {
				n.entries = append(n.entries, s.entry(n.now))
			}
		}
		n.window = nil
	}
	n.entries = append(n.entries, n.rest.entries...)
	for _, s := range n.rest.spans {
		if k := len(n.spans); k > 0 && s.first <= n.spans[k-1].last {
			n.spans[k-1].last = s.last // this far, and known to go on
			continue
		}
		n.spans = append(n.spans, s)
	}
	n.rest = inheritance{}
}

// entry is what a note has to tell of a slot that it names.
func (s *slot) entry(now time.Time) entry {
	if s.state == slotOut {
		return plainOut(s.pos)
	}
	e := s.m.entry
	if s.m.due.After(now) {
		e.wait = s.m.due.Sub(now)
	}
	return e
}

// weigh returns how many entries there are, how many of them are not plain, and how far the note
// has to reach.
func (n *note) weigh() (entries, loose int, far ackwise.Position) {
	for i := range n.window {
		switch s := &n.window[i]; s.state {
		case slotNoted:
			loose++
			fallthrough
		case slotOut:
			entries++
			fallthrough
		case slotSettled:
			far = s.pos
		case slotFresh:
		}
	}
	for i := range n.entries {
		if n.entries[i] != plainOut(n.entries[i].pos) {
			loose++
		}
	}
	if n.window == nil {
		_, far = n.firstAndLast()
	}
	return entries + len(n.entries), loose, far
}

// entry is what is known of a message that was handed out and is not settled.
type entry struct {
	pos     ackwise.Position
	out     bool          // in flight
	suspect bool          // was in flight beside others when its consumer died
	cause   ackwise.Cause // of the next hand-out; while out, of this one
	counts  ackwise.Counts
	wait    time.Duration // how long the next hand-out has to wait still
}

// span is a run of settled positions, both ends included.
type span struct{ first, last ackwise.Position }

const (
	noteMagic   = 0xA7
	noteVersion = 1
	noteFixed   = 3 + 8 + 4 + 2*3 // magic to owner, check, the two numbers

	flagClean = 1
	flagSole  = 2
	flagOpen  = 4
	flagCeil  = 8
	flagDense = 16

	entryOut     = 1
	entrySuspect = 2
	entryWait    = 4
	entryCounts  = 8

	fullPosition = 0x80
	maxCount     = 1 << 30
	maxWaitMilli = 1 << 40
)

var errNote = errors.New("not a note of this version")

// encode writes the note in at most limit bytes. What does not fit is cut from the far end: spans
// first, then entries; blind then covers it, so that it is delivered again, with a cause that says
// that nobody knows. It also returns how many of the bytes are the entries'.
func (n *note) encode(limit int) (data []byte, entryBytes int) {
	if !n.exact && n.parts() >= manyParts {
		// Most likely it is shorter so, and less work.
		if data, entryBytes, cut := n.encodeDense(limit, 0); data != nil && !cut {
			return data, entryBytes
		}
	}
	n.spell()
	room := limit - noteFixed - positionRoom(n.base) - n.blindRoom()
	blind := n.blind
	entries, kept := fit(len(n.entries), room, func(buf []byte, i int) []byte {
		return appendEntry(buf, n.before(i), &n.entries[i])
	})
	if kept < len(n.entries) {
		blind = max(blind, n.entries[len(n.entries)-1].pos)
	}
	spans, keptSpans := fit(len(n.spans), room-len(entries), func(buf []byte, i int) []byte {
		prev := n.base
		if i > 0 {
			prev = n.spans[i-1].last
		}
		buf = appendPosition(buf, prev, n.spans[i].first)
		return appendPosition(buf, n.spans[i].first, n.spans[i].last)
	})
	if keptSpans < len(n.spans) {
		blind = max(blind, n.spans[len(n.spans)-1].last)
	}
	if kept < len(n.entries) || keptSpans < len(n.spans) {
		if data, entryBytes, _ = n.encodeDense(limit, kept); data != nil {
			return data, entryBytes
		}
	}
	data = n.head(limit, 0, blind)
	data = append(binary.AppendUvarint(data, uint64(kept)), entries...)
	data = append(binary.AppendUvarint(data, uint64(keptSpans)), spans...)
	return withCheck(data), len(entries)
}

// manyParts is from how many entries and spans on a note is tried as dense first.
const manyParts = 64

// parts returns how many entries and spans there are, or would be.
func (n *note) parts() int {
	parts, before := len(n.entries)+len(n.spans), slotFresh
	for i := range n.window {
		state := n.window[i].state
		if state == slotOut || state == slotNoted || state == slotSettled && before != slotSettled {
			parts++
		}
		before = state
	}
	return parts
}

// head begins a note.
func (n *note) head(limit int, more byte, blind ackwise.Position) []byte {
	data := append(make([]byte, 0, limit), noteMagic, noteVersion, n.flags()|more)
	data = binary.BigEndian.AppendUint64(data, n.owner)
	data = appendPosition(data, "", n.base)
	return appendPosition(data, n.base, blind)
}

// fit appends up to count parts, as long as they stay within room, and returns how many it kept.
func fit(count, room int, part func(buf []byte, i int) []byte) (buf []byte, kept int) {
	for kept < count {
		next := part(buf, kept)
		if len(next) > room {
			break
		}
		buf = next
		kept++
	}
	return buf, kept
}

func (n *note) before(i int) ackwise.Position {
	if i == 0 {
		return n.base
	}
	return n.entries[i-1].pos
}

// blindRoom is the most that blind can take once something was cut.
func (n *note) blindRoom() int {
	room := positionRoom(n.blind)
	if k := len(n.window); k > 0 {
		room = max(room, positionRoom(n.window[k-1].pos))
	}
	if k := len(n.entries); k > 0 {
		room = max(room, positionRoom(n.entries[k-1].pos))
	}
	if k := len(n.spans); k > 0 {
		room = max(room, positionRoom(n.spans[k-1].last))
	}
	return room
}

func positionRoom(p ackwise.Position) int { return 1 + binary.MaxVarintLen16 + len(p) }

func (n *note) flags() byte {
	var f byte
	if n.clean {
		f |= flagClean
	}
	if n.sole {
		f |= flagSole
	}
	if n.open {
		f |= flagOpen
	}
	if n.ceiling {
		f |= flagCeil
	}
	return f
}

func appendPosition(buf []byte, prev, p ackwise.Position) []byte {
	if len(prev) == len(p) {
		same := 0
		for same < len(p) && prev[same] == p[same] {
			same++
		}
		if n := len(p) - same; n < fullPosition {
			return append(append(buf, byte(n)), p[same:]...)
		}
	}
	buf = binary.AppendUvarint(append(buf, fullPosition), uint64(len(p)))
	return append(buf, p...)
}

func appendEntry(buf []byte, prev ackwise.Position, e *entry) []byte {
	return appendState(appendPosition(buf, prev, e.pos), e)
}

// appendState writes what is known of an entry beside its position.
func appendState(buf []byte, e *entry) []byte {
	flags := byte(e.cause) << 4
	if e.out {
		flags |= entryOut
	}
	if e.suspect {
		flags |= entrySuspect
	}
	if e.wait > 0 {
		flags |= entryWait
	}
	plain := e.counts == ackwise.Counts{HandOuts: 1}
	if !plain {
		flags |= entryCounts
	}
	buf = append(buf, flags)
	if !plain {
		for _, c := range [...]int{e.counts.HandOuts, e.counts.Failures, e.counts.Crashes} {
			buf = binary.AppendUvarint(buf, uint64(min(c, maxCount)))
		}
	}
	if e.wait > 0 {
		// Rounded up, so that no wait is lost.
		millis := min(uint64((e.wait+time.Millisecond-1)/time.Millisecond), maxWaitMilli)
		buf = binary.AppendUvarint(buf, millis)
	}
	return buf
}

func withCheck(data []byte) []byte { return binary.BigEndian.AppendUint32(data, check(data)) }

func check(data []byte) uint32 {
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) // the table is made once
}

// decodeNote reads a note. A note that is foreign, newer, cut or damaged is an error: nothing of it
// is believed.
func decodeNote(data []byte) (*note, error) {
	if len(data) < noteFixed-2*2 || data[0] != noteMagic {
		return nil, errNote
	}
	if data[1] != noteVersion {
		return nil, fmt.Errorf("%w: version %d, this program reads %d",
			errNote, data[1], noteVersion)
	}
	body, sum := data[:len(data)-4], binary.BigEndian.Uint32(data[len(data)-4:])
	if check(body) != sum {
		return nil, fmt.Errorf("%w: its check does not match", errNote)
	}
	flags := data[2]
	n := &note{owner: binary.BigEndian.Uint64(data[3:11]), clean: flags&flagClean != 0,
		sole: flags&flagSole != 0, open: flags&flagOpen != 0,
		ceiling: flags&flagCeil != 0}
	r := &noteReader{data: body[11:]}
	n.base = r.position("")
	n.blind = r.position(n.base)
	r.entries(n)
	r.spans(n)
	if flags&flagDense != 0 {
		r.dense(n)
	}
	if r.bad || len(r.data) > 0 {
		return nil, fmt.Errorf("%w: its parts do not fit", errNote)
	}
	return n, nil
}

// noteReader takes a note's body apart. After the first fault, bad is set and all reads are zero.
type noteReader struct {
	data []byte
	bad  bool
}

func (r *noteReader) entries(n *note) {
	prev := n.base
	for range r.number(uint64(len(r.data))) {
		e := entry{pos: r.position(prev)}
		r.state(&e)
		if e.pos <= prev {
			r.bad = true
		}
		if r.bad {
			return
		}
		n.entries = append(n.entries, e)
		prev = e.pos
	}
}

// state reads what appendState wrote.
func (r *noteReader) state(e *entry) {
	flags := r.byte()
	e.out, e.suspect = flags&entryOut != 0, flags&entrySuspect != 0
	e.cause = ackwise.Cause(flags >> 4)
	e.counts = ackwise.Counts{HandOuts: 1}
	if flags&entryCounts != 0 {
		e.counts.HandOuts = int(r.number(maxCount))
		e.counts.Failures = int(r.number(maxCount))
		e.counts.Crashes = int(r.number(maxCount))
	}
	if flags&entryWait != 0 {
		e.wait = time.Duration(r.number(maxWaitMilli)) * time.Millisecond
	}
	if e.cause > ackwise.CauseReplayed {
		r.bad = true
	}
}

func (r *noteReader) spans(n *note) {
	prev := n.base
	for i := range r.number(uint64(len(r.data))) {
		s := span{first: r.position(prev)}
		s.last = r.position(s.first)
		if s.first > s.last || s.last <= n.base || i > 0 && s.first <= prev {
			r.bad = true
		}
		if r.bad {
			return
		}
		n.spans = append(n.spans, s)
		prev = s.last
	}
}

func (r *noteReader) byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *noteReader) number(most uint64) uint64 {
	v, size := binary.Uvarint(r.data)
	if r.bad || size <= 0 || v > most {
		r.bad = true
		return 0
	}
	r.data = r.data[size:]
	return v
}

func (r *noteReader) position(prev ackwise.Position) ackwise.Position {
	n := int(r.byte())
	if n != fullPosition {
		if n > len(prev) {
			r.bad = true
			return ""
		}
		return prev[:len(prev)-n] + ackwise.Position(r.take(n))
	}
	return ackwise.Position(r.take(int(r.number(uint64(len(r.data))))))
}

func (r *noteReader) take(n int) []byte {
	if r.bad || n > len(r.data) {
		r.bad = true
		return nil
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}
