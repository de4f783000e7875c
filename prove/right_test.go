package prove

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// TestRightConsumersAreAcquitted proves one small consumer for each way that is right.
func TestRightConsumersAreAcquitted(t *testing.T) {
	for _, c := range slices.Concat(rightByHand(), rightOutcomes(), rightPatterns()) {
		t.Run(c.name, func(t *testing.T) {
			// In a bubble, so that the pauses of the patterns cost nothing, and a goroutine that is
			// left over is seen.
			synctest.Test(t, func(t *testing.T) { judge(t, c) })
		})
	}
}

// withFlight adds a flight to a value that holds the miles of each flight: adding it again changes
// nothing.
func withFlight(have []byte, d *ackwise.Delivery) []byte {
	all := make(map[string]int)
	if have != nil {
		if err := json.Unmarshal(have, &all); err != nil {
			panic(err)
		}
	}
	all[d.ID] = miles(d)
	data, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return data
}

func dedup(ctx context.Context, w *World, h ackwise.HandlerFunc) (ackwise.Handler, error) {
	s, err := storeOf(w)
	if err != nil {
		return nil, err
	}
	return idempotency.Dedup(ctx, s, h, idempotency.Options{Again: 24 * time.Hour,
		Lease: 30 * time.Second})
}

func rightByHand() []consumer {
	return []consumer{{
		// A value of the message's own: writing it again changes nothing.
		name: "set by the message's own key",
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error { return set(ctx, w, d) }
		})},
	}, {
		// Written only if it is missing; whoever comes second finds the same.
		name: "set once",
		c: Case{Effects: theTable("f1", "f2", "f3"), New: handler(
			func(w *World) ackwise.HandlerFunc {
				table := tableOf(w)
				return func(ctx context.Context, d *ackwise.Delivery) error {
					_, err := table.Swap(ctx, d.ID, 0, d.Body)
					if errors.Is(err, idempotency.ErrChanged) {
						return nil
					}
					return err
				}
			})},
	}, {
		// Marker and effect are one step of one store.
		name: "marker and effect in one transaction",
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				return Call(ctx, "transaction", func(context.Context) error {
					if b := booksOf(w); !b.has("seen " + d.ID) {
						b.add("charged "+d.ID, miles(d))
						b.set("seen "+d.ID, 1)
					}
					return nil
				})
			}
		})},
	}, {
		// The other side deduplicates by the key that it is given.
		name: "idempotency key of the other side",
		c: Case{Effects: theCharges, New: func(ctx context.Context, w *World) (
			ackwise.Handler, error) {
			return dedup(ctx, w, func(ctx context.Context, d *ackwise.Delivery) error {
				return Call(ctx, "charge with key", func(context.Context) error {
					if b := booksOf(w); !b.has("charged " + d.DedupKey()) {
						b.add("charged "+d.DedupKey(), miles(d))
					}
					return nil
				})
			})
		}},
	}}
}

func rightOutcomes() []consumer {
	return []consumer{{
		// Messages that nobody wants go away with a reason, each time.
		name: "unwanted messages dropped",
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if d.Key == "N1" {
					return ackwise.Drop("not ours")
				}
				return set(ctx, w, d)
			}
		})},
	}, {
		// Poison becomes a dead letter, each time.
		name: "poison rejected",
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if d.Key == "N2" {
					return ackwise.Reject(errors.New("no such aircraft"))
				}
				return set(ctx, w, d)
			}
		})},
	}, {
		// A message that needs another one's effect is put off until that is there.
		name: "put off until its time",
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if d.ID == "f2" && !booksOf(w).has("charged f1") {
					return ackwise.Snooze(time.Second)
				}
				return set(ctx, w, d)
			}
		})},
	}, {
		// The last one to arrive wins: right where the source keeps the order of each key.
		name: "upsert by arrival, of a source in order",
		c: Case{Effects: theTable("N1", "N2"), Order: ackwise.OrderPartition,
			New: handler(func(w *World) ackwise.HandlerFunc {
				table := tableOf(w)
				return func(ctx context.Context, d *ackwise.Delivery) error {
					// A consumer past its lease may still write: the version stops it.
					e, err := table.Get(ctx, d.Key)
					if err != nil {
						return err
					}
					_, err = table.Swap(ctx, d.Key, e.Version, d.Body)
					return err
				}
			})},
	}}
}

// replyOnce books a flight with the other side, which tells the same receipt for the same ID, and
// replies with the receipt.
func replyOnce(w *World, s idempotency.Store) ackwise.HandlerFunc {
	return func(ctx context.Context, d *ackwise.Delivery) error {
		receipt, _, err := idempotency.Once(ctx, s, idempotency.Ask{Key: d.DedupKey()},
			func(ctx context.Context) (receipt int, err error) {
				err = Call(ctx, "book", func(context.Context) error {
					b := booksOf(w)
					if !b.has("receipt of " + d.ID) {
						b.set("receipt of "+d.ID, 1000+miles(d))
					}
					receipt = b.copied()["receipt of "+d.ID]
					return nil
				})
				return receipt, err
			})
		if err == nil {
			booksOf(w).set("reply to "+d.ID, receipt)
		}
		return err
	}
}

func rightPatterns() []consumer {
	return []consumer{{
		// Claim, effect, complete, around an effect that may be made twice.
		name: "Dedup around an idempotent effect",
		c: Case{Effects: theCharges, New: func(ctx context.Context, w *World) (
			ackwise.Handler, error) {
			return dedup(ctx, w, func(ctx context.Context, d *ackwise.Delivery) error {
				return set(ctx, w, d)
			})
		}},
	}, {
		// Once: the duplicate gives the same answer, since the result of the first is stored.
		name: "Once with its result",
		c: Case{Effects: theBooks, New: func(_ context.Context, w *World) (ackwise.Handler, error) {
			s, err := storeOf(w)
			return replyOnce(w, s), err
		}},
	}, {
		// Write: a value of the message's own.
		name: "Write",
		c: Case{Effects: theTable("f1", "f2", "f3"), New: func(_ context.Context, w *World) (
			ackwise.Handler, error) {
			return idempotency.Write(tableOf(w), func(d *ackwise.Delivery) (string, []byte, error) {
				return d.ID, d.Body, nil
			}), nil
		}},
	}, {
		// Upsert: the newest by the producer's clock, in any order of arrival.
		name: "Upsert",
		c: Case{Effects: theTable("N1", "N2"), New: func(_ context.Context, w *World) (
			ackwise.Handler, error) {
			return idempotency.Upsert(tableOf(w), func(d *ackwise.Delivery) (idempotency.Row, error) {
				return idempotency.Row{Key: d.Key, Stamp: stampOf(d), Data: d.Body}, nil
			}, idempotency.UpsertOptions{Now: w.Now}), nil
		}},
	}, {
		// Upsert of two writes with one stamp: the greater one wins, whoever arrives last.
		name: "Upsert with ties",
		c: Case{Effects: theTable("N1"), Messages: []ackwise.Message{
			flight("f1", "N1", "100", "0000000000000001-00000000-a"),
			flight("f2", "N1", "42", "0000000000000001-00000000-a"),
		}, New: func(_ context.Context, w *World) (ackwise.Handler, error) {
			return idempotency.Upsert(tableOf(w), func(d *ackwise.Delivery) (idempotency.Row, error) {
				return idempotency.Row{Key: d.Key, Stamp: stampOf(d), Data: d.Body}, nil
			}, idempotency.UpsertOptions{Now: w.Now}), nil
		}},
	}, {
		// Compare: what is there and what is wanted, by compare-and-set.
		name: "Compare",
		c: Case{Effects: theTable("N1", "N2"), New: func(_ context.Context, w *World) (
			ackwise.Handler, error) {
			return idempotency.Compare(tableOf(w), func(_ context.Context, d *ackwise.Delivery,
				have []byte) ([]byte, error) {
				return withFlight(have, d), nil
			}, func(d *ackwise.Delivery) string { return d.Key }), nil
		}},
	}, {
		// Apply: the plain function of Compare.
		name: "Apply",
		c: Case{Effects: theTable("N1", "N2"), New: handler(func(w *World) ackwise.HandlerFunc {
			table := tableOf(w)
			return func(ctx context.Context, d *ackwise.Delivery) error {
				_, err := idempotency.Apply(ctx, table, d.Key, func(have []byte) ([]byte, error) {
					return withFlight(bytes.Clone(have), d), nil
				})
				return err
			}
		})},
	}}
}
