package wal

import (
	"bytes"
	"testing"
)

func FuzzGroupDecode(f *testing.F) {
	seed := groupSeed([16]byte{1, 2, 3}, 4)
	const pos = 1024
	buf := make([]byte, headerBytes)
	buf = appendRecord(buf, seed, &Record{Type: 1, Payload: []byte("one"), Pos: pos + headerBytes})
	buf = appendRecord(buf, seed, &Record{Type: 2, Pos: pos + uint64(len(buf))})
	h := groupHeader{pos: pos, synced: 512, length: uint32(len(buf) - headerBytes), count: 2}
	h.put(buf, seed)
	f.Add(bytes.Clone(buf))
	f.Add(buf[:len(buf)-1])
	f.Add(make([]byte, 600))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeGroupHeader(b, seed, pos)
		if err != nil {
			return
		}
		again := make([]byte, headerBytes)
		h.put(again, seed)
		if !bytes.Equal(again, b[:headerBytes]) {
			t.Fatalf("header %x was read, %x is written", b[:headerBytes], again)
		}
		n := uint32(0)
		err = decodeRecords(h, b[headerBytes:], seed, func(frame []byte, r Record) {
			n++
			if again := appendRecord(nil, seed, &r); !bytes.Equal(again, frame) {
				t.Fatalf("record %x was read, %x is written", frame, again)
			}
		})
		if err == nil && n != h.count {
			t.Fatalf("%d records, the header says %d", n, h.count)
		}
	})
}

func FuzzSegmentHeader(f *testing.F) {
	h := segmentHeader{storeID: [16]byte{9}, epoch: 3, number: 7, base: 512, mark: 1024}
	f.Add(h.encode())
	f.Add(h.encode()[:100])
	f.Add(make([]byte, blockBytes))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeSegmentHeader("x", b)
		if err != nil {
			return
		}
		if got, err := decodeSegmentHeader("x", h.encode()); err != nil || got != h {
			t.Fatalf("%+v became %+v, %v", h, got, err)
		}
	})
}

func FuzzManifest(f *testing.F) {
	m := manifest{storeID: [16]byte{9}, segments: []manifestSegment{
		{id: 1, epoch: 1, end: 512}, {id: 3, epoch: 2, base: 1024}}}
	f.Add(m.encode())
	f.Add(m.encode()[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest("x", b)
		if err == nil && !bytes.Equal(m.encode()[:12], b[:12]) && len(m.segments) == 0 {
			t.Fatal("an empty list was accepted")
		}
	})
}
