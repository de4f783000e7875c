package prove

import (
	"context"
	"errors"
	"hash/adler32"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// TestWrongConsumersAreConvicted proves one small consumer for each mistake that real systems make.
func TestWrongConsumersAreConvicted(t *testing.T) {
	for _, c := range wrong() {
		t.Run(c.name, func(t *testing.T) {
			// In a bubble, so that a goroutine that is left over is seen.
			synctest.Test(t, func(t *testing.T) { golden(t, c.name, judge(t, c).text) })
		})
	}
}

func wrong() []consumer {
	return slices.Concat(wrongMarkers(), wrongStores(), wrongBounds(), wrongClaims(), wrongKeys(),
		wrongEffects(), wrongUpdates(), wrongOrders())
}

// charge is the effect outside: it can be refused, its answer can be lost, and it counts each time.
func charge(ctx context.Context, w *World, d *ackwise.Delivery) error {
	return Call(ctx, "charge", func(context.Context) error {
		booksOf(w).add("charged "+d.ID, miles(d))
		return nil
	})
}

func wrongMarkers() []consumer {
	return []consumer{{
		// No dedup at all: a plain increment for each delivery.
		name: "plain increment", kind: again,
		c: Case{Effects: theBooks, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(_ context.Context, d *ackwise.Delivery) error {
				booksOf(w).add(d.Key, miles(d))
				return nil
			}
		})},
	}, {
		// Marked before the effect: a failure or a kill between them loses the effect.
		name: "marked before the effect", kind: crash,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if booksOf(w).has("seen " + d.ID) {
					return nil
				}
				booksOf(w).set("seen "+d.ID, 1)
				return charge(ctx, w, d)
			}
		})},
	}, {
		// Effect and marker in two steps, in this order: a kill between them doubles the effect.
		name: "marked after the effect", kind: crash,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if booksOf(w).has("seen " + d.ID) {
					return nil
				}
				if err := charge(ctx, w, d); err != nil {
					return err
				}
				booksOf(w).set("seen "+d.ID, 1)
				return nil
			}
		})},
	}}
}

func wrongStores() []consumer {
	return []consumer{{
		// The key is stored before the handler, in memory, and stays when the handler fails: its
		// redelivery is dropped as a duplicate.
		name: "key kept though the handler failed", kind: fail,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			seen := make(map[string]bool)
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if seen[d.ID] {
					return nil
				}
				seen[d.ID] = true
				return set(ctx, w, d)
			}
		})},
	}, {
		// An error is taken for "not done": the marker is given back, though the answer alone was
		// lost.
		name: "no answer taken for not done", kind: unsure,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				b := booksOf(w)
				err := Call(ctx, "transaction", func(context.Context) error {
					if !b.has("seen " + d.ID) {
						b.add("charged "+d.ID, miles(d))
						b.set("seen "+d.ID, 1)
					}
					return nil
				})
				if err != nil {
					b.remove("seen " + d.ID)
				}
				return err
			}
		})},
	}, {
		// Three tries, and then the message is acked all the same.
		name: "given up after three tries", kind: down,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				for range 3 {
					if set(ctx, w, d) == nil {
						break
					}
				}
				return nil
			}
		})},
	}}
}

func wrongBounds() []consumer {
	return []consumer{{
		// A store that cannot be reached makes the message a duplicate: it is dropped.
		name: "dropped when the store is down", kind: fail,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if err := ask(ctx, w, d); err != nil {
					return ackwise.Drop("duplicate")
				}
				return set(ctx, w, d)
			}
		})},
	}, {
		// A duplicate of a message that is still at work is answered "done"; the first one dies.
		name: "duplicate of a running one is done", kind: orphan,
		c: Case{Effects: theCharges, New: handler(doneWhileRunning)},
	}, {
		// A bound on the number of keys evicts them before their time: a late duplicate is new.
		name: "keys evicted by number", kind: again,
		c: Case{Effects: theBooks, New: handler(func(w *World) ackwise.HandlerFunc {
			seen := Keep(w, "seen", func() *[]string { return new([]string) })
			return func(_ context.Context, d *ackwise.Delivery) error {
				if slices.Contains(*seen, d.ID) {
					return nil
				}
				booksOf(w).add(d.Key, miles(d))
				*seen = append(*seen, d.ID)
				*seen = (*seen)[max(0, len(*seen)-2):]
				return nil
			}
		})},
	}}
}

func wrongClaims() []consumer {
	return []consumer{{
		// A claim without a lease: whoever dies with it leaves its message stuck for ever.
		name: "claim without a lease", kind: crash,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if booksOf(w).has("claimed " + d.ID) {
					return ackwise.Snooze(time.Second)
				}
				booksOf(w).set("claimed "+d.ID, 1)
				defer booksOf(w).remove("claimed " + d.ID)
				return set(ctx, w, d)
			}
		})},
	}, {
		// A claim that times out, and nothing that stops the one who held it: both make the effect.
		name: "claim with a time-out and no fence", kind: stall,
		c: Case{Effects: theCharges, New: handler(claimWithoutFence)},
	}}
}

func wrongKeys() []consumer {
	return []consumer{{
		// The key is a checksum of the payload: two messages with one body are one.
		name: "key is a checksum of the body", kind: crash,
		c: Case{Effects: theBooks, Messages: []ackwise.Message{flight("f1", "N1", "100", ""),
			flight("f2", "N2", "100", "")}, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(_ context.Context, d *ackwise.Delivery) error {
				key := "seen " + strconv.Itoa(int(adler32.Checksum(d.Body)))
				if !booksOf(w).has(key) {
					booksOf(w).set(d.Key, miles(d))
					booksOf(w).set(key, 1)
				}
				return nil
			}
		})},
	}, {
		// The key holds the time of handling, which is another one each time.
		name: "key holds the time", kind: again,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return keyedBy(w, func(d *ackwise.Delivery) string {
				return d.ID + w.Now().String()
			})
		})},
	}, {
		// The key holds the attempt, which is another one each time.
		name: "key holds the attempt", kind: again,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return keyedBy(w, func(d *ackwise.Delivery) string {
				return d.ID + strconv.Itoa(d.Attempt)
			})
		})},
	}, {
		// What was seen is kept in memory only: a restart forgets it.
		name: "seen in memory only", kind: crash,
		c: Case{Effects: theBooks, New: handler(func(w *World) ackwise.HandlerFunc {
			seen := make(map[string]bool)
			return func(_ context.Context, d *ackwise.Delivery) error {
				if !seen[d.ID] {
					booksOf(w).add(d.Key, miles(d))
					seen[d.ID] = true
				}
				return nil
			}
		})},
	}, {
		// A right Dedup around an increment that lives elsewhere: a kill between the effect and its
		// completion makes the effect again. No dedup store can help that.
		name: "dedup around an increment elsewhere", kind: crash,
		c: Case{Effects: theCharges, New: func(ctx context.Context, w *World) (
			ackwise.Handler, error) {
			return dedup(ctx, w, func(ctx context.Context, d *ackwise.Delivery) error {
				return charge(ctx, w, d)
			})
		}},
	}}
}

// doneWhileRunning takes what another one is working on for done. All else about it is right: its
// claim is given back when the effect fails, and taken over when its lease is over.
func doneWhileRunning(w *World) ackwise.HandlerFunc {
	until := Keep(w, "until", func() map[string]time.Time { return make(map[string]time.Time) })
	return func(ctx context.Context, d *ackwise.Delivery) error {
		if w.Now().Before(until[d.ID]) || booksOf(w).has("charged "+d.ID) {
			return nil
		}
		until[d.ID] = w.Now().Add(30 * time.Second)
		err := set(ctx, w, d)
		if err != nil {
			delete(until, d.ID)
		}
		return err
	}
}

// claimWithoutFence claims for ten seconds; after that the next one takes the work over, and the
// first one, when it wakes up, goes on. Effect and completion are one step, so that nothing else is
// wrong with it.
func claimWithoutFence(w *World) ackwise.HandlerFunc {
	until := Keep(w, "until", func() map[string]time.Time { return make(map[string]time.Time) })
	return func(ctx context.Context, d *ackwise.Delivery) error {
		if booksOf(w).has("seen " + d.ID) {
			return nil
		}
		if w.Now().Before(until[d.ID]) {
			return ackwise.Snooze(10 * time.Second)
		}
		until[d.ID] = w.Now().Add(10 * time.Second)
		Point(ctx, "claimed")
		booksOf(w).add("charged "+d.ID, miles(d))
		booksOf(w).set("seen "+d.ID, 1)
		return nil
	}
}

// keyedBy deduplicates by a key, marker and effect in one step.
func keyedBy(w *World, key func(*ackwise.Delivery) string) ackwise.HandlerFunc {
	return func(_ context.Context, d *ackwise.Delivery) error {
		if k := "seen " + key(d); !booksOf(w).has(k) {
			booksOf(w).set(k, 1)
			booksOf(w).add("charged "+d.ID, miles(d))
		}
		return nil
	}
}

// set is an effect outside that may be made twice, and can fail.
func set(ctx context.Context, w *World, d *ackwise.Delivery) error {
	return Call(ctx, "set", func(context.Context) error {
		booksOf(w).set("charged "+d.ID, miles(d))
		return nil
	})
}

// ask is a question to a dedup store that always says "new".
func ask(ctx context.Context, w *World, d *ackwise.Delivery) error {
	return Call(ctx, "ask", func(context.Context) error { return nil })
}

// theCharges shows what was charged, and leaves the markers out.
func theCharges(_ context.Context, w *World) (any, error) {
	all := make(map[string]int)
	for name, n := range booksOf(w).copied() {
		if len(name) > 8 && name[:8] == "charged " {
			all[name[8:]] = n
		}
	}
	return all, nil
}

func wrongEffects() []consumer {
	return []consumer{{
		// The ack goes out before the effect: what waits in memory dies with the process.
		name: "ack before the effect", kind: crash,
		c: Case{Effects: theBooks, Messages: append(flights(), flight("f4", "N2", "3", "")),
			New: handler(func(w *World) ackwise.HandlerFunc {
				waiting := make(map[string]int)
				return func(_ context.Context, d *ackwise.Delivery) error {
					if waiting[d.ID] = miles(d); d.ID == "f2" || d.ID == "f4" {
						for id, n := range waiting {
							booksOf(w).set(id, n)
						}
						clear(waiting)
					}
					return nil
				}
			})},
	}, {
		// The error of the effect is logged, and the message acked.
		name: "error swallowed", kind: fail,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				_ = set(ctx, w, d)
				return nil
			}
		})},
	}}
}

func wrongUpdates() []consumer {
	return []consumer{{
		// Read, add, write: two consumers read the same sum, and one addition is lost. The IDs that
		// it holds make it right against duplicates.
		name: "read-modify-write without a compare", kind: beside,
		c: Case{Effects: theTable("N1"), Messages: oneAircraft(), New: handler(
			func(w *World) ackwise.HandlerFunc {
				table := tableOf(w)
				return func(ctx context.Context, d *ackwise.Delivery) error {
					e, err := table.Get(ctx, d.Key)
					if err != nil {
						return err
					}
					return table.Put(ctx, d.Key, withFlight(e.Data, d))
				}
			})},
	}, {
		// A compare that finds the value changed takes its work for done.
		name: "compare without a retry", kind: beside,
		c: Case{Effects: theTable("N1"), Messages: oneAircraft(), New: handler(
			func(w *World) ackwise.HandlerFunc {
				table := tableOf(w)
				return func(ctx context.Context, d *ackwise.Delivery) error {
					e, err := table.Get(ctx, d.Key)
					if err != nil {
						return err
					}
					_, err = table.Swap(ctx, d.Key, e.Version, withFlight(e.Data, d))
					if errors.Is(err, idempotency.ErrChanged) {
						return nil
					}
					return err
				}
			})},
	}}
}

func wrongOrders() []consumer {
	return []consumer{{
		// The last one to arrive wins: an old message that comes late overwrites a newer one.
		name: "upsert by arrival", kind: again,
		c: Case{Effects: theTable("N1", "N2"), New: handler(func(w *World) ackwise.HandlerFunc {
			table := tableOf(w)
			return func(ctx context.Context, d *ackwise.Delivery) error {
				return table.Put(ctx, d.Key, d.Body)
			}
		})},
	}, {
		// Last write wins, but of two with the same stamp the last to arrive does.
		name: "ties broken by arrival", kind: again,
		c: Case{Effects: theBooks, Messages: []ackwise.Message{
			flight("f1", "N1", "100", "0000000000000001-00000000-a"),
			flight("f2", "N1", "42", "0000000000000001-00000000-a"),
		}, New: handler(func(w *World) ackwise.HandlerFunc {
			last := Keep(w, "last", func() map[string]ackwise.Stamp {
				return make(map[string]ackwise.Stamp)
			})
			return func(_ context.Context, d *ackwise.Delivery) error {
				if stampOf(d).Compare(last[d.Key]) >= 0 {
					last[d.Key] = stampOf(d)
					booksOf(w).set(d.Key, miles(d))
				}
				return nil
			}
		})},
	}, {
		// The effect is made once, but its result is not kept: the duplicate answers another one.
		name: "result not kept", kind: again,
		c: Case{Effects: theBooks, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(_ context.Context, d *ackwise.Delivery) error {
				b := booksOf(w)
				receipt := 0
				if !b.has("seen " + d.ID) {
					b.add("receipts", 1)
					receipt = b.copied()["receipts"]
					b.set("seen "+d.ID, 1)
				}
				b.set("reply to "+d.ID, receipt)
				return nil
			}
		})},
	}, {
		// Rows are numbered by arrival, from memory: a duplicate gets a number of its own.
		name: "rows numbered by arrival", kind: again,
		c: Case{Effects: theBooks, New: handler(func(w *World) ackwise.HandlerFunc {
			next := 0
			return func(_ context.Context, d *ackwise.Delivery) error {
				next++
				booksOf(w).set("row "+strconv.Itoa(next), miles(d))
				return nil
			}
		})},
	}}
}

func oneAircraft() []ackwise.Message {
	return []ackwise.Message{flight("f1", "N1", "100", ""), flight("f2", "N1", "42", "")}
}
