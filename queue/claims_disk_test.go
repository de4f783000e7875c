package queue

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/vfs"
)

// heldOnAFullDisk is a store on a disk without a free byte in which n keys are claimed.
func heldOnAFullDisk(t *testing.T, n int) (*Store, *vfs.Mem, []idempotency.Settlement) {
	t.Helper()
	mem := vfs.NewMem()
	s := openMem(t, mem, Options{ReserveBytes: 2 << 20})
	openSet(t, s, 24*time.Hour, 1000)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
	}
	held := make([]idempotency.Settlement, n)
	for i, a := range claimAll(t, s, 0, keys...) {
		held[i] = idempotency.Settlement{Key: keys[i], Fence: a.Fence}
	}
	time.Sleep(2 * time.Second) // virtual: the mark is written
	mem.SetCapacity(mem.Used())
	return s, mem, held
}

// On a full disk what can wait of claims is put off in time, one by one or many at once: the store
// lives, and whatever is still held is completed without a result, or released.
func TestAFullDiskPutsOffClaims(t *testing.T) {
	result := make([]byte, idempotency.MaxResultBytes)
	for _, c := range []struct {
		name  string
		verb  idempotency.Verb
		batch int
		calls int
	}{
		{"results", idempotency.Complete, 1, 100},
		{"results at once", idempotency.Complete, 100, 1},
		{"extensions", idempotency.Extend, 1, 5000},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, mem, held := heldOnAFullDisk(t, 100)
				defer s.Close()
				left := make(map[string]idempotency.Settlement) // what is still held
				for _, claim := range held {
					left[claim.Key] = claim
				}
				done, refused := 0, 0
				for n := 0; n < c.calls && refused == 0; n++ {
					first := n % len(held)
					call := make([]idempotency.Settlement, c.batch)
					for i := range call {
						call[i] = held[first+i]
						call[i].Verb, call[i].Lease = c.verb, time.Hour
						if c.verb == idempotency.Complete {
							call[i].Result = result
						}
					}
					errs, err := s.SettleClaims(t.Context(), "set", call)
					if err != nil {
						t.Fatalf("call %d: %v", n, err)
					}
					for i, err := range errs {
						switch {
						case err == nil:
							if done++; c.verb == idempotency.Complete {
								delete(left, call[i].Key)
							}
						case errors.Is(err, ackwise.ErrFull):
							refused++
						default:
							t.Fatalf("call %d: %v", n, err)
						}
					}
				}
				if done == 0 || refused == 0 {
					t.Fatalf("%d went on and %d were put off, with %d bytes left", done, refused,
						s.disk.Left())
				}
				settleEach(t, s, left)
				mem.SetCapacity(-1)
				time.Sleep(2 * refillMillis * time.Millisecond) // virtual
				complete(t, s, "with room again", result)
				verify(t, s)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// settleEach completes claims without a result, and releases some, in the dearest way: each alone,
// and with a mark of its own.
func settleEach(t *testing.T, s *Store, held map[string]idempotency.Settlement) {
	t.Helper()
	for _, claim := range held {
		claim.Verb = idempotency.Complete
		if claim.Fence%5 == 0 {
			claim.Verb = idempotency.Release
		}
		if err := settleClaim(t, s, claim); err != nil {
			t.Fatalf("settle with %d bytes left: %v", s.disk.Left(), err)
		}
		time.Sleep(1500 * time.Millisecond) // virtual
	}
}

// A claim that ran out is taken over only where there is room for it, as a new one is made.
func TestTakeoversWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mem, held := heldOnAFullDisk(t, 1)
		defer s.Close()
		time.Sleep(testLease) // virtual
		if a := claimAll(t, s, 0, held[0].Key)[0]; !errors.Is(a.Err, ackwise.ErrFull) {
			t.Errorf("on a full disk: %+v, want ErrFull", a)
		}
		mem.SetCapacity(-1)
		time.Sleep(2 * refillMillis * time.Millisecond) // virtual
		if a := claim(t, s, held[0].Key, idempotency.Claimed); !a.Takeover {
			t.Errorf("with room again: %+v, want a takeover", a)
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A call that repeats another one is answered when that one's record is written, and not before:
// else a process that is killed in between knows nothing of what was answered.
func TestRepeatsWaitForTheFirst(t *testing.T) {
	for _, what := range []string{"claim", "release"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults := vfs.NewFaults(vfs.NewMem())
				s := openMem(t, faults, Options{})
				openSet(t, s, time.Hour, 100)
				held := claim(t, s, "held", idempotency.Claimed)
				call := func() { claimAll(t, s, 7, "a") }
				if what == "release" {
					call = func() {
						_ = settleClaim(t, s, idempotency.Settlement{Key: "held", Fence: held.Fence,
							Verb: idempotency.Release})
					}
				}
				time.Sleep(3 * time.Second) // virtual: the mark is written
				hold := make(chan struct{})
				blocked := &vfs.Fault{Op: vfs.OpWrite, N: 1, Block: hold}
				faults.Set(blocked)
				answered := make(chan struct{}, 2)
				for range 2 {
					go func() { // ends when the write is let go
						call()
						answered <- struct{}{}
					}()
					synctest.Wait()
				}
				if faults.Fired(blocked) == 0 {
					t.Fatal("no write was blocked")
				}
				if n := len(answered); n > 0 {
					t.Errorf("%d of two calls were answered before the write", n)
				}
				close(hold)
				<-answered
				<-answered
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The repeat of a completion is answered with the next sync, not with the next mark, whatever else
// the call says.
func TestARepeatedCompletionIsSynced(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		f := claimAll(t, s, 0, "a", "b")
		done := idempotency.Settlement{Key: "b", Fence: f[1].Fence, Verb: idempotency.Complete}
		if err := settleClaim(t, s, done); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // virtual
		release := idempotency.Settlement{Key: "a", Fence: f[0].Fence, Verb: idempotency.Release}
		begin := time.Now()
		errs, err := s.SettleClaims(t.Context(), "set",
			[]idempotency.Settlement{release, release, done})
		if took := time.Since(begin); took > 0 || errors.Join(append(errs, err)...) != nil {
			t.Errorf("it took %s, %v, %v", took, errs, err)
		}
		return s
	})
}
