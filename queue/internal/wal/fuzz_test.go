package wal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

func FuzzGroupDecode(f *testing.F) {
	seed := segmentSeed([16]byte{1, 2, 3}, 4, 5)
	const pos = 1024
	buf := make([]byte, headerBytes)
	buf = appendRecord(buf, &Record{Type: 1, Payload: []byte("one")})
	buf = appendRecord(buf, &Record{Type: 2})
	h := groupHeader{pos: pos, synced: 512, length: uint32(len(buf) - headerBytes), count: 2}
	sealGroup(buf, h, seed)
	f.Add(bytes.Clone(buf))
	f.Add(buf[:len(buf)-1])
	f.Add(make([]byte, 600))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeGroupHeader(b, seed, pos)
		if err != nil {
			return
		}
		n := uint32(0)
		again := make([]byte, headerBytes)
		err = decodeRecords(h, b[headerBytes:], seed, func(r Record) {
			n++
			again = appendRecord(again, &r)
		})
		if err != nil {
			return
		}
		sealGroup(again, h, seed)
		if !bytes.Equal(again, b[:headerBytes+h.length]) || n != h.count {
			t.Fatalf("group %x was read, %x is written, with %d records", b, again, n)
		}
	})
}

// FuzzTablePage has a page of a sparse segment's table hold anything, with a right checksum.
func FuzzTablePage(f *testing.F) {
	m := vfs.NewMem()
	if err := m.MkdirAll(testDir); err != nil {
		f.Fatal(err)
	}
	file, err := m.Create(testDir + "/sparse")
	if err != nil {
		f.Fatal(err)
	}
	w := newSparseWriter(file, segmentHeader{kind: kindSparse, number: 3, end: 4096})
	err = errors.Join(w.add(Record{Payload: []byte("one"), Pos: 32}),
		w.add(Record{Payload: []byte("two"), Pos: 600}), w.finish())
	if err != nil {
		f.Fatal(err)
	}
	h := handle{newSegment(w.header), file, 4096}
	good := make([]byte, pageBytes)
	if err := readFull(file, good, w.header.table); err != nil {
		f.Fatal(err)
	}
	f.Add(good[4:60])
	f.Add(bytes.Repeat([]byte{0xff}, pageBytes))
	f.Add([]byte{1, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	l := &Log{opt: Options{FS: m, Dir: testDir}}
	f.Fuzz(func(t *testing.T, b []byte) {
		page := make([]byte, pageBytes)
		copy(page[4:], b)
		sealPage(page, h.segment.seed, w.header.table)
		if _, err := file.WriteAt(page, w.header.table); err != nil {
			t.Fatal(err)
		}
		for _, pos := range []uint64{0, 32, 600, 4095} {
			off, err := l.locate(h, pos, &tableReader{})
			if err != nil {
				continue
			}
			r, err := l.readRecord(h, pos, off, nil)
			if err == nil && string(r.Payload) != map[uint64]string{32: "one", 600: "two"}[pos] {
				t.Fatalf("position %d holds %q", pos, r.Payload)
			}
		}
	})
}

func FuzzSegmentHeader(f *testing.F) {
	h := segmentHeader{storeID: [16]byte{9}, epoch: 3, number: 7, base: 512, mark: 1024}
	f.Add(h.encode())
	f.Add(h.encode()[:100])
	h = segmentHeader{kind: kindSparse, number: 7, base: 512, end: 4096, table: 1024, count: 3}
	f.Add(h.encode())
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
		{id: 4, epoch: 1, end: 512, kind: kindSparse}, {id: 3, epoch: 2, base: 1024}}}
	f.Add(m.encode())
	f.Add(m.encode()[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest("x", b)
		if err == nil && !bytes.Equal(m.encode()[:12], b[:12]) && len(m.segments) == 0 {
			t.Fatal("an empty list was accepted")
		}
	})
}
