package kafka

import (
	"context"
	"time"
)

// pauseGrace is how long a full partition keeps the others from being read, before the client is
// told to fetch those alone. To be told costs: what the client has fetched of the partition is
// thrown away and fetched again. Most full partitions have room again much sooner.
const pauseGrace = 50 * time.Millisecond

// Pause stops or resumes the records of a partition.
func (g *group) Pause(name string, paused bool) {
	g.pauseMu.Lock()
	defer g.pauseMu.Unlock()
	g.mu.Lock()
	p := g.parts[name]
	told := false
	switch {
	case p == nil || !p.known: // it means the last stay
	case paused:
		p.full = time.Now()
	default:
		told = p.paused
		p.full, p.paused = time.Time{}, false
		if g.held {
			g.wake()
		}
	}
	g.mu.Unlock()
	if told {
		g.cl.ResumeFetchPartitions(map[string][]int32{p.topic: {p.partition}})
	}
}

// hold waits while a partition is full, until the time has come to read the others alone: where all
// are full, until one has room. It reports whether it has waited.
func (g *group) hold(ctx context.Context) bool {
	until, wait := g.tellFull(time.Now())
	if !wait {
		return false
	}
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-due:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	return true
}

// tellFull tells the client which partitions it is not to fetch, and returns what overfull does.
func (g *group) tellFull(now time.Time) (until time.Time, wait bool) {
	g.pauseMu.Lock()
	defer g.pauseMu.Unlock()
	pause, until, wait := g.overfull(now)
	if len(pause) > 0 {
		g.cl.PauseFetchPartitions(pause)
	}
	return until, wait
}

// overfull returns which partitions the client is to be told of now, and whether and how long to
// wait for others: until = zero is until one has room.
func (g *group) overfull(now time.Time) (pause map[string][]int32, until time.Time, wait bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var full []*part
	room := false
	for _, p := range g.parts {
		switch {
		case p.leaving: // nothing of it is taken in, nor waited for
		case p.full.IsZero():
			room = true
		case !p.paused:
			full = append(full, p)
		}
	}
	pause = map[string][]int32{}
	for _, p := range full {
		end := p.full.Add(pauseGrace)
		switch {
		case !room:
			wait = true
		case !now.Before(end):
			p.paused = true
			pause[p.topic] = append(pause[p.topic], p.partition)
		case until.IsZero() || end.Before(until):
			wait, until = true, end
		}
	}
	g.held = wait
	return pause, until, wait
}
