package queueorder

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// Tables is what a keeper works on: a queue.Store, or a client of one.
type Tables interface {
	queue.Transactor
	Keys(ctx context.Context, table, prefix string, max int) ([]string, error)
}

type keeper struct {
	on    Tables
	table string
	fence queue.TableRead
}

// OpenKeeper returns a keeper in a table of the engine, for a clock or a sequencer. The table is
// its own. Whoever opens it takes it over: what the former one saves is refused with ErrTakenOver.
func OpenKeeper(ctx context.Context, on Tables, table string) (ordering.Keeper, error) {
	fence, err := takeOver(ctx, on, table)
	if err != nil {
		return nil, fmt.Errorf("open keeper in table %s: %w", table, err)
	}
	return &keeper{on: on, table: table, fence: fence}, nil
}

// takeOver writes our name into a table. A commit that reads it fails when somebody else has done
// so since.
func takeOver(ctx context.Context, on queue.Transactor, table string) (queue.TableRead, error) {
	before, err := on.Get(ctx, table, "")
	if err != nil {
		return queue.TableRead{}, fmt.Errorf("take over: %w", err)
	}
	name := ackwise.NewID(time.Now())
	fence := queue.TableRead{Table: table, Version: before.Version}
	_, err = on.Commit(ctx, queue.Commit{ID: name, Reads: []queue.TableRead{fence},
		Writes: []queue.TableWrite{{Table: table, Value: []byte(name)}}})
	if err != nil {
		return queue.TableRead{}, fmt.Errorf("take over: %w", err)
	}
	now, err := on.Get(ctx, table, "")
	if err != nil {
		return queue.TableRead{}, fmt.Errorf("take over: %w", err)
	}
	if string(now.Value) != name {
		return queue.TableRead{}, ErrTakenOver
	}
	fence.Version = now.Version
	return fence, nil
}

// Load implements ordering.Keeper.
func (k *keeper) Load(ctx context.Context, fn func(ordering.Record) error) error {
	names, err := k.on.Keys(ctx, k.table, "", math.MaxInt32)
	if err != nil {
		return fmt.Errorf("load table %s: %w", k.table, err)
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		e, err := k.on.Get(ctx, k.table, name)
		if err != nil {
			return fmt.Errorf("load table %s: %w", k.table, err)
		}
		if err := fn(ordering.Record{Name: name, Value: e.Value}); err != nil {
			return err
		}
	}
	return nil
}

// Save implements ordering.Keeper.
func (k *keeper) Save(ctx context.Context, rs []ordering.Record) error {
	c := queue.Commit{ID: ackwise.NewID(time.Now()), Reads: []queue.TableRead{k.fence}}
	for _, r := range rs {
		c.Writes = append(c.Writes, queue.TableWrite{Table: k.table, Key: r.Name, Value: r.Value})
	}
	_, err := k.on.Commit(ctx, c)
	if errors.Is(err, queue.ErrConflict) {
		err = ErrTakenOver
	}
	if err != nil {
		return fmt.Errorf("save in table %s: %w", k.table, err)
	}
	return nil
}
