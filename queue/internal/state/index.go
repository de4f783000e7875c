package state

import (
	"encoding/binary"
	"slices"
)

// indexEntry is what memory holds of a message in line: 24 bytes, no pointer, and less than half
// of that once its chunk is frozen.
type indexEntry struct {
	pos  uint64 // of its Publish record
	lane uint64
	size uint32 // of its Publish record's payload
	sec  uint32 // when it was accepted, engine seconds
}

// chunkLen is how many entries freeze together.
const chunkLen = 1024

// index holds the entries of the sequences [first, next). The newest are open; the others are
// frozen, a chunk at each multiple of the chunk's length, and are decoded where somebody reads.
//
//	frozen ░░░▓▓▓▓▓ ▓▓▓▓▓▓▓▓ ▓▓▓▓▓▓▓▓ ▓▓▓▓▓ open
//	      base  first                     next
type index struct {
	chunkLen    uint64
	frozen      []chunk
	base        uint64 // the first sequence of the first frozen chunk
	open        []indexEntry
	openAt      uint64 // the sequence of open[0]
	first, next uint64
	head        reader // of what is let go
}

// chunk is a frozen part of an index. Its bytes never change, so that a checkpoint may write them
// while the index goes on. Only the first one may lack entries: those that were let go before it
// froze.
type chunk struct {
	data      []byte
	low, high uint64 // the lowest and the highest position in it
	sec       uint32 // the latest
}

// reader is the chunk that a cursor stands in, decoded. What is in line never changes, so it is
// never out of date.
type reader struct {
	from    uint64 // the sequence of entries[0]
	entries []indexEntry
}

// at returns the entry of a sequence in line. It is valid until the reader reads on.
func (x *index) at(seq uint64, r *reader) *indexEntry {
	if i := seq - x.openAt; i < uint64(len(x.open)) {
		r.entries = nil // there is nothing behind the open chunk to decode
		return &x.open[i]
	}
	if i := seq - r.from; i < uint64(len(r.entries)) {
		return &r.entries[i]
	}
	i := (seq - x.base) / x.chunkLen
	if r.entries == nil {
		r.entries = make([]indexEntry, 0, x.chunkLen)
	}
	r.entries = unpackAll(r.entries[:0], x.frozen[i].data)
	r.from = x.base + (i+1)*x.chunkLen - uint64(len(r.entries))
	return &r.entries[seq-r.from]
}

func (x *index) add(e indexEntry) {
	if len(x.open) > 0 && x.next%x.chunkLen == 0 {
		if len(x.frozen) == 0 {
			x.base = x.next - x.chunkLen
		}
		x.frozen = append(x.frozen, freeze(x.open))
		x.open = x.open[:0]
	}
	if len(x.open) == 0 {
		x.openAt = x.next
	}
	x.open = append(x.open, e)
	x.next++
}

// dropFirst lets go of the first entry.
func (x *index) dropFirst() {
	x.first++
	switch {
	case x.first == x.next:
		x.open = x.open[:0]
		x.frozen, x.head.entries = nil, nil
	case len(x.frozen) > 0 && x.first == x.base+x.chunkLen:
		x.frozen[0] = chunk{}
		x.frozen = x.frozen[1:]
		x.base += x.chunkLen
	}
}

// each calls fn with the entries from a sequence on, until it returns false. Chunks in which
// skip finds nothing of interest are left out.
func (x *index) each(from uint64, skip func(*chunk) bool, fn func(seq uint64, e *indexEntry) bool) {
	var r reader
	for seq := max(from, x.first); seq < x.next; {
		if i := (seq - x.base) / x.chunkLen; seq < x.openAt && skip != nil && skip(&x.frozen[i]) {
			seq = x.base + (i+1)*x.chunkLen
			continue
		}
		if !fn(seq, x.at(seq, &r)) {
			return
		}
		seq++
	}
}

// lastChunk returns the sequence at which the open chunk begins: it is open while it is not full,
// and when it is full until the next entry comes.
func (x *index) lastChunk() uint64 {
	return max(x.next, 1) - 1 - (max(x.next, 1)-1)%x.chunkLen
}

// snapshot writes the index down, equal ones as equal bytes: what is let go of the first chunk is
// left out, however much of it there is in memory.
func (x *index) snapshot(n *Snapshot, b []byte) []byte {
	b = putUint(putUint(b, x.first), x.next)
	frozen := x.frozen
	if len(frozen) > 0 && x.first%x.chunkLen != 0 {
		entries := unpackAll(nil, frozen[0].data)
		c := freeze(entries[len(entries)-int(x.base+x.chunkLen-x.first):])
		b = putString(b, c.data)
		frozen = frozen[1:]
	}
	if len(frozen) > 0 {
		b = n.stream(b, putChunks(slices.Clone(frozen)))
	}
	var p packer
	if x.first < x.next {
		for i := max(x.first, x.openAt) - x.openAt; i < uint64(len(x.open)); i++ {
			b = p.put(b, &x.open[i])
		}
	}
	return b
}

func putChunks(chunks []chunk) func(write func([]byte)) {
	return func(write func([]byte)) {
		var length [binary.MaxVarintLen64]byte
		for i := range chunks {
			write(putUint(length[:0], uint64(len(chunks[i].data))))
			write(chunks[i].data)
		}
	}
}

// index reads what snapshot wrote, and calls fn with each entry.
func (d *decoder) index(x *index, fn func(*indexEntry)) {
	x.first, x.next = d.uint(), d.uint()
	x.openAt = x.next
	if d.err != nil || x.next < x.first {
		d.fail()
		return
	}
	x.base = x.first / x.chunkLen * x.chunkLen
	seq := x.first
	var entries []indexEntry
	for d.err == nil && seq < x.next && seq < x.lastChunk() {
		part := decoder{b: d.bytes()}
		data := slices.Clone(part.b)
		var p packer
		entries = entries[:0]
		for ; len(part.b) > 0 && uint64(len(entries)) < x.chunkLen; seq++ {
			entries = append(entries, part.unpack(&p))
			fn(&entries[len(entries)-1])
		}
		if len(entries) == 0 || seq%x.chunkLen != 0 || part.done() != nil {
			d.fail()
			return
		}
		x.frozen = append(x.frozen, summary(data, entries))
	}
	var p packer
	for n := x.next - seq; n > 0 && d.err == nil; n-- {
		if len(x.open) == 0 {
			x.openAt = seq
		}
		x.open = append(x.open, d.unpack(&p))
		fn(&x.open[len(x.open)-1])
	}
}

// freeze makes a chunk of entries.
func freeze(entries []indexEntry) chunk {
	data := make([]byte, 0, 16*len(entries))
	var p packer
	for i := range entries {
		data = p.put(data, &entries[i])
	}
	return summary(slices.Clone(data), entries)
}

func summary(data []byte, entries []indexEntry) chunk {
	c := chunk{data: data, low: entries[0].pos}
	for i := range entries {
		e := &entries[i]
		c.low, c.high, c.sec = min(c.low, e.pos), max(c.high, e.pos), max(c.sec, e.sec)
	}
	return c
}

// packer writes entries as differences to the one before. The gap is what lies between two records;
// mostly it is the frame of a record, and then it is not written.
//
//	tag   byte     which of the following are there
//	gap   varint   tagGap
//	size  uvarint  tagSize
//	sec   varint   tagSec, the difference
//	lane  8 bytes  tagLane
type packer struct {
	last indexEntry
	gap  uint64
}

const (
	tagGap  = 1 << iota // the gap is another than before
	tagSize             // so is the size
	tagSec              // and the second
	tagLane             // it has a key
	tagEnd
)

func (p *packer) put(b []byte, e *indexEntry) []byte {
	at := len(b)
	b = append(b, 0)
	if gap := e.pos - p.last.pos - uint64(p.last.size); gap != p.gap {
		b[at] |= tagGap
		b = putInt(b, int64(gap))
		p.gap = gap
	}
	if e.size != p.last.size {
		b[at] |= tagSize
		b = putUint(b, e.size)
	}
	if e.sec != p.last.sec {
		b[at] |= tagSec
		b = putInt(b, int64(e.sec)-int64(p.last.sec))
	}
	if e.lane != 0 {
		b[at] |= tagLane
		b = binary.LittleEndian.AppendUint64(b, e.lane)
	}
	p.last = *e
	return b
}

// unpack reads an entry that a packer wrote behind the same ones.
func (d *decoder) unpack(p *packer) indexEntry {
	tag := d.byte()
	if tag == 0 { // without a key, and like the one before: nothing to read
		p.last.pos += uint64(p.last.size) + p.gap
		p.last.lane = 0
		return p.last
	}
	if tag >= tagEnd {
		d.fail()
	}
	if tag&tagGap != 0 {
		p.gap = uint64(d.int())
	}
	e := indexEntry{pos: p.last.pos + uint64(p.last.size) + p.gap, size: p.last.size, sec: p.last.sec}
	if tag&tagSize != 0 {
		e.size = d.u32()
	}
	if tag&tagSec != 0 {
		e.sec = uint32(int64(p.last.sec) + d.int())
	}
	if tag&tagLane != 0 {
		e.lane = d.fixed64()
	}
	p.last = e
	return e
}

// unpackAll appends the entries of a frozen chunk.
func unpackAll(entries []indexEntry, data []byte) []indexEntry {
	d := decoder{b: data}
	var p packer
	for len(d.b) > 0 {
		entries = append(entries, d.unpack(&p))
	}
	return entries
}
