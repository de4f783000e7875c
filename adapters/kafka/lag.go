package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// errNoPartitions says that this member has no partitions, or that it has not taken them in: how
// far behind it is nobody knows.
var errNoPartitions = errors.New("the group has assigned this member no partitions yet")

// Lag tells how many records of this member's partitions are not settled, and when the oldest one
// was made that it has read. What it has not fetched it counts by offsets, so that aborted or
// compacted records may be among them. It is an error until the group has assigned the partitions;
// a member that has none, since others have them all, is behind by nothing only where they are too.
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
	n, none, err := g.ahead(ends)
	if err != nil || !none {
		return n, err
	}
	return 0, g.done(ctx, ends)
}

// ahead is how many records there are behind those that the source has taken in. none says that
// this member has no partitions.
func (g *group) ahead(ends kadm.ListedOffsets) (n int64, none bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.seated || len(g.awaited) > 0 || len(g.kicked) > 0 {
		return 0, false, errNoPartitions
	}
	for i := range g.queue {
		n += int64(len(g.queue[i].Records))
	}
	for _, p := range g.parts {
		end, ok := ends.Lookup(p.topic, p.partition)
		if !ok || end.Err != nil {
			return 0, false, fmt.Errorf("ask for the end of %s: %w", p.name,
				cmpErr(end.Err, errNoAnswer))
		}
		n += max(0, end.Offset-p.next)
	}
	return n, len(g.parts) == 0, nil
}

// done is nil where all that the topics hold is settled, whoever has the partitions.
func (g *group) done(ctx context.Context, ends kadm.ListedOffsets) error {
	starts, err := g.adm.ListStartOffsets(ctx, g.opts.Topics...)
	if err != nil {
		return explainSource(err, g.opts)
	}
	marks, err := g.adm.FetchOffsetsForTopics(ctx, g.opts.Group, g.opts.Topics...)
	if err != nil {
		return explainSource(err, g.opts)
	}
	ends.Each(func(end kadm.ListedOffset) {
		at, _ := starts.Lookup(end.Topic, end.Partition)
		if c, ok := marks.Lookup(end.Topic, end.Partition); ok {
			at.Offset = max(at.Offset, c.At)
		}
		if end.Err != nil || at.Offset < end.Offset {
			err = errNoPartitions
		}
	})
	return err
}
