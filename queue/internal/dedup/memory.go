package dedup

import (
	"encoding/binary"
	"math/bits"
)

const (
	chunkBits  = 16
	chunkBytes = 1 << chunkBits
	entryHead  = 22   // of an entry in memory, before its ID
	maxIDBytes = 1024 // a longer one is no ID of the engine
	firstTable = 1 << 4
	tableGrow  = 5 // the table grows 32-fold, so that none but small ones are ever rebuilt
)

// Seen is what is known of an accepted ID.
type Seen struct {
	Pos uint64 // of its record in the log
	Sum uint64 // of the message's content
	At  int64  // when it was accepted, engine milliseconds
}

// memory is a bucket in memory: entries one after another, in chunks that never move, and a table
// that finds them by hash. There is no pointer an ID. Nothing in it changes once it is closed but
// next.
//
//	entry: position 8 · sum 8 · milliseconds since the bucket's first 4 · length of the ID 2 · ID
type memory struct {
	number      uint64
	first, last int64 // times of the first and the last entry
	count       int
	bytes       int // of all entries
	chunks      [][]byte
	table       []uint32 // open addressing: 1 + chunk<<16 + offset; 0 = free
	full        int      // length of the table that holds a full bucket
	seed        seed

	// next is the bucket that was opened after this one. Who holds a bucket holds all that came
	// later, in memory, whatever has been written to files since.
	next *memory
}

func newMemory(number uint64, s seed, bucketIDs int) *memory {
	full := 1 << bits.Len(uint(bucketIDs)*4/3)
	return &memory{number: number, seed: s, full: full,
		table: make([]uint32, min(firstTable, full))}
}

// put adds an entry. Its time is not before the last one's, and its ID is not there.
func (m *memory) put(hash uint64, id string, s Seen) {
	if m.count == 0 {
		m.first = s.At
	}
	m.last = s.At
	if 4*(m.count+1) > 3*len(m.table) {
		m.growTable()
	}
	size := entryHead + len(id)
	if n := len(m.chunks); n == 0 {
		m.chunks = append(m.chunks, nil) // the first one grows: most topics are small
	} else if len(m.chunks[n-1])+size > chunkBytes {
		m.chunks = append(m.chunks, make([]byte, 0, chunkBytes))
	}
	at := len(m.chunks) - 1
	b := m.chunks[at]
	ref := uint32(at<<chunkBits | len(b))
	b = binary.LittleEndian.AppendUint64(b, s.Pos)
	b = binary.LittleEndian.AppendUint64(b, s.Sum)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.At-m.first))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(id)))
	m.chunks[at] = append(b, id...)
	m.count++
	m.bytes += size
	m.index(hash, ref)
}

// index puts an entry's place into the table.
func (m *memory) index(hash uint64, ref uint32) {
	mask := uint64(len(m.table) - 1)
	i := hash & mask
	for m.table[i] != 0 {
		i = (i + 1) & mask
	}
	m.table[i] = ref + 1
}

func (m *memory) growTable() {
	m.table = make([]uint32, max(2*len(m.table), min(len(m.table)<<tableGrow, m.full)))
	m.each(func(ref uint32, id []byte) { m.index(m.seed.hash(string(id)), ref) })
}

// each calls fn with every entry's place and ID, in order of arrival.
func (m *memory) each(fn func(ref uint32, id []byte)) {
	for c, b := range m.chunks {
		for off := 0; off < len(b); {
			ref := uint32(c<<chunkBits | off)
			id := m.id(ref)
			fn(ref, id)
			off += entryHead + len(id)
		}
	}
}

func (m *memory) id(ref uint32) []byte {
	b := m.chunks[ref>>chunkBits][ref&(chunkBytes-1):]
	n := int(binary.LittleEndian.Uint16(b[20:]))
	return b[entryHead : entryHead+n]
}

func (m *memory) seen(ref uint32) Seen {
	b := m.chunks[ref>>chunkBits][ref&(chunkBytes-1):]
	return Seen{Pos: binary.LittleEndian.Uint64(b), Sum: binary.LittleEndian.Uint64(b[8:]),
		At: m.first + int64(binary.LittleEndian.Uint32(b[16:]))}
}

func (m *memory) find(hash uint64, id string) (Seen, bool) {
	mask := uint64(len(m.table) - 1)
	for i := hash & mask; m.table[i] != 0; i = (i + 1) & mask {
		if ref := m.table[i] - 1; string(m.id(ref)) == id {
			return m.seen(ref), true
		}
	}
	return Seen{}, false
}
