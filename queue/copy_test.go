package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/internal/vfs"
)

// hold publishes n messages to a new store and receives them: two acked, the rest in flight. One
// session in two belongs to another process, which lives.
func hold(t *testing.T, s *Store, n int) (held []*ackwise.Delivery, by []*Receiver) {
	t.Helper()
	create(t, s, "orders", "billing", SubscriptionOptions{})
	for i := range n {
		publish(t, s, ackwise.Message{Topic: "orders", ID: fmt.Sprint("m", i)})
	}
	for i := range 2 {
		r := receiver(t, s, "orders", "billing", ReceiverOptions{Session: fmt.Sprint("s", i),
			Foreign: i == 1, Process: lockfile.ProcessID(os.Getppid())})
		for j, d := range receive(t, r, n/2) {
			if j == 0 {
				settle(t, r, d, ackwise.OutcomeAck)
				continue
			}
			held, by = append(held, d), append(by, r)
		}
	}
	if len(held) != n-2 {
		t.Fatalf("%d of %d are in flight", len(held), n)
	}
	return held, by
}

// refuses settles each of the original's deliveries on a copy, which wants none of them, alone and
// in a transaction; then what was in flight is handed out there like after any restart.
func refuses(t *testing.T, s *Store, held []*ackwise.Delivery) {
	t.Helper()
	r := receiver(t, s, "orders", "billing", ReceiverOptions{Session: "s1", SyncAcks: true})
	for _, d := range held {
		ack := []ackwise.Settlement{{Token: d.Token, Outcome: ackwise.OutcomeAck}}
		if res := r.Settle(t.Context(), ack); !errors.Is(res[0].Err, ackwise.ErrBadToken) {
			t.Errorf("the copy took a token of the original: %+v", res[0])
		}
		if _, err := s.Commit(t.Context(), Commit{Settle: ack}); !errors.Is(err,
			ackwise.ErrBadToken) {
			t.Errorf("the copy committed with a token of the original: %v", err)
		}
	}
	got := map[string]bool{}
	for len(got) < len(held) {
		for _, d := range receive(t, r, len(held)) {
			if d.Cause != ackwise.CauseRestarted || got[d.ID] {
				t.Errorf("%s came with cause %v", d.ID, d.Cause)
			}
			got[d.ID] = true
			settle(t, r, d, ackwise.OutcomeAck)
		}
	}
	for _, d := range held {
		if !got[d.ID] {
			t.Errorf("%s did not come", d.ID)
		}
	}
	verify(t, s)
}

// accepts settles the deliveries where they came from.
func accepts(t *testing.T, held []*ackwise.Delivery, by []*Receiver) {
	t.Helper()
	for i, d := range held {
		settle(t, by[i], d, ackwise.OutcomeAck)
	}
	verify(t, by[0].store)
}

// A copy of a directory, taken while the original works, wants none of the original's tokens, and
// the original wants them all, also once the copy was open. The copy keeps what it is from then on.
func TestACopyIsAnotherStore(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			s := openMem(t, mem, Options{})
			held, by := hold(t, s, 10)
			if checkpoint {
				if err := s.takeCheckpoint(); err != nil {
					t.Fatal(err)
				}
			}
			copied := mem.Clone()
			copied.Copied()
			other := openMem(t, copied, Options{})
			refuses(t, other, held)
			again := copied.Clone() // moved, or killed: no copy
			identity := other.st.Identity
			if err := other.Close(); err != nil {
				t.Error(err)
			}
			for _, m := range []*vfs.Mem{copied, again} {
				other = openMem(t, m, Options{})
				if other.st.Identity != identity || identity == s.st.Identity {
					t.Error("the copy does not keep the identity of its own")
				}
				verify(t, other)
				if err := other.Close(); err != nil {
					t.Error(err)
				}
			}
			accepts(t, held, by)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The original stays what it is over restarts: the tokens of another process's session are good
// in the next term.
func TestTheOriginalKeepsItsIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{})
		held, by := hold(t, s, 4)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			s = openMem(t, mem.Clone(), Options{Process: "another"})
			r := receiver(t, s, "orders", "billing", ReceiverOptions{Session: "s1", Foreign: true})
			for i, d := range held {
				if by[i].Session() == "s1" {
					settle(t, r, d, ackwise.OutcomeAck)
				}
			}
			_ = s.Close()
		}
	})
}

// blind is a file system that knows no inodes.
type blind struct{ vfs.FS }

func (blind) Inode(string) (uint64, error) { return 0, nil }

// Where no inodes are known, nothing is told, and what was known before is not forgotten.
func TestACopyIsNotToldWithoutInodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{})
		identity, inode := s.st.Identity, s.st.Inode
		if identity == [16]byte{} || inode == 0 {
			t.Fatalf("a new store has identity %x, inode %d", identity, inode)
		}
		_ = s.Close()
		mem.Copied()
		s = openMem(t, blind{mem}, Options{})
		if s.st.Identity != identity || s.st.Inode != inode {
			t.Errorf("without inodes: identity %x of inode %d became %x of %d", identity, inode,
				s.st.Identity, s.st.Inode)
		}
		_ = s.Close()
		s = openMem(t, mem, Options{})
		if s.st.Identity == identity {
			t.Error("the copy was not told once inodes were known again")
		}
		_ = s.Close()
		blindly := vfs.NewMem()
		s = openMem(t, blind{blindly}, Options{})
		identity = s.st.Identity
		_ = s.Close()
		s = openMem(t, blindly, Options{})
		if s.st.Identity != identity || s.st.Inode == 0 {
			t.Error("a store whose inode was unknown was taken for a copy")
		}
		_ = s.Close()
	})
}

// The same with real directories: a copy of a store in use, as a killed process leaves it, and of
// one that was closed.
func TestACopiedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "original")
	o := Options{SegmentBytes: 1 << 20}
	s := open(t, dir, o)
	held, by := hold(t, s, 10)
	copyOf := func(name string) string {
		to := filepath.Join(filepath.Dir(dir), name)
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		return to
	}
	inUse := copyOf("in-use")
	refuses(t, open(t, inUse, o), held)
	accepts(t, held[4:], by[4:])
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	closed := copyOf("closed")
	refuses(t, open(t, closed, o), held[:4])
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	s = open(t, moved, o)
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	if res := r.Settle(t.Context(), []ackwise.Settlement{{Token: held[0].Token,
		Outcome: ackwise.OutcomeAck}}); errors.Is(res[0].Err, ackwise.ErrBadToken) {
		t.Error("a directory that was moved was taken for a copy")
	}
	verify(t, s)
}
