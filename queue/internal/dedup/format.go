package dedup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise/internal/vfs"
)

// A bucket's file: a header block, blocks of entries sorted by hash and ID, and the index. All
// integers are little-endian, see docs/FORMAT.md.
//
//	header: magic 8 · version 4 · topic 4 · store id 16 · number 8 · first 8 · last 8 · count 4
//	        · blocks 4 · filter lines 4 · zeros · CRC-32C 4
//	block:  CRC 4 · entries 4 · entries · zeros
//	entry:  hash 8 · position 8 · sum 8 · milliseconds since first 4 · length of the ID 2 · ID
//	index:  first hash of each block 8 · filter · CRC 4
const (
	fileMagic   = "ackwdup\n"
	fileVersion = 1
	filePrefix  = "dedup-"
	tempSuffix  = vfs.TempSuffix
	blockBytes  = 4096
	blockHead   = 8
	fileEntry   = 30 // of an entry, before its ID
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func fileName(topic uint32, number uint64) string {
	return fmt.Sprintf("%s%08d-%012d", filePrefix, topic, number)
}

// parseFileName is the inverse of fileName.
func parseFileName(name string) (topic uint32, number uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, filePrefix)
	if !ok {
		return 0, 0, false
	}
	t, n, _ := strings.Cut(rest, "-")
	t64, err := strconv.ParseUint(t, 10, 32)
	number, err2 := strconv.ParseUint(n, 10, 64)
	if err != nil || err2 != nil || fileName(uint32(t64), number) != name {
		return 0, 0, false
	}
	return uint32(t64), number, true
}

// header is what the first block of a file says.
type header struct {
	storeID     [16]byte
	topic       uint32
	number      uint64
	first, last int64
	count       uint32
	blocks      uint32
	lines       uint32 // of the filter
}

func (h header) encode() []byte {
	b := make([]byte, blockBytes)
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], fileVersion)
	binary.LittleEndian.PutUint32(b[12:], h.topic)
	copy(b[16:], h.storeID[:])
	binary.LittleEndian.PutUint64(b[32:], h.number)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.first))
	binary.LittleEndian.PutUint64(b[48:], uint64(h.last))
	binary.LittleEndian.PutUint32(b[56:], h.count)
	binary.LittleEndian.PutUint32(b[60:], h.blocks)
	binary.LittleEndian.PutUint32(b[64:], h.lines)
	binary.LittleEndian.PutUint32(b[blockBytes-4:],
		crc32.Checksum(b[:blockBytes-4], castagnoli))
	return b
}

// crc returns the checksum in the header. It begins all others of the file, so that a block of
// another bucket is none of this one.
func (h header) crc() uint32 { return binary.LittleEndian.Uint32(h.encode()[blockBytes-4:]) }

func decodeHeader(path string, b []byte) (header, error) {
	var h header
	if len(b) != blockBytes || string(b[:8]) != fileMagic {
		return h, &DamageError{File: path, Err: errors.New("not a dedup bucket")}
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > fileVersion {
		return h, &VersionError{File: path, Found: v, Supported: fileVersion}
	}
	h = header{topic: binary.LittleEndian.Uint32(b[12:]),
		number: binary.LittleEndian.Uint64(b[32:]),
		first:  int64(binary.LittleEndian.Uint64(b[40:])),
		last:   int64(binary.LittleEndian.Uint64(b[48:])),
		count:  binary.LittleEndian.Uint32(b[56:]),
		blocks: binary.LittleEndian.Uint32(b[60:]),
		lines:  binary.LittleEndian.Uint32(b[64:])}
	copy(h.storeID[:], b[16:32])
	switch {
	case !bytes.Equal(h.encode(), b):
		return h, &DamageError{File: path, Err: errors.New("the header's checksum does not match")}
	case h.count == 0 || h.blocks == 0 || h.blocks > h.count || h.last < h.first ||
		int(h.lines) != filterLines(int(h.count)):
		return h, &DamageError{File: path, Err: errors.New("the header contradicts itself")}
	}
	return h, nil
}

// size is the length of the whole file.
func (h header) size() int64 {
	return h.indexAt() + int64(h.blocks)*8 + int64(h.lines)*lineBytes + 4
}

func (h header) indexAt() int64 { return blockAt(int(h.blocks)) }

func blockAt(i int) int64 { return int64(i+1) * blockBytes }

// blockSeed begins the checksum of block i; the index counts as the block behind the last.
func blockSeed(crc uint32, i int) uint32 {
	return crc ^ uint32(uint64(i+1)*0x9E3779B97F4A7C15>>32)
}

// appendEntry adds an entry of m to a block.
func appendEntry(b []byte, e sorted, m *memory) []byte {
	s, id := m.seen(e.ref), m.id(e.ref)
	b = binary.LittleEndian.AppendUint64(b, e.hash)
	b = binary.LittleEndian.AppendUint64(b, s.Pos)
	b = binary.LittleEndian.AppendUint64(b, s.Sum)
	b = binary.LittleEndian.AppendUint32(b, uint32(s.At-m.first))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(id)))
	return append(b, id...)
}

// sealBlock fills a block of n entries up and writes its head.
func sealBlock(b []byte, n int, seed uint32) {
	clear(b[len(b):blockBytes])
	b = b[:blockBytes]
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
	binary.LittleEndian.PutUint32(b, crc32.Update(seed, castagnoli, b[4:]))
}

// findInBlock looks for an ID in a whole block.
func findInBlock(b []byte, seed uint32, hash uint64, id string) (s Seen, delta uint32, ok bool,
	err error) {
	if crc32.Update(seed, castagnoli, b[4:]) != binary.LittleEndian.Uint32(b) {
		return s, 0, false, errors.New("the block's checksum does not match")
	}
	n, b := binary.LittleEndian.Uint32(b[4:]), b[blockHead:]
	for range n {
		if len(b) < fileEntry {
			return s, 0, false, errors.New("the block ends within an entry")
		}
		size := fileEntry + int(binary.LittleEndian.Uint16(b[28:]))
		if size > len(b) {
			return s, 0, false, errors.New("the block ends within an ID")
		}
		if binary.LittleEndian.Uint64(b) == hash && string(b[fileEntry:size]) == id {
			s = Seen{Pos: binary.LittleEndian.Uint64(b[8:]), Sum: binary.LittleEndian.Uint64(b[16:])}
			return s, binary.LittleEndian.Uint32(b[24:]), true, nil
		}
		b = b[size:]
	}
	return s, 0, false, nil
}

// index is what memory keeps of a file.
type index struct {
	firsts []uint64 // the first hash of each block
	filter filter
}

func (x index) encode(seed uint32) []byte {
	b := make([]byte, 0, 8*(len(x.firsts)+len(x.filter))+4)
	for _, v := range x.firsts {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range x.filter {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Update(seed, castagnoli, b))
}

// decodeIndex reads the index of a file with this header.
func decodeIndex(b []byte, h header, seed uint32) (x index, err error) {
	words := int(h.blocks) + int(h.lines)*lineWords
	if len(b) != 8*words+4 {
		return x, errors.New("the index has another length than the header says")
	}
	body := b[:8*words]
	if crc32.Update(seed, castagnoli, body) != binary.LittleEndian.Uint32(b[8*words:]) {
		return x, errors.New("the checksum of the index does not match")
	}
	x = index{firsts: make([]uint64, h.blocks), filter: make(filter, int(h.lines)*lineWords)}
	for i := range x.firsts {
		x.firsts[i] = binary.LittleEndian.Uint64(body[8*i:])
		if i > 0 && x.firsts[i] < x.firsts[i-1] {
			return x, errors.New("the blocks are not in order")
		}
	}
	for i := range x.filter {
		x.filter[i] = binary.LittleEndian.Uint64(body[8*(len(x.firsts)+i):])
	}
	return x, nil
}
