package dedup

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"
)

// fuzzFile is a small bucket's file.
func fuzzFile(f *testing.F) []byte {
	disk := newDisk(f)
	w := New(testOptions(disk))
	for i := range 5 {
		w.Add(fmt.Sprint(i), Seen{Pos: uint64(i), At: int64(i)})
	}
	h := header{storeID: w.opt.StoreID, topic: 7}
	if _, err := writeFile(disk, testDir, w.view.Load().open, h); err != nil {
		f.Fatal(err)
	}
	b, err := disk.ReadFile(testDir + "/" + fileName(7, 1))
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzFile: no content of a file makes a lookup panic, and an ID that is found stands in it.
func FuzzFile(f *testing.F) {
	good := fuzzFile(f)
	f.Add(good, "3")
	f.Add(good[:len(good)-1], "3")
	f.Add(good[:blockBytes], "")
	f.Fuzz(func(t *testing.T, b []byte, id string) {
		disk := newDisk(t)
		if err := disk.WriteFile(testDir+"/x", b); err != nil {
			t.Fatal(err)
		}
		file, err := openFile(disk, testDir+"/x")
		if err != nil {
			return
		}
		h := seedOf(file.head.storeID).hash(id)
		if _, ok, err := file.find(disk, h, id); ok && (err != nil ||
			!bytes.Contains(b, []byte(id))) {
			t.Fatalf("%q was found, %v", id, err)
		}
	})
}

// FuzzBlock reads blocks whose checksum is right and whose content may be anything.
func FuzzBlock(f *testing.F) {
	good := fuzzFile(f)[blockBytes : 2*blockBytes]
	f.Add(good[blockHead:], uint32(5), "3")
	f.Add([]byte{}, uint32(1<<31), "")
	f.Fuzz(func(t *testing.T, content []byte, n uint32, id string) {
		block := make([]byte, blockBytes)
		end := blockHead + copy(block[blockHead:], content)
		sealBlock(block[:end], int(n), 9)
		hash := seedOf([16]byte{1, 2, 3}).hash(id)
		if _, _, ok, err := findInBlock(block, 9, hash, id); ok && (err != nil ||
			!bytes.Contains(block, []byte(id))) {
			t.Fatalf("%q was found, %v", id, err)
		}
	})
}

// FuzzSnapshot: what is read is written again as the same bytes, and can be opened and used.
func FuzzSnapshot(f *testing.F) {
	disk := newDisk(f)
	w := New(testOptions(disk))
	for i := range 70 {
		w.Add(fmt.Sprint(i), Seen{Pos: uint64(i), At: int64(i)})
	}
	var b bytes.Buffer
	for range 2 {
		if _, err := w.Snapshot().WriteTo(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(b.Bytes()))
		b.Reset()
		w.close()
		w.written(w.view.Load().closed[0], &file{})
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadSnapshot(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		w, err := Open(testOptions(newDisk(t)), s)
		if err != nil {
			t.Fatal(err)
		}
		var again bytes.Buffer
		if _, err := w.Snapshot().WriteTo(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), b[:again.Len()]) {
			t.Fatalf("%x was read, %x is written", b, again.Bytes())
		}
		for _, id := range []string{"3", "new"} {
			p := w.Probe(id, s.last)
			if _, ok, _ := w.Confirm(&p, s.last); !ok {
				w.Add(id, Seen{At: s.last})
			}
		}
	})
}
