package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// letterQueue is another system's queue of dead letters. Like SQS it leases each. A FIFO queue
// hands out none of a group of which one is in flight, and lets only the first of a run be settled.
type letterQueue struct {
	fifo   bool
	behind time.Duration // how long its number counts a letter that is gone
	mute   error         // its number is not told

	mu      sync.Mutex // guards all below
	letters []*queued
	gone    []time.Time
	serial  int
}

type queued struct {
	m        ackwise.Message
	position ackwise.Position
	until    time.Time // in flight
	token    ackwise.LeaseToken
	receives int
}

const letterLease = 30 * time.Second

func (q *letterQueue) put(id, key, body string) *queued {
	l := &queued{m: ackwise.Message{ID: id, Key: key, Body: []byte(body), Topic: "dead"},
		position: ackwise.Position(fmt.Sprint(len(q.letters)))}
	q.letters = append(q.letters, l)
	return l
}

func (q *letterQueue) Features() ackwise.Features {
	f := ackwise.Features{Lease: letterLease, Extend: true, MaxNackDelay: 11 * time.Hour,
		HandOuts: true}
	if q.fifo {
		f.Order, f.KeyRuns, f.MaxNackDelay = ackwise.OrderKey, true, 0
	}
	return f
}

func (q *letterQueue) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ds := q.ready(min(max, 10)); len(ds) > 0 {
			return ds, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

func (q *letterQueue) ready(max int) (ds []*ackwise.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	busy := map[string]bool{}
	for _, l := range q.letters {
		busy[l.m.Key] = busy[l.m.Key] || q.fifo && now.Before(l.until)
	}
	for _, l := range q.letters {
		if len(ds) == max || now.Before(l.until) || busy[l.m.Key] {
			continue
		}
		q.serial++
		l.receives++
		l.until, l.token = now.Add(letterLease), ackwise.LeaseToken(fmt.Sprint(q.serial))
		ds = append(ds, &ackwise.Delivery{Message: l.m, Token: l.token, Position: l.position,
			Attempt: l.receives, Deadline: l.until})
	}
	return ds
}

func (q *letterQueue) Settle(_ context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	q.mu.Lock()
	defer q.mu.Unlock()
	results := make([]ackwise.SettleResult, len(ss))
	now := time.Now()
	for i, s := range ss {
		at := slices.IndexFunc(q.letters, func(l *queued) bool { return l.token == s.Token })
		if at < 0 || !now.Before(q.letters[at].until) {
			results[i].Err = ackwise.ErrLeaseLost
			continue
		}
		l := q.letters[at]
		first := !slices.ContainsFunc(q.letters[:at], func(o *queued) bool {
			return q.fifo && o.m.Key == l.m.Key && now.Before(o.until)
		})
		switch s.Outcome {
		case ackwise.OutcomeExtend:
			l.until = now.Add(letterLease)
			continue
		case ackwise.OutcomeAck:
			if !first {
				results[i].Err = ackwise.ErrRunOrder
				continue
			}
			q.letters = slices.Delete(q.letters, at, at+1)
			q.gone = append(q.gone, now)
			continue
		case ackwise.OutcomeNack, ackwise.OutcomeSnooze:
			if !first {
				results[i].Err = ackwise.ErrRunOrder
				continue
			}
		case ackwise.OutcomeRelease, ackwise.OutcomeDead, ackwise.OutcomeDrop:
		}
		l.until = now.Add(s.Delay)
		for _, o := range q.letters[at+1:] {
			if q.fifo && o.m.Key == l.m.Key {
				o.until = now
			}
		}
	}
	return results
}

func (q *letterQueue) Lag(context.Context) (int64, time.Time, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.letters)
	for _, at := range q.gone {
		if time.Since(at) < q.behind {
			n++
		}
	}
	return int64(n), time.Time{}, q.mute
}

func (q *letterQueue) Close() error { return nil }

// bodySink takes what is good, and never what is bad. It keeps the bodies that it was sent.
type bodySink struct{ got []string }

func (s *bodySink) Publish(_ context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	for i, m := range msgs {
		s.got = append(s.got, string(m.Body))
		results[i].Class = ackwise.ResultAccepted
		if strings.HasPrefix(string(m.Body), "bad") {
			results[i] = ackwise.Result{Class: ackwise.ResultRejected, Err: errors.New("it is bad")}
		}
	}
	return results
}
func (s *bodySink) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{KeyRunSafe: true} }
func (s *bodySink) Close() error                   { return nil }

// outcome is what a test looks at of a summary. Left is -1 where it is not known.
type outcome struct {
	Accepted, Left, Rejected int64
	Drained                  bool
}

// redriveFrom runs a redrive of a queue in a bubble of time, until it ends or is stopped.
func redriveFrom(t *testing.T, q *letterQueue, s *bodySink, stop ...time.Duration) (got outcome,
	code int, took time.Duration) {
	t.Helper()
	ctx := t.Context()
	for _, after := range stop {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		time.AfterFunc(after, cancel)
	}
	a := &app{ctx: t.Context(), err: t.Output(), now: time.Now}
	r := newRunner(a, false)
	r.log = slog.New(slog.NewTextHandler(a.err, nil))
	x := &redriveRun{cfg: &redriveConfig{Name: "r", From: "sqs://eu-central-1/dead", To: "x"}, r: r,
		tally: newTally(), in: &inlet{source: q, lag: q}, sink: s}
	start := time.Now()
	x.run(ctx)
	if x.err != nil {
		t.Error(x.err)
	}
	line, err := json.Marshal(x.sum)
	if err != nil {
		t.Fatal(err)
	}
	sum := struct {
		outcome
		Left *int64
	}{}
	if err := json.Unmarshal(line, &sum); err != nil {
		t.Fatal(err)
	}
	got = sum.outcome
	if got.Left = -1; sum.Left != nil {
		got.Left = *sum.Left
	}
	if x.leftover() != nil {
		code = exitPartial
	}
	return got, code, time.Since(start)
}

func TestRedriveOnceCountsWhatOthersHold(t *testing.T) {
	const quiet = quietFor
	for name, c := range map[string]struct {
		queue *letterQueue
		held  time.Duration // one of three letters, by another run
		want  outcome
		code  int
		most  time.Duration
	}{
		"one is held for long": {&letterQueue{}, time.Hour,
			outcome{Accepted: 2, Left: 1, Drained: true}, exitPartial, settleFor + 2*quiet},
		"one comes back in time": {&letterQueue{}, 20 * time.Second,
			outcome{Accepted: 3, Drained: true}, exitOK, 20*time.Second + 3*quiet},
		"the number is behind": {&letterQueue{behind: 30 * time.Second}, 0,
			outcome{Accepted: 3, Drained: true}, exitOK, 30*time.Second + 2*quiet},
		"nothing is held": {&letterQueue{}, 0,
			outcome{Accepted: 3, Drained: true}, exitOK, quiet},
		"the number is not told": {&letterQueue{mute: errors.New("no")}, 0,
			outcome{Accepted: 3, Left: -1, Drained: true}, exitPartial, settleFor + 2*quiet},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for i := range 3 {
					c.queue.put(fmt.Sprint("l-", i), "", "good")
				}
				c.queue.letters[1].until = time.Now().Add(c.held)
				got, code, took := redriveFrom(t, c.queue, &bodySink{})
				if got != c.want || code != c.code || took > c.most {
					t.Errorf("%+v, exit code %d after %s, want %+v, %d within %s", got, code, took, c.want,
						c.code, c.most)
				}
			})
		})
	}
}

func TestRedriveOnceEmptyIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, code, took := redriveFrom(t, &letterQueue{}, &bodySink{})
		if got != (outcome{Drained: true}) || code != exitOK || took != quietFor {
			t.Errorf("%+v, exit code %d after %s", got, code, took)
		}
	})
}

// A rejected letter of a FIFO queue stays at the head of its group: nothing overtakes it, the other
// groups go on, and the run ends.
func TestRedriveOnceRejectedInAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := &letterQueue{fifo: true}, &bodySink{}
		q.put("first", "z", "good-0") // the loop asks for one alone first
		for _, l := range []string{"a bad", "a good-1", "b good-2", "a good-3", "b good-4"} {
			key, body, _ := strings.Cut(l, " ")
			q.put(body, key, body)
		}
		for i := range 20 { // more of the group than one hand-out holds
			q.put(fmt.Sprint("more-", i), "a", "good")
		}
		got, code, took := redriveFrom(t, q, s)
		want := outcome{Accepted: 3, Left: 23, Rejected: 1, Drained: true}
		if got != want || code != exitPartial || took > 2*settleFor {
			t.Errorf("%+v, exit code %d after %s, want %+v", got, code, took, want)
		}
		if !slices.Equal(s.got, []string{"good-0", "bad", "good-2", "good-4"}) {
			t.Errorf("sent were %v", s.got)
		}
	})
}

// A run that is stopped while a letter waits behind a rejected one ends at once.
func TestRedriveOnceStoppedBehindARejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &letterQueue{fifo: true}
		q.put("first", "z", "good") // the loop asks for one alone first
		for _, body := range []string{"bad", "good-1", "good-2"} {
			q.put(body, "a", body)
		}
		got, code, took := redriveFrom(t, q, &bodySink{}, 500*time.Millisecond)
		want := outcome{Accepted: 1, Left: 3, Rejected: 1}
		if got != want || code != exitPartial || took > time.Second {
			t.Errorf("%+v, exit code %d after %s, want %+v", got, code, took, want)
		}
	})
}

// A queue that many write to may hold two letters of one ID: each is tried, and each counts.
func TestRedriveOnceTwoOfOneID(t *testing.T) {
	for _, c := range []struct {
		bodies []string
		want   outcome
	}{
		{[]string{"bad", "good"}, outcome{Accepted: 1, Left: 1, Rejected: 1, Drained: true}},
		{[]string{"good", "bad"}, outcome{Accepted: 1, Left: 1, Rejected: 1, Drained: true}},
		{[]string{"bad", "bad-2"}, outcome{Left: 2, Rejected: 2, Drained: true}},
	} {
		t.Run(fmt.Sprint(c.bodies), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, s := &letterQueue{}, &bodySink{}
				for _, body := range c.bodies {
					q.put("same", "", body)
				}
				q.letters[1].until = time.Now().Add(time.Second) // it comes after the first
				got, code, _ := redriveFrom(t, q, s)
				if got != c.want || code != exitPartial || !slices.Equal(s.got, c.bodies) {
					t.Errorf("%+v, exit code %d, sent %v, want %+v", got, code, s.got, c.want)
				}
			})
		})
	}
}
