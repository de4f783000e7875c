package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/vfs"
)

// counting is a handler that counts each of its keys once, in one transaction with its mark.
func counting(t *testing.T, r *Receiver, before func(d *ackwise.Delivery)) ackwise.Transactional {
	t.Helper()
	h := Transact(func(ctx context.Context, tx *Tx, d *ackwise.Delivery) error {
		done, err := tx.Once(ctx, "set", d.Key, idempotency.Sum{1})
		if before != nil {
			before(d)
		}
		if err != nil || done {
			return err
		}
		have, err := tx.Get(ctx, "counts", d.Key)
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(have))
		tx.Put("counts", d.Key, strconv.AppendInt(nil, int64(n+1), 10))
		if again, err := tx.Once(ctx, "set", d.Key, idempotency.Sum{1}); err != nil || !again {
			return fmt.Errorf("the same key again in one transaction: %t, %w", again, err)
		}
		return nil
	})
	if err := h.Bind(r); err != nil {
		t.Fatal(err)
	}
	return h
}

func wantCount(t *testing.T, s *Store, key, want string) {
	t.Helper()
	e, err := s.Get(t.Context(), "counts", key)
	if err != nil || string(e.Value) != want {
		t.Errorf("%s is counted %q times (%v), want %s", key, e.Value, err, want)
	}
}

// One key that comes a hundred times, over restarts and past the ends of leases, has one effect
// within the window, and the next one after it.
func TestOnceInATransaction(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		create(t, s, "orders", "billing", SubscriptionOptions{Lease: time.Minute})
		openSet(t, s, time.Hour, 100)
		round := func(n int) {
			t.Helper()
			for range n {
				publish(t, s, ackwise.Message{Topic: "orders", Key: "a"})
			}
			r := receiver(t, s, "orders", "billing", ReceiverOptions{})
			h := counting(t, r, nil)
			for range n {
				d := receive(t, r, 1)[0]
				if err := h.Handle(t.Context(), d); err != nil {
					t.Fatalf("handle: %v", err)
				}
			}
		}
		for range 4 {
			round(25)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openMem(t, mem, Options{})
		}
		wantCount(t, s, "a", "1")
		verify(t, s)
		time.Sleep(time.Hour) // virtual
		round(25)
		wantCount(t, s, "a", "2")
		return s
	})
}

// Of two deliveries of one key at once, one makes the effect, and the other runs again and finds it
// done.
func TestOnceByTwoAtOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		create(t, s, "orders", "billing", SubscriptionOptions{})
		openSet(t, s, time.Hour, 100)
		publish(t, s, ackwise.Message{Topic: "orders", Key: "a"},
			ackwise.Message{Topic: "orders", Key: "a"})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		ds := receive(t, r, 2)
		runs := 0
		inner := counting(t, r, nil)
		h := counting(t, r, func(*ackwise.Delivery) {
			if runs++; runs == 1 { // the other one is faster
				if err := inner.Handle(t.Context(), ds[1]); err != nil {
					t.Errorf("the other one: %v", err)
				}
			}
		})
		if err := h.Handle(t.Context(), ds[0]); err != nil || runs != 2 {
			t.Errorf("handled in %d runs, %v, want 2", runs, err)
		}
		wantCount(t, s, "a", "1")
		if books, _ := s.Books(t.Context()); books[0].Acked != 2 {
			t.Errorf("books: %+v", books[0])
		}
		return s
	})
}

func TestOnceWithClaims(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		create(t, s, "orders", "billing", SubscriptionOptions{Lease: time.Hour})
		openSet(t, s, time.Hour, 100)
		publish(t, s, ackwise.Message{Topic: "orders", Key: "a"})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		d := receive(t, r, 1)[0]
		h := counting(t, r, nil)
		held := claim(t, s, "a", idempotency.Claimed)
		wait, snoozed := time.Duration(0), false
		err := h.Handle(t.Context(), d)
		if d := ackwise.OutcomeOf(err); d.Outcome == ackwise.OutcomeSnooze {
			wait, snoozed = d.Delay, true
		}
		if !snoozed || wait <= 0 || wait > testLease {
			t.Errorf("while it is claimed: %v (%s)", err, wait)
		}
		time.Sleep(testLease) // virtual
		if err := h.Handle(t.Context(), d); err != nil {
			t.Errorf("when the claim has run out: %v", err)
		}
		wantCount(t, s, "a", "1")
		if err := settleClaim(t, s, idempotency.Settlement{Key: "a", Fence: held.Fence,
			Verb: idempotency.Complete}); !errors.Is(err, idempotency.ErrFence) {
			t.Errorf("the former holder completes: %v, want ErrFence", err)
		}
		answers, err := s.Claim(t.Context(), "set", []idempotency.Ask{{Key: "a",
			Sum: idempotency.Sum{2}, Lease: testLease}})
		if err != nil || answers[0].Status != idempotency.Conflict {
			t.Errorf("another payload: %+v, %v", answers, err)
		}
		publish(t, s, ackwise.Message{Topic: "orders", Key: "a"})
		other := Transact(func(ctx context.Context, tx *Tx, d *ackwise.Delivery) error {
			_, err := tx.Once(ctx, "set", d.Key, idempotency.Sum{2})
			return err
		})
		if err := other.Bind(r); err != nil {
			t.Fatal(err)
		}
		if err := other.Handle(t.Context(), receive(t, r, 1)[0]); !errors.Is(err,
			ackwise.ErrIDConflict) {
			t.Errorf("another payload in a transaction: %v, want ErrIDConflict", err)
		}
		return s
	})
}

// A commit that is repeated is answered as the first one, and its keys stay as they are.
func TestOnceInARepeatedCommit(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		c := Commit{ID: "c1", Once: map[string][]idempotency.Ask{"set": {{Key: "a"}, {Key: "b"}}}}
		for range 2 {
			if _, err := s.Commit(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		claim(t, s, "a", idempotency.Done)
		c.ID = "c2"
		if _, err := s.Commit(t.Context(), c); !errors.Is(err, ErrConflict) {
			t.Errorf("another commit of the same keys: %v, want ErrConflict", err)
		}
		c.Once = map[string][]idempotency.Ask{"nobodys": {{Key: "a"}}}
		if _, ok := errors.AsType[*ackwise.NotFoundError](errOf(s.Commit(t.Context(), c))); !ok {
			t.Error("a set that is not there was taken")
		}
		return s
	})
}

// A key that comes twice in one transaction is done the second time, but not with another payload.
func TestOnceTwiceInATransaction(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		tx := &Tx{on: s, read: make(map[tableKey]bool), wrote: make(map[tableKey]int)}
		for i, c := range []struct {
			key  string
			sum  idempotency.Sum
			done bool
			err  error
		}{
			{"a", idempotency.Sum{1}, false, nil},
			{"a", idempotency.Sum{1}, true, nil},
			{"a", idempotency.Sum{2}, false, ackwise.ErrIDConflict},
			{"a", idempotency.Sum{}, true, nil}, // it is not compared
			{"b", idempotency.Sum{}, false, nil},
			{"b", idempotency.Sum{2}, true, nil},
		} {
			done, err := tx.Once(t.Context(), "set", c.key, c.sum)
			if done != c.done || !errors.Is(err, c.err) {
				t.Errorf("%d, %s: %t, %v, want %t, %v", i, c.key, done, err, c.done, c.err)
			}
		}
		return s
	})
}

func errOf[T any](_ T, err error) error { return err }
