package nakadi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// subscription is one as Nakadi describes it.
type subscription struct {
	ID          string   `json:"id,omitempty"`
	Application string   `json:"owning_application"`
	EventTypes  []string `json:"event_types"`
	Group       string   `json:"consumer_group"`
	ReadFrom    string   `json:"read_from,omitempty"`
}

// OpenSource makes a source of a subscription, which has to be there unless Create is set.
func OpenSource(ctx context.Context, o SourceOptions) (ackwise.Source, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open nakadi source: %w", err)
	}
	c := newClient(o.Server)
	sub, fresh, err := o.find(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("open nakadi source: %w", err)
	}
	l := &log{o: o, client: c, sub: sub, notes: o.Notes, partial: o.Notes == nil,
		types:   &typeCache{client: c, types: map[string]cached{}},
		changes: make(chan logsource.Change, 64), errs: make(chan error, 1),
		parts: map[string]*part{}, passed: map[string]TrimmedError{}}
	if l.partial {
		l.notes = &memoryNotes{notes: map[string][]byte{}}
	} else if fresh {
		if _, err := l.notes.Swap(ctx, l.freshName(), nil, []byte("new")); err != nil {
			return nil, fmt.Errorf("open nakadi source: write note: %w", err)
		}
	}
	for _, name := range sub.EventTypes {
		if _, err := l.types.get(ctx, name); err != nil {
			return nil, fmt.Errorf("open nakadi source: look up event type %s: %w", name, err)
		}
	}
	logged := o.Log
	if logged.PartitionMessages == 0 {
		logged.PartitionMessages = max(8192, 2*o.MaxUncommitted) // never paused: it cannot be
	}
	l.begin()
	src, err := logsource.New(l, logged)
	if err != nil {
		return nil, fmt.Errorf("open nakadi source: %w", errors.Join(err, l.Close()))
	}
	return &source{Source: src, log: l, o: o}, nil
}

// source says of the loop over the partitions what is true of Nakadi's.
type source struct {
	*logsource.Source
	log *log
	o   SourceOptions
}

// Features: a partition that is not committed for the commit timeout is lost, and nothing extends
// that but progress. Counts and causes outlive the process only in notes.
func (s *source) Features() ackwise.Features {
	f := s.Source.Features()
	f.Lease, f.Extend = s.o.CommitTimeout, false
	f.Counts, f.Causes = s.o.Notes != nil, s.o.Notes != nil
	return f
}

// find looks the subscription up, or makes it. fresh says that nobody can have read from it.
func (o *SourceOptions) find(ctx context.Context, c *client) (sub subscription, fresh bool,
	err error) {
	if o.Subscription != "" {
		err = c.get(ctx, "/subscriptions/"+url.PathEscape(o.Subscription), nil, &sub)
		if statusOf(err) == http.StatusNotFound {
			err = &ackwise.NotFoundError{Kind: "subscription", Name: o.Subscription}
		}
		return sub, false, err
	}
	want := subscription{Application: o.Application, EventTypes: slices.Sorted(
		slices.Values(o.EventTypes)), Group: o.Group, ReadFrom: o.ReadFrom}
	if o.Create {
		return want.create(ctx, c)
	}
	const page, most = 100, 100_000 // a server that knows no offset answers the same for ever
	for offset := 0; ; offset += page {
		var list struct {
			Items []subscription `json:"items"`
		}
		query := url.Values{"owning_application": {o.Application}, "event_type": {o.EventTypes[0]},
			"limit": {fmt.Sprint(page)}, "offset": {fmt.Sprint(offset)}}
		if err := c.get(ctx, "/subscriptions", query, &list); err != nil {
			return sub, false, fmt.Errorf("look up subscription: %w", err)
		}
		for _, sub := range list.Items {
			slices.Sort(sub.EventTypes)
			if sub.Application == want.Application && sub.Group == want.Group &&
				slices.Equal(sub.EventTypes, want.EventTypes) {
				return sub, false, nil
			}
		}
		if len(list.Items) < page || offset >= most {
			name := fmt.Sprintf("%s of %s to %v", o.Group, o.Application, o.EventTypes)
			return sub, false, &ackwise.HintError{
				Err:  &ackwise.NotFoundError{Kind: "subscription", Name: name},
				Hint: "Make it, or let it be made by create=true."}
		}
	}
}

func (want *subscription) create(ctx context.Context, c *client) (sub subscription, fresh bool,
	err error) {
	body, err := json.Marshal(want)
	if err != nil {
		return sub, false, fmt.Errorf("create subscription: %w", err)
	}
	a := c.do(ctx, call{method: http.MethodPost, path: "/subscriptions", body: body})
	if a.cut || a.err != nil && a.sent {
		// It may be made; then the second answer is 200, and nobody knows who has read from it since.
		a = c.do(ctx, call{method: http.MethodPost, path: "/subscriptions", body: body})
	}
	if err := a.fault(http.StatusOK, http.StatusCreated); err != nil {
		return sub, false, fmt.Errorf("create subscription: %w", err)
	}
	if err := json.Unmarshal(a.body, &sub); err != nil {
		return sub, false, strange(fmt.Errorf("read subscription: %w", err))
	}
	return sub, a.status == http.StatusCreated, nil
}

// tell passes on what happened to a stream.
func (l *log) tell(kind string, err error) { l.tellOf(l.sub.ID, kind, err) }

func (l *log) tellOf(id, kind string, err error) {
	if l.o.Log.Observe == nil {
		return
	}
	l.tellMu.Lock()
	defer l.tellMu.Unlock()
	l.o.Log.Observe(ackwise.Event{Kind: kind, Time: time.Now(), Pipeline: l.o.Log.Pipeline,
		ID: id, Err: err})
}
