package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/deliver"
)

// scaleInbox is the pipeline of TestRealScaleInbox.
const scaleInbox = "inbox"

// TestRealScaleInbox runs three consumer processes in Go, whose effects and markers are one
// transaction in Postgres, in one consumer group; one is killed, one frozen, one joins and one
// leaves while they work. Each records every hand-out of its source, so that the cause of each is
// held against how the one before it ended.
func TestRealScaleInbox(t *testing.T) {
	r := newScaleRun(t)
	r.pipes = []string{scaleInbox}
	r.cfg.From = fmt.Sprintf("%s?group=%s&session-timeout=%s&create=true", r.topic, scaleInbox,
		r.session)
	r.cfg.Held = r.held
	r.play(3_000, 200_000)
	r.effects(scaleInbox)

	var hs []*handOut
	again := 0
	for _, m := range r.all {
		own := handOutsOf(m.name, m.records(scaleInbox).all)
		hs = append(hs, own...)
		tally := map[string]int{}
		for _, h := range own {
			tally["given "+h.cause]++
			if h.begun != "" {
				tally["handled "+h.cause]++
			}
			if h.end == "" {
				tally["open"]++
			}
			tally[h.end]++
			tally[h.work]++
		}
		again += tally["again"]
		row := ""
		for _, c := range causes() {
			row += fmt.Sprintf(" %s %d/%d", c, tally["handled "+c], tally["given "+c])
		}
		t.Logf("%s handled/given:%s; acked %d, released %d, lost %d, open %d", m.name, row,
			tally["ack"], tally["release"], tally["lost"], tally["open"])
	}
	j := &causeJudge{faults: r.faults, whole: true}
	j.judge(hs)
	r.report(scaleInbox, &j.findings)
	t.Logf("%d hand-outs, %d that nobody recorded; %d had to be rebalanced, %d are: %d were handled, "+
		"%d given back or lost before; the end of %d is not known; %d copies were published, %d "+
		"times an effect was found made", len(hs), j.gaps, j.moved, j.rebalanced, j.beganMoved,
		j.endedMoved, j.unsure, r.copies, again)
	if j.gaps > r.hidden() {
		t.Errorf("%d hand-outs are in no records: at most %d may be", j.gaps, r.hidden())
	}
	if j.rebalanced != j.beganMoved+j.endedMoved {
		t.Errorf("%d deliveries are rebalanced, %d were handled and %d ended before", j.rebalanced,
			j.beganMoved, j.endedMoved)
	}
	if j.moved == 0 {
		t.Error("no delivery had to be rebalanced: the fault did not fire")
	}
	if again < r.copies/2 {
		t.Error("the copies did not come")
	}
}

// runScaleConsumer consumes until SIGTERM.
func runScaleConsumer(c scaleConfig) (err error) {
	defer func() {
		if err != nil {
			fmt.Fprintln(os.Stderr, "ackwise:", err)
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	pool, err := scalePool(ctx, c.DSN)
	if err != nil {
		return err
	}
	defer pool.Close()
	rec, err := newRecorder(c, scaleInbox)
	if err != nil {
		return err
	}
	o, err := kafka.ParseSource(c.From)
	if err != nil {
		return err
	}
	src, err := kafka.OpenSource(ctx, o)
	if err != nil {
		return err
	}
	seen := &seenSource{Source: src, recorder: rec,
		held: map[ackwise.LeaseToken]*ackwise.Delivery{}}
	h := &inboxHandler{recorder: rec, cfg: c}
	h.Transactional, err = postgres.Inbox(ctx, postgres.PGX(pool), h.effect, postgres.InboxOptions{
		Name: c.Tables, Again: time.Hour, BusyDelay: 200 * time.Millisecond})
	if err == nil {
		err = deliver.Run(ctx, seen, h, deliver.Options{Pipeline: scaleInbox,
			Guarantee: deliver.ExactlyOnce, Concurrency: 4, MaxInFlight: c.Held,
			Backoff:       deliver.Backoff{First: 100 * time.Millisecond},
			NoDeadLetters: true, Observe: seen.observe})
	}
	return errors.Join(err, src.Close())
}

// inboxHandler is an inbox that records what happens to it.
type inboxHandler struct {
	ackwise.Transactional
	*recorder
	cfg scaleConfig
}

// madeKey is where a handler's call learns whether its effect was made.
type madeKey struct{}

// Handle implements ackwise.Handler. Half of the pause is before the transaction, and half in it.
func (h *inboxHandler) Handle(ctx context.Context, d *ackwise.Delivery) error {
	h.note(recordOf("begin", d))
	h.pause()
	made := false
	err := h.Transactional.Handle(context.WithValue(ctx, madeKey{}, &made), d)
	h.note(ended(d, made, err))
	return err
}

func (h *inboxHandler) pause() {
	timer := time.NewTimer(h.cfg.Pause / 2)
	<-timer.C
}

func (h *inboxHandler) effect(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
	*ctx.Value(madeKey{}).(*bool) = true
	err := scaleEffect(ctx, tx, h.cfg, scaleInbox, d)
	h.pause()
	return err
}

// seenSource records what a source hands out, and how each hand-out ends.
type seenSource struct {
	ackwise.Source
	*recorder

	mu   sync.Mutex // guards held
	held map[ackwise.LeaseToken]*ackwise.Delivery
}

// Receive implements ackwise.Source.
func (s *seenSource) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	ds, err := s.Source.Receive(ctx, most)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		s.held[d.Token] = d
		s.note(recordOf("given", d))
	}
	return ds, err
}

// Settle implements ackwise.Source.
func (s *seenSource) Settle(ctx context.Context,
	ss []ackwise.Settlement) []ackwise.SettleResult {
	results := s.Source.Settle(ctx, ss)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range ss {
		d := s.held[one.Token]
		switch err := results[i].Err; {
		case d == nil || one.Outcome == ackwise.OutcomeExtend:
		case err == nil:
			s.end("settled", one.Outcome.String(), d)
		case errors.Is(err, ackwise.ErrLeaseLost):
			s.end("lost", "", d)
		default:
			r := recordOf("unsure", d)
			r.Outcome, r.Error = one.Outcome.String(), err.Error()
			s.note(r)
		}
	}
	return results
}

// end records the end of a hand-out. mu is held.
func (s *seenSource) end(what, outcome string, d *ackwise.Delivery) {
	delete(s.held, d.Token)
	r := recordOf(what, d)
	r.Outcome = outcome
	r.Revoked, _ = d.Marked()
	s.note(r)
}

// observe hears of deliveries that are lost before they are settled.
func (s *seenSource) observe(e ackwise.Event) {
	if e.Kind != "lease-lost" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.held {
		if _, lost := d.Marked(); lost && d.ID == e.ID && d.Attempt == e.Attempt {
			s.end("lost", "", d)
			return
		}
	}
}
