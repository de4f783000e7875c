package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestSameBehaviour runs one script on the real file system and on the one in memory.
func TestSameBehaviour(t *testing.T) {
	for name, s := range map[string]struct {
		fs  FS
		dir string
	}{"OS": {OS{}, t.TempDir() + "/x/y"}, "Mem": {NewMem(), "/x/y"},
		"Faults": {NewFaults(NewMem()), "/x/y"}} {
		t.Run(name, func(t *testing.T) {
			a, b := filepath.Join(s.dir, "a"), filepath.Join(s.dir, "b")
			must(t, s.fs.MkdirAll(s.dir))
			_, err := s.fs.Open(a)
			wantIs(t, err, fs.ErrNotExist)
			f, err := s.fs.Create(a)
			must(t, err)
			_, err = s.fs.Create(a)
			wantIs(t, err, fs.ErrExist)
			_, err = f.WriteAt([]byte("hello"), 2)
			must(t, err)
			must(t, f.Sync())
			must(t, f.Close())
			must(t, s.fs.Rename(a, b))
			must(t, s.fs.SyncDir(s.dir))
			names, err := s.fs.ReadDir(s.dir)
			if err != nil || !slices.Equal(names, []string{"b"}) {
				t.Fatalf("ReadDir = %v, %v", names, err)
			}
			f, err = s.fs.Open(b)
			must(t, err)
			buf := make([]byte, 10)
			n, err := f.ReadAt(buf, 0)
			if n != 7 || !errors.Is(err, io.EOF) || string(buf[:n]) != "\x00\x00hello" {
				t.Fatalf("ReadAt = %q, %v", buf[:n], err)
			}
			if size, err := f.Size(); size != 7 || err != nil {
				t.Fatalf("Size = %d, %v", size, err)
			}
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("a file opened for reading was written to")
			}
			must(t, f.Close())
			checkEdit(t, s.fs, b)
			if inode, err := s.fs.Inode(s.dir); inode == 0 || err != nil {
				t.Errorf("Inode = %d, %v", inode, err)
			}
			if free, err := s.fs.FreeBytes(s.dir); free <= 0 || err != nil {
				t.Errorf("FreeBytes = %d, %v", free, err)
			}
			must(t, s.fs.Remove(b))
			wantIs(t, s.fs.Remove(b), fs.ErrNotExist)
		})
	}
}

// checkEdit opens a file that is there again, gives it room, takes some back and writes over it.
func checkEdit(t *testing.T, fsys FS, name string) {
	t.Helper()
	f, err := fsys.Edit(name)
	must(t, err)
	must(t, f.Allocate(1<<20))
	must(t, f.Allocate(10)) // has it already
	wantSize(t, f, 1<<20)
	_, err = f.WriteAt([]byte("J"), 2)
	must(t, err)
	must(t, f.Truncate(5))
	wantSize(t, f, 5)
	must(t, f.Sync())
	buf := make([]byte, 5)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "\x00\x00Jel" {
		t.Errorf("ReadAt = %q, %v", buf, err)
	}
	must(t, f.Close())
	_, err = fsys.Edit(name + "-none")
	wantIs(t, err, fs.ErrNotExist)
}

func wantSize(t *testing.T, f File, want int64) {
	t.Helper()
	if size, err := f.Size(); size != want || err != nil {
		t.Errorf("Size = %d, %v, want %d", size, err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

// TestCrashClone looks at all that a power cut may leave: what was synced always holds, and each
// legal form of the rest comes up.
func TestCrashClone(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/d"))
	f, err := m.Create("/d/a")
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("s"), BlockBytes), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, m.SyncDir("/d"))
	_, err = f.WriteAt(bytes.Repeat([]byte("u"), 2*BlockBytes), BlockBytes)
	must(t, err)
	g, err := m.Create("/d/tmp")
	must(t, err)
	must(t, g.Sync())
	must(t, m.Rename("/d/tmp", "/d/b"))
	seen := map[string]int{}
	for seed := range uint64(2000) {
		c := m.CrashClone(rand.New(rand.NewPCG(seed, 1)))
		b, err := c.ReadFile("/d/a")
		must(t, err)
		if !bytes.Equal(b[:BlockBytes], bytes.Repeat([]byte("s"), BlockBytes)) {
			t.Fatalf("seed %d: the synced block was lost", seed)
		}
		form := ""
		for at := BlockBytes; at < 3*BlockBytes; at += BlockBytes {
			switch {
			case at >= len(b):
				form += "-"
			case b[at] == 'u':
				form += "u"
			default:
				form += "0"
			}
		}
		names, err := c.ReadDir("/d")
		must(t, err)
		for _, n := range names {
			form += " " + n
		}
		seen[form]++
	}
	for _, blocks := range []string{"--", "uu", "u0", "0u", "00"} {
		for _, names := range []string{" a", " a b", " a tmp"} {
			if seen[blocks+names] == 0 {
				t.Errorf("no cut left %q", blocks+names)
			}
		}
	}
	if b, err := m.Clone().ReadFile("/d/b"); err != nil || len(b) != 0 {
		t.Errorf("a killed process lost a rename: %v", err)
	}
}

func TestFaults(t *testing.T) {
	second := &Fault{Op: OpWrite, N: 2, Err: syscall.EIO, Short: 3}
	onward := &Fault{Op: OpAny, Changes: true, N: 6, Onward: true, Err: syscall.EROFS}
	m := NewMem()
	f := NewFaults(m, second)
	f.Set(onward)
	must(t, f.MkdirAll("/d"))     // 1
	file, err := f.Create("/d/a") // 2
	must(t, err)
	_, err = file.WriteAt([]byte("first"), 0) // 3
	must(t, err)
	n, err := file.WriteAt([]byte("second"), 5) // 4
	if n != 3 || !errors.Is(err, syscall.EIO) {
		t.Errorf("short write = %d, %v", n, err)
	}
	must(t, file.Sync()) // 5
	wantIs(t, file.Sync(), syscall.EROFS)
	wantIs(t, f.Remove("/d/a"), syscall.EROFS)
	if b, err := m.ReadFile("/d/a"); string(b) != "firstsec" || err != nil {
		t.Errorf("content %q, %v", b, err)
	}
	if f.Fired(second) != 1 || f.Fired(onward) != 2 ||
		f.Calls(OpWrite) != 2 || f.Calls(OpAny) != 7 {
		t.Errorf("fired %d, %d, calls %d, %d", f.Fired(second), f.Fired(onward), f.Calls(OpWrite),
			f.Calls(OpAny))
	}
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(10)
	must(t, m.MkdirAll("/d"))
	f, err := m.Create("/d/a")
	must(t, err)
	n, err := f.WriteAt(make([]byte, 12), 0)
	if n != 10 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt = %d, %v", n, err)
	}
	must(t, m.Remove("/d/a"))
	if free, err := m.FreeBytes("/d"); free != 10 || err != nil {
		t.Errorf("FreeBytes = %d, %v", free, err)
	}
}

// TestCrashKeepsOrLosesACut: a length that was cut and not synced is any between the two, room that
// was allocated and not synced may be gone, and after a sync both hold.
func TestCrashKeepsOrLosesACut(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/d"))
	f, err := m.Create("/d/a")
	must(t, err)
	must(t, m.SyncDir("/d"))
	must(t, f.Allocate(4096))
	must(t, f.Sync())
	must(t, f.Truncate(1024))
	seen := map[int]bool{}
	for seed := range uint64(200) {
		b, err := m.CrashClone(rand.New(rand.NewPCG(seed, 1))).ReadFile("/d/a")
		must(t, err)
		if len(b) < 1024 || len(b) > 4096 {
			t.Fatalf("the file has %d bytes after a cut from 4096 to 1024", len(b))
		}
		seen[len(b)] = true
	}
	if !seen[1024] || !seen[4096] {
		t.Errorf("lengths %v never showed both ends", seen)
	}
	must(t, f.Sync())
	for seed := range uint64(20) {
		b, err := m.CrashClone(rand.New(rand.NewPCG(seed, 1))).ReadFile("/d/a")
		if must(t, err); len(b) != 1024 {
			t.Fatalf("after the sync the file has %d bytes, want 1024", len(b))
		}
	}
}

// TestAFullDiskRefuses: what does not fit changes nothing, and what is cut gives its room back.
func TestAFullDiskRefuses(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/d"))
	m.SetCapacity(4096)
	f, err := m.Create("/d/a")
	must(t, err)
	wantIs(t, f.Allocate(5000), syscall.ENOSPC)
	wantSize(t, f, 0)
	must(t, f.Allocate(4096))
	_, err = m.Create("/d/b")
	wantIs(t, err, syscall.ENOSPC)
	must(t, f.Truncate(1000))
	_, err = m.Create("/d/b")
	must(t, err)
}
