package queue

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/reserve"
)

// shows lists all that a consumer or a person can see of a store.
func shows(t *testing.T, s *Store) (string, error) {
	t.Helper()
	var b strings.Builder
	there, err := s.Peek(t.Context(), "orders", "billing", PeekOptions{Max: maxListed})
	if err != nil {
		return "", err
	}
	for _, m := range there {
		fmt.Fprintln(&b, m.Message.ID, m.Message.Key, m.State, m.Counts, m.Position,
			len(m.Message.Body), bytes.Count(m.Message.Body, []byte(m.Message.ID)))
	}
	books, err := s.Books(t.Context())
	for _, k := range books {
		k.Position = "" // of the moment, not of the state
		fmt.Fprintf(&b, "%+v\n", k)
	}
	return b.String(), err
}

// quiet makes the disk of a store with a bit of everything: several files of each kind, messages in
// every state, closed in good order.
func quiet(t *testing.T) (disk *vfs.Mem, want string) {
	t.Helper()
	p := newPlayer(t, 1)
	for _, op := range "OKRDPRACPKRANFCPRAOPKPKRNDPKPPOC" {
		if _, err := p.do(op); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // virtual
	s, err := faultStore(p.disk.Clone())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want, err = shows(t, s)
	if err != nil || len(want) < 500 {
		t.Fatalf("the store shows %q, %v", want, err)
	}
	return p.disk, want
}

// silent opens a damaged store: it is refused with the file's name, Verify or a read names it, or
// nothing has changed. Anything else is an error.
func silent(t *testing.T, disk *vfs.Mem, want string) (named bool, err error) {
	t.Helper()
	s, err := faultStore(disk)
	if err != nil {
		return isNamed(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	report, err := s.Verify(t.Context())
	switch {
	case err != nil:
		return isNamed(err)
	case len(report.Findings) > 0:
		return true, nil
	}
	got, err := shows(t, s)
	if err != nil || got != want {
		return false, fmt.Errorf("silently it shows\n%s, not\n%s, %w", got, want, err)
	}
	return false, nil
}

// isNamed reports whether an error names a damaged file, and returns it where it does not.
func isNamed(err error) (bool, error) {
	var damage *CorruptionError
	var format *FormatError
	if errors.As(err, &damage) && damage.Segment != "" || errors.As(err, &format) {
		return true, nil
	}
	return false, err
}

// Row: any bit flipped in any file of a store at rest: segments, their list, checkpoints, and what
// else there is. The long form flips every bit of the small ones.
func TestFaultBitsOfEveryFileFlipped(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	each := 40
	if long() {
		each = 1000
	}
	synctest.Test(t, func(t *testing.T) {
		disk, want := quiet(t)
		names, err := disk.ReadDir("/store")
		if err != nil || len(names) < 5 {
			t.Fatalf("files %v, %v", names, err)
		}
		for _, name := range names {
			whole, err := disk.ReadFile("/store/" + name)
			if err != nil {
				t.Fatal(err)
			}
			refused, harmless := 0, 0
			each := each
			if name == reserve.Name { // all of it is harmless
				each = 40
			}
			step := max(1, len(whole)*8/each) | 1 // odd
			if long() && len(whole) <= 2<<10 {
				step = 1
			}
			for bit := 0; bit < len(whole)*8; bit += step {
				m := disk.Clone()
				if err := m.Flip("/store/"+name, int64(bit/8), 1<<(bit%8)); err != nil {
					t.Fatal(err)
				}
				named, err := silent(t, m, want)
				if err != nil {
					t.Fatalf("%s, bit %d of byte %d: %v", name, bit%8, bit/8, err)
				}
				if named {
					refused++
				} else {
					harmless++
				}
			}
			t.Logf("%s: %d of %d bits flipped: %d refused, %d harmless, 0 silent", name,
				refused+harmless, len(whole)*8, refused, harmless)
			if refused == 0 && name != reserve.Name || refused+harmless < min(each, len(whole)*8)/2 {
				t.Errorf("%s: no flip was noticed, or too few were tried", name)
			}
		}
	})
}

// Row: files missing, emptied, halved, exchanged with each other and with those of another store.
func TestFaultEveryPairOfFilesExchanged(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	synctest.Test(t, func(t *testing.T) {
		disk, want := quiet(t)
		other, _ := quiet(t)
		names, err := disk.ReadDir("/store")
		if err != nil {
			t.Fatal(err)
		}
		others, err := other.ReadDir("/store")
		if err != nil {
			t.Fatal(err)
		}
		tried, refused := 0, 0
		try := func(what, name string, content []byte) {
			t.Helper()
			m := disk.Clone()
			err := m.Remove("/store/" + name)
			if content != nil && err == nil {
				err = m.WriteFile("/store/"+name, content)
			}
			if err != nil {
				t.Fatal(err)
			}
			named, err := silent(t, m, want)
			if err != nil {
				t.Errorf("%s %s: %v", name, what, err)
			}
			if tried++; named {
				refused++
			}
		}
		for _, name := range names {
			whole, err := disk.ReadFile("/store/" + name)
			if err != nil {
				t.Fatal(err)
			}
			try("missing", name, nil)
			try("empty", name, []byte{})
			try("halved", name, whole[:len(whole)/2])
			try("without its last byte", name, whole[:len(whole)-1])
			for _, from := range names {
				if b, err := disk.ReadFile("/store/" + from); err == nil && from != name {
					try("replaced by "+from, name, b)
				}
			}
			for _, from := range others {
				if b, err := other.ReadFile("/store/" + from); err == nil {
					try("replaced by another store's "+from, name, b)
				}
			}
		}
		t.Logf("%d exchanges of %d files, %d refused, 0 silent", tried, len(names), refused)
		if tried < 50 || refused < tried*8/10 {
			t.Errorf("%d tried, %d refused: too few", tried, refused)
		}
	})
}

// Row: two owners. The second one is told who holds the directory, and changes nothing.
func TestFaultTwoOwners(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	create(t, s, "orders", "billing", SubscriptionOptions{})
	for range 10 {
		var locked *LockedError
		if _, err := Open(dir, Options{}); !errors.As(err, &locked) || locked.Dir != dir {
			t.Fatalf("second owner: %v", err)
		}
	}
	publish(t, s, ackwise.Message{Topic: "orders", ID: "a"})
	verify(t, s)
}
