package adaptertest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// hand is a consumer whose deliveries the check settles itself, in the test's own process. The book
// hears of all it does.
type hand struct {
	r   *rig
	src ackwise.Source
	as  *member // who it is in the book
}

// hand opens the source in this process.
func (r *rig) hand(name string) *hand {
	r.t.Helper()
	src, err := r.h.OpenSource(r.ctx, r.bed.Source)
	if err != nil {
		r.t.Fatalf("open the source: %v", err)
	}
	got := src.Features()
	r.book.locked(func() { r.book.compare(&got, r.h.Source) })
	h := &hand{r: r, src: src, as: &member{r: r, name: name}}
	r.t.Cleanup(func() { _ = src.Close() })
	return h
}

// close ends the session in good order.
func (h *hand) close() {
	h.r.t.Helper()
	h.r.book.stops(h.as)
	if err := h.src.Close(); err != nil {
		h.r.t.Errorf("close the source: %v", err)
	}
	h.r.book.locked(func() { h.as.last = time.Now().UnixNano() })
	h.r.book.end(h.as)
}

func (h *hand) say(line said) {
	line.At = time.Now().UnixNano()
	h.r.book.locked(func() {
		h.r.book.events = append(h.r.book.events, event{said: line, by: h.as})
	})
}

// receive receives until there are n deliveries.
func (h *hand) receive(n int) []*ackwise.Delivery {
	h.r.t.Helper()
	ds := h.within(n, h.r.bed.Patience)
	if len(ds) < n {
		h.r.t.Fatalf("%d of %d deliveries came within %s%s", len(ds), n, h.r.bed.Patience,
			h.r.book.tell())
	}
	return ds
}

// within receives until there are n deliveries, or the time is over.
func (h *hand) within(n int, most time.Duration) []*ackwise.Delivery {
	h.r.t.Helper()
	ctx, cancel := context.WithTimeout(h.r.ctx, most)
	defer cancel()
	var all []*ackwise.Delivery
	for len(all) < n && ctx.Err() == nil {
		ds, err := h.src.Receive(ctx, n-len(all))
		if len(ds) > n-len(all) {
			h.r.t.Fatalf("Receive gave %d deliveries, %d were asked for", len(ds), n-len(all))
		}
		for _, d := range ds {
			if h.r.h.Undo != nil {
				h.r.h.Undo(&d.Message)
			}
			h.say(said{Kind: saysReceived, ID: d.ID, Key: []byte(d.Key), Token: []byte(d.Token),
				Sum: sumOf(&d.Message), Attempt: d.Attempt, Cause: d.Cause, Counts: d.Counts,
				Time: d.Time})
		}
		all = append(all, ds...)
		if err != nil && ctx.Err() == nil {
			if errors.Is(err, ackwise.ErrClosed) {
				h.r.t.Fatalf("receive: %v", err)
			}
			h.r.pause(20 * time.Millisecond)
		}
	}
	return all
}

// settle settles deliveries in one call, and sees to it that there is one result each.
func (h *hand) settle(ss ...ackwise.Settlement) []ackwise.SettleResult {
	h.r.t.Helper()
	for _, s := range ss {
		if s.Outcome != ackwise.OutcomeExtend {
			h.say(said{Kind: saysOrder, Token: []byte(s.Token), Outcome: s.Outcome.String(),
				ID: h.idOf(s.Token)})
			h.say(said{Kind: saysSettling, Token: []byte(s.Token)})
		}
	}
	ctx, cancel := context.WithTimeout(h.r.ctx, h.r.bed.Patience)
	defer cancel()
	results := h.src.Settle(ctx, ss)
	if len(results) != len(ss) {
		h.r.t.Fatalf("%d settlements got %d results", len(ss), len(results))
	}
	for i, res := range results {
		if ss[i].Outcome == ackwise.OutcomeExtend {
			continue
		}
		line := said{Kind: saysSettled, Token: []byte(ss[i].Token), ID: h.idOf(ss[i].Token),
			Outcome: ss[i].Outcome.String()}
		if res.Err != nil {
			line.Kind, line.Reason, line.Lost = saysRefused, res.Err.Error(), isLost(res.Err)
			h.say(line)
			continue
		}
		h.say(line)
		h.r.book.locked(func() { h.r.book.settled(&line) })
	}
	return results
}

func (h *hand) idOf(token ackwise.LeaseToken) (id string) {
	h.r.book.locked(func() {
		for _, e := range h.r.book.events {
			if e.Kind == saysReceived && string(e.Token) == string(token) {
				id = e.ID
			}
		}
	})
	return id
}

// all settles deliveries in one call by one outcome, and expects no error.
func (h *hand) all(o ackwise.Outcome, ds ...*ackwise.Delivery) {
	h.r.t.Helper()
	var ss []ackwise.Settlement
	for _, d := range ds {
		ss = append(ss, ackwise.Settlement{Token: d.Token, Outcome: o})
	}
	for i, res := range h.settle(ss...) {
		if res.Err != nil {
			h.r.t.Fatalf("%s of %s: %v", o, ds[i].ID, res.Err)
		}
	}
}

// ids returns the IDs of deliveries, sorted.
func ids(ds []*ackwise.Delivery) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.ID)
	}
	slices.Sort(out)
	return out
}
