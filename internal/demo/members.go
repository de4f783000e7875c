package demo

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

const (
	partitions = 2
	// drainTime is how long a member may take to give a revoked partition up.
	drainTime = 200 * time.Millisecond
	lookEvery = time.Millisecond
)

// shared is a log of two partitions and the two members that share them.
type shared struct {
	log     *memlog.Log
	members []*memlog.Member
	trace   *trace

	mu     sync.Mutex     // guards the fields below
	begun  int            // deliveries
	busy   map[string]int // handlers at work, by partition
	handed map[ackwise.Cause]int64
}

// share runs the two members until all flights of the log are settled, and moves the partitions
// while they work.
func (a *assignment) share(ctx context.Context, t *trace) error {
	flights, err := Flights(a.Shared)
	if err != nil {
		return err
	}
	s := &shared{log: memlog.New(topicShared, partitions), trace: t, busy: map[string]int{},
		handed: map[ackwise.Cause]int64{}}
	ends := [partitions]ackwise.Position{}
	for i := range flights {
		p := partitionOf(&flights[i])
		ends[p] = s.log.Append(p, flights[i].Message(topicShared))
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var loops sync.WaitGroup
	failed := make(chan error, partitions)
	for i := range partitions {
		m := s.log.Join("member-" + strconv.Itoa(i+1))
		s.members = append(s.members, m)
		loops.Go(func() { failed <- s.consume(ctx, m, a.options()) }) // ends with stop
	}
	s.log.Rebalance(0, time.Time{})
	err = s.move(ctx, a.Moves, ends, failed)
	stop()
	loops.Wait()
	close(failed)
	for other := range failed {
		err = errors.Join(err, other)
	}
	for _, c := range ackwise.Causes() {
		if n := s.handed[c]; n > 0 {
			err = errors.Join(err, t.write(markHanded, c.String(), strconv.FormatInt(n, 10)))
		}
	}
	return err
}

func partitionOf(f *Flight) int {
	name := f.Key
	if name == "" {
		name = f.ID
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return int(h.Sum32() % partitions)
}

// consume runs one member's loop.
func (s *shared) consume(ctx context.Context, m *memlog.Member, o deliver.Options) error {
	src, err := logsource.New(m, logsource.Options{Consumer: m.Name()})
	if err != nil {
		return err
	}
	o.NoDeadLetters, o.RevokeGrace = true, deliver.NoGrace
	w := &work{trace: s.trace}
	w.effect = w.increment
	handler := ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		s.count(d.Partition, 1)
		defer s.count(d.Partition, -1)
		return w.Handle(ctx, d)
	})
	err = deliver.Run(ctx, &counting{src, s}, handler, o)
	return errors.Join(err, src.Close())
}

func (s *shared) count(partition string, change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[partition] += change
	s.begun += max(change, 0)
}

// counting counts what a log source hands out, by the cause that its journal gives.
type counting struct {
	*logsource.Source
	in *shared
}

// Receive implements ackwise.Source.
func (c *counting) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	ds, err := c.Source.Receive(ctx, max)
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	for _, d := range ds {
		c.in.handed[d.Cause]++
	}
	return ds, err
}

// move moves the partitions after so many deliveries each time, in turn in good order and by
// force, and returns when everything up to ends is settled. It moves one only where a handler is
// at work on it, and both at the last.
func (s *shared) move(ctx context.Context, after []int, ends [partitions]ackwise.Position,
	failed <-chan error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	done := 0
	for {
		select {
		case err := <-failed:
			return errors.Join(errors.New("a member ended before its work did"), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			s.log.Expire(now)
		}
		settled := true
		for p, end := range ends {
			at, _ := s.log.Committed(p)
			settled = settled && at == end
		}
		if settled {
			return nil
		}
		s.mu.Lock()
		due := done < len(after) && s.begun >= after[done]
		s.mu.Unlock()
		if due {
			if err := s.moveOne(done); err != nil {
				return err
			}
			done++
		}
	}
}

// moveOne swaps the partitions' owners, or takes one away by force.
func (s *shared) moveOne(n int) error {
	s.mu.Lock()
	busy := [partitions]int{}
	for p := range partitions {
		busy[p] = s.busy[s.name(p)]
	}
	s.mu.Unlock()
	if n%3 == 2 { // by force: the member that had it learns it too late
		p := n / 3 % partitions
		if err := s.write(p, busy[p]); err != nil {
			return err
		}
		s.log.Seize(p, s.other(s.log.Owner(p)))
		return nil
	}
	for p := range partitions {
		if err := s.write(p, busy[p]); err != nil {
			return err
		}
		s.log.Move(p, s.other(s.log.Owner(p)), time.Now().Add(drainTime))
	}
	return nil
}

func (s *shared) write(partition, busy int) error {
	return s.trace.write(markMove, s.name(partition), strconv.Itoa(busy))
}

func (s *shared) name(partition int) string { return topicShared + "/" + strconv.Itoa(partition) }

// other is the member that m shares the log with.
func (s *shared) other(m *memlog.Member) *memlog.Member {
	if m == s.members[0] {
		return s.members[1]
	}
	return s.members[0]
}

// topicShared is the name of the shared log.
const topicShared = "shared"
