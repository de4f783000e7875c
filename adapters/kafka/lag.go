package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errNoPartitions says that the group has not given this member its partitions, or that it has not
// taken them in: how far behind it is nobody knows.
var errNoPartitions = errors.New("the group has not assigned this member its partitions yet")

// Lag tells how many records of this member's partitions are not settled, and when the oldest one
// was made that it has read. What it has not fetched it counts by offsets, so that aborted or
// compacted records may be among them. It is an error until the group has assigned the partitions.
// Of a share group it is not known: -1.
func (s *Source) Lag(ctx context.Context) (records int64, oldest time.Time, err error) {
	if s.group == nil {
		return -1, time.Time{}, nil
	}
	unread, err := s.group.unread(ctx)
	if err != nil {
		return -1, time.Time{}, fmt.Errorf("ask for the lag of group %s: %w", s.opts.Group, err)
	}
	read, oldest := s.logs.Backlog()
	return unread + int64(read), oldest, nil
}

// unread is how many records the source has not taken in.
func (g *group) unread(ctx context.Context) (n int64, err error) {
	list := g.adm.ListCommittedOffsets
	if g.opts.Uncommitted {
		list = g.adm.ListEndOffsets
	}
	ends, err := list(ctx, g.opts.Topics...)
	if err != nil {
		return 0, explainSource(err, g.opts)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.member == "" || len(g.awaited) > 0 {
		return 0, errNoPartitions
	}
	for i := range g.queue {
		n += int64(len(g.queue[i].Records))
	}
	for _, p := range g.parts {
		end, ok := ends.Lookup(p.topic, p.partition)
		if !ok || end.Err != nil {
			return 0, fmt.Errorf("ask for the end of %s: %w", p.name, cmpErr(end.Err, errNoAnswer))
		}
		n += max(0, end.Offset-p.next)
	}
	return n, nil
}
