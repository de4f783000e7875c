package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
)

// batchOf makes an inbox for batches, bound to a source.
func batchOf(t *testing.T, b *bed,
	fn func(context.Context, pgx.Tx, []*ackwise.Delivery) error) *postgres.BatchInbox[pgx.Tx] {
	t.Helper()
	h, err := postgres.InboxBatch(t.Context(), postgres.PGX(b.pool), fn, options("in"))
	if err == nil {
		err = h.Bind(&fakeSource{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestInboxBatchVerdictIsOfOneMessage: what a handler says of one message is not said of those
// behind it of its key, which it never accepted.
func TestInboxBatchVerdictIsOfOneMessage(t *testing.T) {
	for _, c := range []struct {
		name    string
		verdict error
		first   ackwise.Outcome
		second  ackwise.Outcome
	}{
		{"drop", ackwise.Drop("not wanted"), ackwise.OutcomeDrop, ackwise.OutcomeAck},
		{"reject", ackwise.Reject(errors.New("bad")), ackwise.OutcomeDead, ackwise.OutcomeSnooze},
		{"nack", errors.New("bad"), ackwise.OutcomeNack, ackwise.OutcomeSnooze},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			h := batchOf(t, b, func(ctx context.Context, tx pgx.Tx, ds []*ackwise.Delivery) error {
				for _, d := range ds {
					if d.ID == "a" {
						return c.verdict
					}
					if err := add(ctx, tx, d); err != nil {
						return err
					}
				}
				return nil
			})
			first, second := delivery("a", "x"), delivery("b", "y")
			first.Key, second.Key = "k", "k"
			got := h.HandleBatch(t.Context(), []*ackwise.Delivery{first, second, delivery("c", "z")})
			if v := ackwise.OutcomeOf(got[0]); v.Outcome != c.first {
				t.Errorf("the first: %s, want %s", v.Outcome, c.first)
			}
			if v := ackwise.OutcomeOf(got[1]); v.Outcome != c.second {
				t.Errorf("the one behind it: %s (%v), want %s", v.Outcome, got[1], c.second)
			}
			want := int64(1)
			if c.second == ackwise.OutcomeAck {
				want = 2
			}
			if got[2] != nil || b.total(t) != want {
				t.Errorf("another: %v, total %d, want %d", got[2], b.total(t), want)
			}
		})
	}
}

// TestInboxBatchFailsAtItsCommit: one message breaks a constraint that is looked at as late as the
// commit, or breaks the transaction without a word.
func TestInboxBatchFailsAtItsCommit(t *testing.T) {
	b := newBed(t)
	b.exec(t, "CREATE TABLE parent (id text PRIMARY KEY)")
	b.exec(t, "CREATE TABLE child (id text REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
	b.exec(t, "INSERT INTO parent SELECT 'm' || i FROM generate_series(1, 9) i")
	h := batchOf(t, b, func(ctx context.Context, tx pgx.Tx, ds []*ackwise.Delivery) error {
		for _, d := range ds {
			if string(d.Body) == "swallowed" {
				_, _ = tx.Exec(ctx, "SELECT 1 / 0") // the error is the one that the test wants lost
				continue
			}
			if _, err := tx.Exec(ctx, "INSERT INTO child VALUES ($1)", d.ID); err != nil {
				return err
			}
		}
		return nil
	})
	for _, body := range []string{"x", "swallowed"} {
		var ds []*ackwise.Delivery
		for i := range 5 {
			ds = append(ds, delivery(fmt.Sprint("m", i), "x"))
		}
		if body == "swallowed" {
			for i := range ds {
				ds[i] = delivery(fmt.Sprint("m", i+5), "x")
			}
			ds[0] = delivery("m0", body)
		}
		for i, err := range h.HandleBatch(t.Context(), ds) {
			if bad := i == 0; bad != (err != nil) {
				t.Errorf("%s: message %d of which the first is bad: %v", body, i, err)
			}
		}
	}
	if n := scalar[int](t, b.pool, "SELECT count(*) FROM child"); n != 8 {
		t.Errorf("%d effects, want 8", n)
	}
}

// TestInboxWhoseHandlerCommits: the effect is made without its marker, and is never made again.
func TestInboxWhoseHandlerCommits(t *testing.T) {
	b := newBed(t)
	h, src := bound(t, postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
			if err := add(ctx, tx, d); err != nil || d.ID != "a" {
				return err
			}
			return tx.Commit(ctx)
		}, options("in"))
	for i, want := range []string{"has ended the transaction", "a claim was left behind",
		"a claim was left behind", "a claim was left behind"} {
		if i == 2 { // as it is a day later
			b.exec(t, "UPDATE ackwise_claim SET deadline = clock_timestamp()")
		}
		err := h.Handle(t.Context(), delivery("a", "x"))
		if v := ackwise.OutcomeOf(err); v.Outcome != ackwise.OutcomeNack ||
			!strings.Contains(v.Reason, want) {
			t.Errorf("delivery %d: %v, want a nack that says %q", i+1, err, want)
		}
	}
	if err := h.Handle(t.Context(), delivery("b", "x")); err != nil {
		t.Error(err)
	}
	if got := b.total(t); got != 2 || len(src.acks) != 1 {
		t.Errorf("%d effects of two messages and %d acks, want 2 and 1", got, len(src.acks))
	}
}

// TestInboxSerializable: messages that have nothing to do with each other may be in each other's
// way, which is no fault of theirs.
func TestInboxSerializable(t *testing.T) {
	b := newBed(t)
	b.exec(t, "CREATE TABLE own (id text)")
	o := options("in")
	o.Serializable = true
	m := newMeeting()
	h, _ := bound(t, postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
			m.come(ctx)
			_, err := tx.Exec(ctx, "INSERT INTO own VALUES ($1)", d.ID)
			return err
		}, o)
	const workers, each = 16, 10
	var wg sync.WaitGroup
	var snoozed atomic.Int64
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				err := h.Handle(t.Context(), delivery(fmt.Sprint(w, "-", i), "x"))
				v := ackwise.OutcomeOf(err)
				if v.Outcome == ackwise.OutcomeSnooze {
					snoozed.Add(1)
				} else if err != nil {
					t.Errorf("an unrelated message: %s: %v", v.Outcome, err)
				}
			}
		})
	}
	wg.Wait()
	n := scalar[int64](t, b.pool, "SELECT count(*) FROM own")
	if n != workers*each-snoozed.Load() {
		t.Errorf("%d effects, and %d of %d were snoozed", n, snoozed.Load(), workers*each)
	}
	if m.calls.Load() == workers*each {
		t.Error("no transaction was made again: the test shows nothing")
	}
	t.Logf("%d calls for %d messages, %d snoozed", m.calls.Load(), workers*each, snoozed.Load())
}

// TestInboxWithoutUpkeep: markers that cannot be tended fail no delivery.
func TestInboxWithoutUpkeep(t *testing.T) {
	b := newBed(t)
	var log bytes.Buffer
	o := options("in")
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	h, _ := bound(t, postgres.PGX(b.pool), add, o)
	b.exec(t, "ALTER FUNCTION ackwise_roll RENAME TO ackwise_roll_away")
	if err := h.Handle(t.Context(), delivery("a", "x")); err != nil || b.total(t) != 1 {
		t.Errorf("%v, total %d", err, b.total(t))
	}
	if !strings.Contains(log.String(), "inbox=in") ||
		!strings.Contains(log.String(), "ackwise_roll") {
		t.Errorf("the log says %q, want what failed", log.String())
	}
}
