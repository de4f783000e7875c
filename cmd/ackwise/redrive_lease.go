package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// tables is what a lease on a subscription's dead letters is kept in.
type tables interface {
	Get(ctx context.Context, table, key string) (queue.Entry, error)
	Commit(ctx context.Context, tx queue.Commit) ([]ackwise.Result, error)
}

const (
	leaseTable = "ackwise-redrive"
	leaseFor   = 30 * time.Second
)

// errBusy: another run has the lease.
var errBusy = errors.New("another run redrives these dead letters")

// runLease keeps two runs from sending the same dead letters at once. It saves work, no more: a run
// that lost it without knowing sends letters under the IDs that they had before.
type runLease struct {
	t    tables
	key  string
	run  string
	now  func() time.Time
	stop context.CancelFunc
	wg   sync.WaitGroup
}

// held is what the table says.
type held struct {
	Run   string    `json:"run"`
	Until time.Time `json:"until"`
}

// takeLease takes the lease and renews it until it is ended; lost is called when that does not
// succeed.
func takeLease(ctx context.Context, t tables, p pipeline, now func() time.Time,
	lost func(error)) (*runLease, error) {
	l := &runLease{t: t, key: p.String(), run: ackwise.NewID(now()), now: now}
	if err := l.write(ctx, leaseFor); err != nil {
		return nil, err
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	l.wg.Go(func() { // ends with end
		tick := time.NewTicker(leaseFor / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := l.write(ctx, leaseFor); errors.Is(err, errBusy) {
				lost(err)
				return
			}
		}
	})
	return l, nil
}

// write puts the lease's new end, unless another run has it.
func (l *runLease) write(ctx context.Context, d time.Duration) error {
	e, err := l.t.Get(ctx, leaseTable, l.key)
	if err != nil {
		return fmt.Errorf("read the lease of the redrive: %w", err)
	}
	var is held
	if e.Version > 0 && json.Unmarshal(e.Value, &is) == nil && is.Run != l.run &&
		l.now().Before(is.Until) {
		return errBusy
	}
	value, err := json.Marshal(held{l.run, l.now().Add(d)})
	if err != nil {
		return err
	}
	_, err = l.t.Commit(ctx, queue.Commit{
		Reads:  []queue.TableRead{{Table: leaseTable, Key: l.key, Version: e.Version}},
		Writes: []queue.TableWrite{{Table: leaseTable, Key: l.key, Value: value}}})
	if errors.Is(err, queue.ErrConflict) {
		return errBusy
	}
	return err
}

// end gives the lease back.
func (l *runLease) end(ctx context.Context) error {
	l.stop()
	l.wg.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closePatience)
	defer cancel()
	if err := l.write(ctx, -time.Second); !errors.Is(err, errBusy) {
		return err
	}
	return nil
}
