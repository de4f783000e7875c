package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/ackwise/ackwise/internal/vfs"
)

// The sizes of the format, see docs/FORMAT.md. All integers are little-endian.
const (
	formatVersion = 1
	blockBytes    = vfs.BlockBytes // groups and segment headers begin on such a boundary
	headerBytes   = 32             // before the records of a group
	frameBytes    = 9              // before the payload of a record
	segmentMagic  = "ackwlog\n"
	kindLog       = 0          // a segment of groups
	kindSparse    = 1          // a compacted segment: chosen records and a table of them
	groupMagic    = 0x31475741 // "AWG1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoGroup  = errors.New("no group begins here")
	errGroupCRC = errors.New("the checksum of the group's header does not match")
	errCount    = errors.New("the group's records do not fill its length")
)

func alignUp(n uint64) uint64 { return (n + blockBytes - 1) &^ (blockBytes - 1) }

// segmentSeed begins every checksum of a segment. A file has many lives, but no two segments of a
// store have the same epoch and number: neither the stale bytes of an earlier life nor a body made
// to look like a group can pass for one.
func segmentSeed(storeID [16]byte, epoch uint64, number SegmentID) uint32 {
	var b [32]byte
	copy(b[:], storeID[:])
	binary.LittleEndian.PutUint64(b[16:], epoch)
	binary.LittleEndian.PutUint64(b[24:], uint64(number))
	return crc32.Checksum(b[:], castagnoli)
}

// seedAt adds the position to the seed. It is arithmetic rather than eight more bytes of checksum,
// because those would be an allocation a record.
func seedAt(seed uint32, pos uint64) uint32 {
	return seed ^ uint32(pos*0x9E3779B97F4A7C15>>32)
}

// segmentHeader is the first block of a segment file.
type segmentHeader struct {
	kind    uint32
	storeID [16]byte
	epoch   uint64
	number  SegmentID
	base    uint64
	mark    uint64 // of a log: content below it was synced before this file got its name
	stale   int64  // of a log: how long the file was in its earlier life; 0 = it had none
	end     uint64 // of a sparse segment, as all below: the position behind it
	table   int64  // where in the file its table begins
	count   uint64 // of its records
}

func (h segmentHeader) encode() []byte {
	b := make([]byte, blockBytes)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], h.kind)
	copy(b[16:], h.storeID[:])
	binary.LittleEndian.PutUint64(b[32:], h.epoch)
	binary.LittleEndian.PutUint64(b[40:], uint64(h.number))
	binary.LittleEndian.PutUint64(b[48:], h.base)
	binary.LittleEndian.PutUint64(b[56:], h.mark)
	binary.LittleEndian.PutUint64(b[64:], uint64(h.stale))
	binary.LittleEndian.PutUint64(b[72:], h.end)
	binary.LittleEndian.PutUint64(b[80:], uint64(h.table))
	binary.LittleEndian.PutUint64(b[88:], h.count)
	sum := crc32.Checksum(b[:blockBytes-4], castagnoli)
	binary.LittleEndian.PutUint32(b[blockBytes-4:], sum)
	return b
}

func decodeSegmentHeader(name string, b []byte) (segmentHeader, error) {
	var h segmentHeader
	if len(b) < blockBytes || string(b[:8]) != segmentMagic {
		return h, errors.New("not a segment of a log")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > formatVersion {
		return h, &FormatError{File: name, Found: v, Supported: formatVersion}
	}
	sum := crc32.Checksum(b[:blockBytes-4], castagnoli)
	if binary.LittleEndian.Uint32(b[blockBytes-4:blockBytes]) != sum {
		return h, errors.New("the checksum of the segment's header does not match")
	}
	h.kind = binary.LittleEndian.Uint32(b[12:])
	copy(h.storeID[:], b[16:32])
	h.epoch = binary.LittleEndian.Uint64(b[32:])
	h.number = SegmentID(binary.LittleEndian.Uint64(b[40:]))
	h.base = binary.LittleEndian.Uint64(b[48:])
	h.mark = binary.LittleEndian.Uint64(b[56:])
	h.stale = int64(binary.LittleEndian.Uint64(b[64:]))
	h.end = binary.LittleEndian.Uint64(b[72:])
	h.table = int64(binary.LittleEndian.Uint64(b[80:]))
	h.count = binary.LittleEndian.Uint64(b[88:])
	return h, nil
}

// groupHeader stands before the records of a group.
type groupHeader struct {
	pos    uint64
	synced uint64 // how far the log was known to be synced when the group was written
	length uint32 // of the records, with their frames
	count  uint32
}

// size is how far it is to the next group.
func (h groupHeader) size() uint64 { return alignUp(headerBytes + uint64(h.length)) }

func (h groupHeader) put(b []byte, seed uint32) {
	binary.LittleEndian.PutUint32(b, groupMagic)
	binary.LittleEndian.PutUint64(b[8:], h.pos)
	binary.LittleEndian.PutUint64(b[16:], h.synced)
	binary.LittleEndian.PutUint32(b[24:], h.length)
	binary.LittleEndian.PutUint32(b[28:], h.count)
	sum := crc32.Update(seedAt(seed, h.pos), castagnoli, b[8:headerBytes])
	binary.LittleEndian.PutUint32(b[4:], sum)
}

// decodeGroupHeader reads the header of the group that is expected at pos.
func decodeGroupHeader(b []byte, seed uint32, pos uint64) (groupHeader, error) {
	if len(b) < headerBytes || binary.LittleEndian.Uint32(b) != groupMagic {
		return groupHeader{}, errNoGroup
	}
	sum := crc32.Update(seedAt(seed, pos), castagnoli, b[8:headerBytes])
	h := groupHeader{
		pos:    binary.LittleEndian.Uint64(b[8:]),
		synced: binary.LittleEndian.Uint64(b[16:]),
		length: binary.LittleEndian.Uint32(b[24:]),
		count:  binary.LittleEndian.Uint32(b[28:]),
	}
	if binary.LittleEndian.Uint32(b[4:]) != sum || h.pos != pos || h.synced > pos {
		return groupHeader{}, errGroupCRC
	}
	return h, nil
}

// claimedPos returns the position that the header of a group says it has, unchecked.
func claimedPos(b []byte) uint64 {
	if len(b) < headerBytes {
		return 0
	}
	return binary.LittleEndian.Uint64(b[8:])
}

// appendRecord adds a record to a buffer. Its checksum stays open until it is known which segment
// it goes to.
func appendRecord(buf []byte, r *Record) []byte {
	buf = append(buf, 0, 0, 0, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(r.Payload)+len(r.Rest)))
	buf = append(buf, r.Type)
	buf = append(buf, r.Payload...)
	return append(buf, r.Rest...)
}

func sealRecord(frame []byte, seed uint32, pos uint64) {
	sum := crc32.Update(seedAt(seed, pos), castagnoli, frame[4:])
	binary.LittleEndian.PutUint32(frame, sum)
}

// sealGroup makes the checksums of a group, header and records, which are one behind another.
func sealGroup(group []byte, h groupHeader, seed uint32) {
	for at := uint64(headerBytes); at < uint64(len(group)); {
		size := recordSize(group[at:])
		sealRecord(group[at:at+size], seed, h.pos+at)
		at += size
	}
	h.put(group, seed)
}

// recordSize returns the length of the frame that begins b with its payload, unchecked; 0 = b is
// too short to say.
func recordSize(b []byte) uint64 {
	if len(b) < frameBytes {
		return 0
	}
	return frameBytes + uint64(binary.LittleEndian.Uint32(b[4:]))
}

// decodeRecord reads the record at the beginning of b. Its payload shares memory with b.
func decodeRecord(b []byte, seed uint32, pos uint64) (Record, error) {
	size := recordSize(b)
	if size == 0 || size > uint64(len(b)) {
		return Record{}, fmt.Errorf("the record at position %d is longer than its place", pos)
	}
	sum := crc32.Update(seedAt(seed, pos), castagnoli, b[4:size])
	if binary.LittleEndian.Uint32(b) != sum {
		return Record{}, fmt.Errorf("the checksum of the record at position %d does not match", pos)
	}
	return Record{Type: b[8], Payload: b[frameBytes:size:size], Pos: pos}, nil
}

// decodeRecords reads the records of a group, body being what follows the header, and checks that
// they are exactly as many as it says. fn may be nil.
func decodeRecords(h groupHeader, body []byte, seed uint32, fn func(r Record)) error {
	if uint64(len(body)) < uint64(h.length) {
		return errCount
	}
	body = body[:h.length]
	pos := h.pos + headerBytes
	for range h.count {
		r, err := decodeRecord(body, seed, pos)
		if err != nil {
			return err
		}
		if fn != nil {
			fn(r)
		}
		size := frameBytes + len(r.Payload)
		body = body[size:]
		pos += uint64(size)
	}
	if len(body) != 0 {
		return errCount
	}
	return nil
}
