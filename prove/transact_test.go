package prove

import (
	"context"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// engine opens a store that the world keeps, with the flights published.
func engine(w *World) (s *queue.Store, err error) {
	s = Keep(w, "engine", func() *queue.Store {
		var dir string
		if dir, err = os.MkdirTemp("", "ackwise-prove-"); err != nil {
			return nil
		}
		if s, err = queue.Open(dir, queue.Options{Sync: queue.SyncNever, SegmentBytes: 1 << 16,
			ReserveBytes: 16 << 10}); err != nil {
			return nil
		}
		w.Cleanup(func() {
			s.Close()
			os.RemoveAll(dir)
		})
		ctx := context.Background()
		if err = s.CreateTopic(ctx, "flights", queue.TopicOptions{}); err != nil {
			return nil
		}
		err = s.CreateSubscription(ctx, "flights", "miles", queue.SubscriptionOptions{})
		msgs := flights()
		for i := range msgs {
			msgs[i].Topic = "flights"
		}
		for _, result := range s.Publish(ctx, msgs) {
			if result.Err != nil {
				err = result.Err
			}
		}
		return s
	})
	return s, err
}

func session(ctx context.Context, w *World) (ackwise.Source, error) {
	s, err := engine(w)
	if err != nil {
		return nil, err
	}
	return s.Receiver(ctx, "flights", "miles", queue.ReceiverOptions{})
}

// sum adds a flight to the sum of all miles.
func sum(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
	have, err := tx.Get(ctx, "sums", "miles")
	if err != nil {
		return err
	}
	have = append(make([]byte, 8-len(have)), have...)
	tx.Put("sums", "miles", binary.BigEndian.AppendUint64(nil,
		binary.BigEndian.Uint64(have)+uint64(miles(d))))
	Point(ctx, "added")
	return nil
}

// theSum shows the engine's sum and the books.
func theSum(ctx context.Context, w *World) (any, error) {
	s, err := engine(w)
	if err != nil {
		return nil, err
	}
	e, err := s.Get(ctx, "sums", "miles")
	return map[string]any{"sum": e.Value, "books": booksOf(w).copied()}, err
}

// TestTransactions proves handlers on the real engine: exactly-once holds inside of it only.
func TestTransactions(t *testing.T) {
	for _, c := range []consumer{{
		// Sum and ack are one record.
		name: "queue.Transact",
		c: Case{Effects: theSum, Source: session, Schedules: 20, New: handlerOf(
			func(*World) ackwise.Handler { return queue.Transact(sum) })},
	}, {
		// The same sum without the transaction: the engine's own table, read and written apart from
		// the ack.
		name: "a commit apart from the ack", kind: lost,
		c: Case{Effects: theSum, Source: session, Schedules: 20, New: handlerOf(commitApart)},
	}, {
		// An effect outside of the transaction is made before it commits, and again.
		name: "an effect outside of the transaction", kind: crash,
		c: Case{Effects: theSum, Source: session, Schedules: 20, New: handlerOf(
			func(w *World) ackwise.Handler {
				return queue.Transact(func(ctx context.Context, tx *queue.Tx,
					d *ackwise.Delivery) error {
					booksOf(w).add("charged "+d.ID, miles(d))
					return sum(ctx, tx, d)
				})
			})},
	}} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(t, c)
			if c.kind != "" {
				golden(t, c.name, v.text)
			}
		})
	}
}

// TestAKillAfterTheCommitIsSaid has the source not hand out again what its commit has settled.
func TestAKillAfterTheCommitIsSaid(t *testing.T) {
	r := story(t, Case{Messages: flights(), Effects: theSum, Source: session, New: handlerOf(
		func(*World) ackwise.Handler { return queue.Transact(sum) })}, "1:crash@2")
	if r.differs() || r.lives[0].attempt != 1 ||
		!strings.Contains(r.story(), "added → KILLED after its commit") {
		t.Errorf("differs is %t, %d deliveries of the first message\n%s", r.differs(),
			r.lives[0].attempt, r.story())
	}
}

func handlerOf(f func(w *World) ackwise.Handler) func(context.Context, *World) (
	ackwise.Handler, error) {
	return func(_ context.Context, w *World) (ackwise.Handler, error) { return f(w), nil }
}

func commitApart(w *World) ackwise.Handler {
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		s, err := engine(w)
		if err != nil {
			return err
		}
		have, err := s.Get(ctx, "sums", "miles")
		if err != nil {
			return err
		}
		value := append(make([]byte, 8-len(have.Value)), have.Value...)
		_, err = s.Commit(ctx, queue.Commit{
			Reads: []queue.TableRead{{Table: "sums", Key: "miles", Version: have.Version}},
			Writes: []queue.TableWrite{{Table: "sums", Key: "miles",
				Value: binary.BigEndian.AppendUint64(nil,
					binary.BigEndian.Uint64(value)+uint64(miles(d)))}},
		})
		Point(ctx, "committed")
		return err
	})
}

// TestTheEnginesStores proves patterns on the embedded engine's own stores, which run on the real
// clock: that of a bubble, so that a killed consumer's leases are over at once.
func TestTheEnginesStores(t *testing.T) {
	for _, c := range []consumer{{
		name: "Dedup around an idempotent effect",
		c: Case{Effects: theCharges, New: func(ctx context.Context, w *World) (
			ackwise.Handler, error) {
			s, err := engine(w)
			if err != nil {
				return nil, err
			}
			store, err := queuestore.Open(ctx, s, "charges", queuestore.Options{})
			if err != nil {
				return nil, err
			}
			return idempotency.Dedup(ctx, w.Store(store), ackwise.HandlerFunc(
				func(ctx context.Context, d *ackwise.Delivery) error { return set(ctx, w, d) }),
				idempotency.Options{Again: time.Hour})
		}},
	}, {
		name: "Upsert", c: Case{Effects: theRows, New: func(_ context.Context, w *World) (
			ackwise.Handler, error) {
			table, err := rows(w)
			if err != nil {
				return nil, err
			}
			return idempotency.Upsert(w.Table(table), func(d *ackwise.Delivery) (
				idempotency.Row, error) {
				return idempotency.Row{Key: d.Key, Stamp: stampOf(d), Data: d.Body}, nil
			}, idempotency.UpsertOptions{}), nil
		}},
	}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.c.RealTime, c.c.Schedules = true, 24
				judge(t, c)
			})
		})
	}
}

func rows(w *World) (*queuestore.Table, error) {
	s, err := engine(w)
	if err != nil {
		return nil, err
	}
	return queuestore.OpenTable(s, "rows")
}

func theRows(ctx context.Context, w *World) (any, error) {
	table, err := rows(w)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, key := range []string{"N1", "N2"} {
		e, err := table.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		all[key] = string(e.Data)
	}
	return all, nil
}
