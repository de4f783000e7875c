package patterns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
	"github.com/ackwise/ackwise/internal/demo"
)

// pattern is one of the four, as a user would write it for the flights.
type pattern struct {
	name    string
	onStore bool     // its effect is outside; else it is in a table
	steps   []string // where a consumer may die
	faults  []string // what has to happen beside the faults of all patterns
	// handler makes the handler of a consumer that may die.
	handler func(ctx context.Context, c *consumer, on *opened) (ackwise.Handler, error)
	// key is the table's key of a flight.
	key func(f *demo.Flight) string
}

func patterns() []*pattern {
	around := func(calls ...string) []string {
		steps := []string{"begin", "end"}
		for _, call := range calls {
			steps = append(steps, "before "+call, "after "+call)
		}
		return steps
	}
	return []*pattern{
		{name: "dedup", onStore: true, handler: dedup,
			steps:  around("claim", "effect", "complete", "release"),
			faults: []string{saidTakeover, saidBusy, saidDone, "effect again"}},
		{name: "once", onStore: true, handler: once,
			steps:  around("claim", "effect", "complete", "release"),
			faults: []string{saidTakeover, saidBusy, saidDone, "effect again"}},
		// Set X, for a key that one message writes: no order is needed.
		{name: "write", handler: write, steps: around("put"),
			key: func(f *demo.Flight) string { return f.ID }},
		// Where is each aircraft now, whatever the order in which its flights come.
		{name: "upsert", handler: upsert, steps: around("upsert"), faults: []string{saidDone},
			key: aircraftOf},
		// Miles by carrier and origin: many messages write one key at a time.
		{name: "compare", handler: compare, steps: around("get", "swap"),
			faults: []string{saidConflict}, key: carrierOf},
	}
}

func patternOf(name string) *pattern {
	all := patterns()
	return all[slices.IndexFunc(all, func(p *pattern) bool { return p.name == name })]
}

func aircraftOf(f *demo.Flight) string {
	if f.Key == "" {
		return "flight/" + f.ID
	}
	return f.Key
}

func carrierOf(f *demo.Flight) string { return f.Carrier + "/" + f.Origin }

// dedup makes an effect outside of the store: it says so, on its standard output.
func dedup(ctx context.Context, c *consumer, on *opened) (ackwise.Handler, error) {
	h := ackwise.HandlerFunc(func(ctx context.Context, _ *ackwise.Delivery) error {
		if err := failing(ctx); err != nil {
			return err
		}
		return c.around(ctx, "effect", func() error {
			c.tell(ctx, saidEffect)
			return nil
		})
	})
	return idempotency.Dedup(ctx, &store{on.store, c}, h, idempotency.Options{Again: time.Hour,
		Lease: lease, BusyDelay: 20 * time.Millisecond})
}

// once is dedup as a plain function. Its result has to be that of the first call, always.
func once(_ context.Context, c *consumer, on *opened) (ackwise.Handler, error) {
	s := &store{on.store, c}
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		ask := idempotency.Ask{Key: d.DedupKey(), Sum: idempotency.Fingerprint(d.Body), Lease: lease}
		f, err := demo.FlightOf(&d.Message)
		if err != nil {
			return err
		}
		got, _, err := idempotency.Once(ctx, s, ask, func(ctx context.Context) (int64, error) {
			if err := failing(ctx); err != nil {
				return 0, err
			}
			return f.Total, c.around(ctx, "effect", func() error {
				c.tell(ctx, saidEffect)
				return nil
			})
		})
		if err == nil && got != f.Total {
			return fmt.Errorf("the result of %s is %d, want %d", d.ID, got, f.Total)
		}
		if v := ackwise.OutcomeOf(err); v.Outcome == ackwise.OutcomeSnooze {
			return ackwise.Snooze(min(v.Delay, 20*time.Millisecond))
		}
		return err
	}), nil
}

// position is where an aircraft is.
type position struct {
	Flight, Place string
	Total         int64
}

func positionOf(m *ackwise.Message) (demo.Flight, []byte, error) {
	f, err := demo.FlightOf(m)
	if err != nil {
		return f, nil, err
	}
	data, err := json.Marshal(position{f.ID, f.Place(), f.Total})
	return f, data, err
}

func write(_ context.Context, c *consumer, on *opened) (ackwise.Handler, error) {
	return twice(idempotency.Write(&table{on.table, c},
		func(d *ackwise.Delivery) (string, []byte, error) {
			f, data, err := positionOf(&d.Message)
			return f.ID, data, err
		})), nil
}

func upsert(_ context.Context, c *consumer, on *opened) (ackwise.Handler, error) {
	return twice(idempotency.Upsert(&table{on.table, c},
		func(d *ackwise.Delivery) (idempotency.Row, error) {
			f, data, err := positionOf(&d.Message)
			return idempotency.Row{Key: aircraftOf(&f), Stamp: f.Stamp, Data: data}, err
		}, idempotency.UpsertOptions{})), nil
}

// flown is what a carrier has flown from an airport. It names the flights, in order, so that two
// ways to the same state are the same bytes.
type flown struct {
	Miles   int64
	Flights []string
}

func compare(_ context.Context, c *consumer, on *opened) (ackwise.Handler, error) {
	want := func(_ context.Context, d *ackwise.Delivery, have []byte) ([]byte, error) {
		f, err := demo.FlightOf(&d.Message)
		if err != nil {
			return nil, err
		}
		var there flown
		if have != nil {
			if err := json.Unmarshal(have, &there); err != nil {
				return nil, fmt.Errorf("read what was flown: %w", err)
			}
		}
		at, found := slices.BinarySearch(there.Flights, f.ID)
		if found {
			return have, nil
		}
		there.Flights = slices.Insert(there.Flights, at, f.ID)
		there.Miles += f.Flown()
		return json.Marshal(there)
	}
	key := func(d *ackwise.Delivery) string {
		f, err := demo.FlightOf(&d.Message)
		if err != nil {
			return "" // refused as a message without a key
		}
		return carrierOf(&f)
	}
	return twice(idempotency.Compare(&table{on.table, c}, want, key)), nil
}

// twice fails some deliveries before the effect and some after it, which must make no difference.
func twice(h ackwise.Handler) ackwise.Handler {
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		o, _ := ctx.Value(orderKey{}).(*order)
		if o != nil && o.N%2 == 0 {
			if err := failing(ctx); err != nil {
				return err
			}
		}
		if err := h.Handle(ctx, d); err != nil {
			return err
		}
		return failing(ctx)
	})
}

// long says whether the full counts are run.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

func TestEveryPatternOnEveryStore(t *testing.T) { everyPattern(t, backends()) }

func everyPattern(t *testing.T, on []*backend) {
	total, kills := 600, 2
	if long() {
		total, kills = 10_000, 5
	}
	for _, b := range on {
		t.Run(b.name, func(t *testing.T) {
			total := total
			if b.slow && !long() {
				total /= 4
			}
			flights := some(t, total*2/5)
			where := b.address(t)
			for i, p := range patterns() {
				if p.name == "once" && !long() {
					continue // the same calls of the store as dedup
				}
				t.Run(p.name, func(t *testing.T) {
					rnd := rand.New(rand.NewPCG(*seed, uint64(i)))
					l := &line{t: t, rnd: rnd, steps: p.steps, kills: kills * len(p.steps),
						total: total, waiting: plan(rnd, flights, total)}
					p.on(l, b, where, flights)
					if t.Failed() {
						t.Logf("repeat it with -run '^%s$' -seed %d", t.Name(), *seed)
					}
				})
			}
		})
	}
}

// some returns about so many flights: all that some aircraft made, so that many follow each other,
// and a few of unknown aircraft.
func some(t *testing.T, n int) []demo.Flight {
	t.Helper()
	all, err := demo.Flights(0)
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]int{}
	for i := range all {
		of[all[i].Key]++
	}
	unknown := min(n/4, of[""])
	chosen := map[string]bool{}
	for i, left := 0, n-unknown; i < len(all) && left > 0; i++ {
		if key := all[i].Key; key != "" && !chosen[key] {
			chosen[key] = true
			left -= of[key]
		}
	}
	return slices.DeleteFunc(all, func(f demo.Flight) bool {
		if f.Key == "" {
			unknown--
			return unknown < 0
		}
		return !chosen[f.Key]
	})
}

// on runs the pattern on a backend and compares what came of it.
func (p *pattern) on(l *line, b *backend, where string, flights []demo.Flight) {
	t := l.t
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	name := fmt.Sprintf("%s-%d", p.name, time.Now().UnixNano())
	mine, err := b.open(ctx, where, name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mine.close(); err != nil {
			t.Error(err)
		}
	}()
	l.start = func() *member {
		if b.inProcess {
			return goroutine(t, p, mine)
		}
		return process(t, assignment{Pattern: p.name, Backend: b.name, Where: where, Name: name})
	}
	begin := time.Now()
	l.run(ctx)
	t.Logf("%d deliveries, %d kills in %s: %v", l.sent, l.dead(), time.Since(begin), l.faults)
	if p.onStore {
		l.checkEffects(flights)
	} else {
		p.checkTable(ctx, t, mine.table, flights)
	}
	l.check(p.faults...)
}

// checkEffects holds the effects that the consumers made, as they said themselves, against what is
// promised for effects outside of the store: at least one for each message, and no second one but
// where a claim was taken over.
func (l *line) checkEffects(flights []demo.Flight) {
	for i := range flights {
		id := flights[i].ID
		made, taken := l.said[saidEffect][id], l.said[saidTakeover][id]
		if made < 1 || made > 1+taken {
			l.t.Errorf("%s: %d effects and %d takeovers", id, made, taken)
		}
		l.faults["effect again"] += made - 1
	}
	if len(l.said[saidEffect]) != len(flights) {
		l.t.Errorf("effects of %d messages, want %d", len(l.said[saidEffect]), len(flights))
	}
}

// checkTable compares the table with one clean run, key by key.
func (p *pattern) checkTable(ctx context.Context, t *testing.T, got idempotency.Table,
	flights []demo.Flight) {
	t.Helper()
	clean := memstore.OpenTable(memstore.TableOptions{})
	h, err := p.handler(ctx, &consumer{}, &opened{table: clean})
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for i := range flights {
		d := &ackwise.Delivery{Message: flights[i].Message("flights"), Attempt: 1}
		if err := h.Handle(ctx, d); err != nil {
			t.Fatal(err)
		}
		keys[p.key(&flights[i])] = true
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		want, err1 := clean.Get(ctx, key)
		have, err2 := got.Get(ctx, key)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if want.Data == nil || !bytes.Equal(want.Data, have.Data) ||
			want.Stamp != have.Stamp {
			t.Errorf("%s: %.300s at %s, one clean run has %.300s at %s", key, have.Data,
				have.Stamp, want.Data, want.Stamp)
		}
	}
}
