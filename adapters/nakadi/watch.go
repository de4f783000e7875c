package nakadi

import (
	"context"
	"net/url"
	"time"

	"github.com/ackwise/ackwise/deliver/logsource"
)

// stats is what Nakadi says of who has which partition.
type stats struct {
	Items []struct {
		Type       string `json:"event_type"`
		Partitions []struct {
			Partition string `json:"partition"`
			State     string `json:"state"`
			Stream    string `json:"stream_id"`
			// Unconsumed and Lag may be left out: of a partition of which nothing was consumed yet, and
			// where nobody has asked.
			Unconsumed *int64 `json:"unconsumed_events"`
			Lag        *int64 `json:"consumer_lag_seconds"`
		} `json:"partitions"`
	} `json:"items"`
}

// watch ends a stream that is silent, and finds partitions that have gone: a stream is not told of
// that.
func (l *log) watch(ctx context.Context, st *stream) {
	every := time.NewTicker(min(l.o.CheckEvery, l.o.KeepAlive))
	defer every.Stop()
	checked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		l.mu.Lock()
		patience := 3 * l.o.KeepAlive
		if len(st.had) == 0 {
			// Nothing is said of a partition before its old member has committed or timed out.
			patience += 2 * l.o.CommitTimeout
		}
		silent := time.Since(st.last) > patience
		l.mu.Unlock()
		if silent {
			l.tell("stream-silent", errSilent)
			st.end()
			return
		}
		if time.Since(checked) < l.o.CheckEvery {
			continue
		}
		checked = time.Now()
		var s stats
		path := "/subscriptions/" + url.PathEscape(l.sub.ID) + "/stats"
		if err := l.client.get(ctx, path, nil, &s); err == nil {
			l.compare(ctx, st, &s, checked)
		}
	}
}

// compare takes in who has what. A partition that goes to another member is worked on until all is
// settled that was sent, since only then, or when the commit timeout is over, it moves. What takes
// longer than half of that is told to end, so that its next owner knows that it was given back.
func (l *log) compare(ctx context.Context, st *stream, s *stats, now time.Time) {
	var changes []logsource.Change
	l.mu.Lock()
	for _, kind := range s.Items {
		for _, one := range kind.Partitions {
			name := (&cursor{Type: kind.Type, Partition: one.Partition}).key()
			p := l.parts[name]
			switch {
			case p == nil, p.since.After(now): // it came after this was asked for
			case one.Stream != st.id:
				l.forget(name)
				changes = append(changes, logsource.Change{Kind: logsource.Lost, Partition: name})
			case one.State != "reassigning":
				p.slow = time.Time{}
			case p.slow.IsZero():
				p.slow = now
			case now.Sub(p.slow) > l.o.CommitTimeout/2:
				p.slow = now
				changes = append(changes, logsource.Change{Kind: logsource.Revoked,
					Partition: name, Deadline: now.Add(l.o.CommitTimeout / 4)})
			}
		}
	}
	l.mu.Unlock()
	for _, c := range changes {
		l.put(ctx, c)
	}
}
