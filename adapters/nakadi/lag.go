package nakadi

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// errNoStream says that nothing is read now: how far behind this member is, Nakadi does not say.
var errNoStream = errors.New("no stream is open now")

// Lag tells how many events of this member's partitions, and of those that nobody has, are not
// committed, and when the oldest of them was made, to the second. It is an error while no stream is
// open, and not known, -1, while Nakadi says nothing of a partition since nothing was consumed of
// it.
func (s *source) Lag(ctx context.Context) (records int64, oldest time.Time, err error) {
	records, oldest, err = s.log.lag(ctx, time.Now())
	if err != nil {
		return -1, time.Time{}, fmt.Errorf("ask for the lag of subscription %s: %w", s.log.sub.ID, err)
	}
	return records, oldest, nil
}

func (l *log) lag(ctx context.Context, now time.Time) (n int64, oldest time.Time, err error) {
	l.mu.Lock()
	st := l.stream
	l.mu.Unlock()
	if st == nil {
		return 0, time.Time{}, errNoStream
	}
	var all stats
	if err := l.client.get(ctx, "/subscriptions/"+url.PathEscape(l.sub.ID)+"/stats",
		url.Values{"show_time_lag": {"true"}}, &all); err != nil {
		return 0, time.Time{}, err
	}
	unknown := false
	for _, kind := range all.Items {
		for _, p := range kind.Partitions {
			switch {
			case p.Stream != st.id && p.Stream != "": // another member's
				continue
			case p.Unconsumed == nil: // nothing of it was ever consumed
				unknown = true
				continue
			}
			left := *p.Unconsumed - l.gone(&cursor{Type: kind.Type, Partition: p.Partition})
			if left <= 0 {
				continue
			}
			n += left
			if p.Lag == nil {
				continue
			}
			made := now.Add(-time.Duration(*p.Lag) * time.Second)
			if oldest.IsZero() || made.Before(oldest) {
				oldest = made
			}
		}
	}
	if unknown {
		n = -1
	}
	return n, oldest, nil
}

// gone is how many events are trimmed that Nakadi counts until something behind them is committed.
func (l *log) gone(c *cursor) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.parts[c.key()]; p != nil {
		return p.gone
	}
	return 0
}
