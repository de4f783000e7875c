package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// The patterns whose effect is state in a table of the engine. Their effects may be applied again,
// and come to the same.
const (
	// patternWrite sets where an aircraft is. It needs the order of the key: the last write stays.
	patternWrite = "write"
	// patternUpsert sets how far an aircraft has flown, unless what is there happened later. Its
	// flights are published out of order, and its subscription keeps none.
	patternUpsert = "upsert"
	// patternCompare adds to the miles of a carrier what is missing: its values, one for each route
	// and day, name the flights that they hold. Several aircraft share one, so that compare-and-set
	// has to try again now and then.
	patternCompare = "compare"
)

// aircraft is a value of patternWrite and patternUpsert: the flight that it was last seen at.
type aircraft struct {
	Flight string `json:"flight"`
	Place  string `json:"place"`
	Total  int64  `json:"total"`
}

// rowOf is what patternWrite and patternUpsert write for a message.
func rowOf(m *ackwise.Message) (idempotency.Row, error) {
	f, err := FlightOf(m)
	if err != nil {
		return idempotency.Row{}, err
	}
	data, err := json.Marshal(aircraft{f.ID, f.Place(), f.Total})
	if err != nil {
		return idempotency.Row{}, fmt.Errorf("write aircraft: %w", err)
	}
	return idempotency.Row{Key: tallyKey(f.Key, f.ID), Stamp: f.Stamp, Data: data}, nil
}

// routeDay is the key of patternCompare: a carrier's day at one destination, so that no value grows
// without a bound.
func routeDay(f *Flight) string { return f.Carrier + "/" + f.Dest + "/" + f.Day }

// with returns the tally with a flight in it; the same bytes where it was in it before.
func with(have []byte, f *Flight) ([]byte, error) {
	t, err := tallyOf(have)
	if err != nil || slices.Contains(t.Flights, f.ID) {
		return have, err
	}
	t.Miles += f.Flown()
	t.Flights = append(t.Flights, f.ID)
	data, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("write tally: %w", err)
	}
	return data, nil
}

func tallyOf(data []byte) (tally, error) {
	var t tally
	if data == nil {
		return t, nil
	}
	if err := json.Unmarshal(data, &t); err != nil {
		return t, fmt.Errorf("read tally: %w", err)
	}
	return t, nil
}

// keyed reports whether the pattern's effect is state in a table.
func keyed(pattern string) bool {
	return pattern == patternWrite || pattern == patternUpsert || pattern == patternCompare
}

// onTable makes the effect of a keyed pattern. It writes down whether something was written.
func (w *work) onTable(pattern string, t idempotency.Table) func(context.Context,
	*ackwise.Delivery) error {
	told := &telling{Table: t, trace: w.trace}
	switch pattern {
	case patternWrite:
		return idempotency.Write(told, func(d *ackwise.Delivery) (string, []byte, error) {
			row, err := rowOf(&d.Message)
			return row.Key, row.Data, err
		}).Handle
	case patternUpsert:
		return idempotency.Upsert(told, func(d *ackwise.Delivery) (idempotency.Row, error) {
			return rowOf(&d.Message)
		}, idempotency.UpsertOptions{}).Handle
	}
	return func(ctx context.Context, d *ackwise.Delivery) error {
		f, err := FlightOf(&d.Message)
		if err != nil {
			return err
		}
		change, err := idempotency.Apply(ctx, t, routeDay(&f),
			func(have []byte) ([]byte, error) { return with(have, &f) })
		if err != nil {
			return err
		}
		return w.trace.tell(change.Wrote, d.ID)
	}
}

// telling is a table that writes down what became of each write of an aircraft.
type telling struct {
	idempotency.Table
	trace *trace
}

// Put implements idempotency.Table.
func (t *telling) Put(ctx context.Context, key string, data []byte) error {
	if err := t.Table.Put(ctx, key, data); err != nil {
		return err
	}
	return t.tell(true, data)
}

// Upsert implements idempotency.Table.
func (t *telling) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	bool, error) {
	wrote, err := t.Table.Upsert(ctx, key, stamp, data)
	if err != nil {
		return false, err
	}
	return wrote, t.tell(wrote, data)
}

func (t *telling) tell(wrote bool, data []byte) error {
	var a aircraft
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("read aircraft: %w", err)
	}
	return t.trace.tell(wrote, a.Flight)
}

// tell writes down whether an effect was applied now, or was there before.
func (t *trace) tell(wrote bool, id string) error {
	if wrote {
		return t.write(markEffect, id, "0")
	}
	return t.write(markRepeat, id, "-")
}

// standing compares a table with what each flight's effect, made once, comes to. It returns the
// miles that the table adds up to, and how many of its values are not what they should be.
func standing(ctx context.Context, t idempotency.Table, pattern string, flights []Flight) (
	miles int64, wrong int, err error) {
	if pattern == patternCompare {
		return standingDays(ctx, t, flights)
	}
	last := map[string]*Flight{}
	for i := range flights {
		f := &flights[i]
		key := tallyKey(f.Key, f.ID)
		if last[key] == nil || last[key].Seq < f.Seq {
			last[key] = f
		}
	}
	for key, f := range last {
		e, err := t.Get(ctx, key)
		if err != nil {
			return 0, 0, fmt.Errorf("read the table of %s: %w", pattern, err)
		}
		var a aircraft
		if e.Data != nil {
			if err := json.Unmarshal(e.Data, &a); err != nil {
				return 0, 0, fmt.Errorf("read aircraft %s: %w", key, err)
			}
		}
		miles += a.Total
		if a != (aircraft{f.ID, f.Place(), f.Total}) {
			wrong++
		}
	}
	return miles, wrong, nil
}

func standingDays(ctx context.Context, t idempotency.Table, flights []Flight) (
	miles int64, wrong int, err error) {
	days := map[string]*tally{}
	for i := range flights {
		f := &flights[i]
		day := days[routeDay(f)]
		if day == nil {
			day = &tally{}
			days[routeDay(f)] = day
		}
		day.Miles += f.Flown()
		day.Flights = append(day.Flights, f.ID)
	}
	for key, want := range days {
		e, err := t.Get(ctx, key)
		if err != nil {
			return 0, 0, fmt.Errorf("read the table of %s: %w", patternCompare, err)
		}
		have, err := tallyOf(e.Data)
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", key, err)
		}
		miles += have.Miles
		slices.Sort(have.Flights) // they come in any order
		slices.Sort(want.Flights)
		if have.Miles != want.Miles || !slices.Equal(have.Flights, want.Flights) {
			wrong++
		}
	}
	return miles, wrong, nil
}
