package main

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// lookAtLag is how often a source is asked how far behind it is.
const lookAtLag = 10 * time.Second

// metrics are what /metrics shows. Labels are pipelines and closed lists: no IDs, keys or texts.
type metrics struct {
	registry   *prometheus.Registry
	deliveries *prometheus.CounterVec
	handled    *prometheus.CounterVec
	settled    *prometheus.CounterVec
	dead       *prometheus.CounterVec
	retries    *prometheus.CounterVec
	expiries   *prometheus.CounterVec
	skipped    *prometheus.CounterVec
	suppressed *prometheus.CounterVec
	messages   *prometheus.GaugeVec
	breaker    *prometheus.GaugeVec
	receiving  *prometheus.GaugeVec
	lagRecords *prometheus.GaugeVec
	lagSeconds *prometheus.GaugeVec
	oldest     *prometheus.GaugeVec
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "ackwise", Name: name,
			Help: help}, append([]string{"pipeline"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "ackwise", Name: name,
			Help: help}, append([]string{"pipeline"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	m.deliveries = counter("deliveries_total", "Hand-outs, by their cause.", "cause")
	m.handled = counter("handled_total", "Deliveries that a handler or sink returned, by what it "+
		"decided.", "outcome")
	m.settled = counter("settled_total", "Settlements that the source carried out, by outcome.",
		"outcome")
	m.dead = counter("dead_letters_total", "Dead letters, by reason: failures, rejected, crashes "+
		"or hand-outs.", "reason")
	m.retries = counter("retries_total", "Failed deliveries that are tried again.")
	m.expiries = counter("lease_expiries_total", "Leases that were lost while a delivery was held.")
	m.skipped = counter("skipped_total", "Lines that could not be read.")
	m.suppressed = counter("suppressed_total", "Repeats that pattern dedup kept from handler or "+
		"sink.")
	m.messages = gauge("messages", "Messages by state: in-flight in this process; on queue:// all "+
		"states of the subscription.", "state")
	m.breaker = gauge("breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open.")
	m.receiving = gauge("receiving", "1 while the source is open and asked for messages.")
	m.lagRecords = gauge("lag_records", "Messages that the source has and that are not settled, "+
		"where it says so.")
	m.lagSeconds = gauge("lag_seconds", "Age of the oldest message that the source has and that is "+
		"not settled, where it says so.")
	m.oldest = gauge("oldest_message_age_seconds", "Age of the oldest message in flight, by its "+
		"own time.")
	build := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "ackwise", Name: "build_info",
		Help: "The version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// meter counts one pipeline.
type meter struct {
	m    *metrics
	name string

	// last is how the handler ended that has the message now. It is told by one goroutine at a time.
	last map[string]ending

	mu       sync.Mutex // guards inFlight
	inFlight map[ackwise.LeaseToken]time.Time
}

// ending is how a handler ended. A message may be handled again before the loop hears that its last
// hand-out is settled.
type ending struct {
	attempt int
	outcome ackwise.Outcome
}

func newMeter(m *metrics, pipeline string) *meter {
	t := &meter{m: m, name: pipeline, last: map[string]ending{},
		inFlight: map[ackwise.LeaseToken]time.Time{}}
	m.breaker.WithLabelValues(pipeline).Set(0)
	m.receiving.WithLabelValues(pipeline).Set(0)
	for _, reason := range []string{"failures", "rejected", "crashes", "hand-outs"} {
		m.dead.WithLabelValues(pipeline, reason)
	}
	m.retries.WithLabelValues(pipeline)
	m.expiries.WithLabelValues(pipeline)
	m.suppressed.WithLabelValues(pipeline)
	return t
}

// see counts what the loop tells. handOuts says that the source counts hand-outs and not crashes.
func (t *meter) see(e ackwise.Event, handOuts bool) {
	switch e.Kind {
	case "handled":
		t.m.handled.WithLabelValues(t.name, e.Outcome.String()).Inc()
		t.last[e.ID] = ending{e.Attempt, e.Outcome}
	case "held":
		if t.last[e.ID].outcome == ackwise.OutcomeNack {
			t.m.retries.WithLabelValues(t.name).Inc()
		}
	case "settled":
		t.m.settled.WithLabelValues(t.name, e.Outcome.String()).Inc()
		if e.Outcome == ackwise.OutcomeNack {
			t.m.retries.WithLabelValues(t.name).Inc()
		}
		if e.Outcome != ackwise.OutcomeDead { // "dead" comes behind it
			t.forget(e)
		}
	case "dead":
		t.m.dead.WithLabelValues(t.name, t.why(e.ID, handOuts)).Inc()
		delete(t.last, e.ID)
	case "lease-lost":
		t.m.expiries.WithLabelValues(t.name).Inc()
	case "unsettled":
		t.forget(e)
	case "breaker-open":
		t.m.breaker.WithLabelValues(t.name).Set(2)
	case "breaker-half-open":
		t.m.breaker.WithLabelValues(t.name).Set(1)
	case "breaker-closed":
		t.m.breaker.WithLabelValues(t.name).Set(0)
	}
}

// seeDedup counts what pattern dedup tells: a duplicate is acked, and nothing is done.
func (t *meter) seeDedup(e ackwise.Event) {
	if e.Kind == "duplicate" {
		t.m.suppressed.WithLabelValues(t.name).Inc()
	}
}

// forget ends a hand-out.
func (t *meter) forget(e ackwise.Event) {
	if t.last[e.ID].attempt == e.Attempt {
		delete(t.last, e.ID)
	}
}

// why is the reason of a dead letter: one of a closed list.
func (t *meter) why(id string, handOuts bool) string {
	switch last, handled := t.last[id]; {
	case handled && last.outcome == ackwise.OutcomeDead:
		return "rejected"
	case handled:
		return "failures"
	case handOuts:
		return "hand-outs"
	}
	return "crashes"
}

// meteredSource counts what a source hands out.
type meteredSource struct {
	ackwise.Source
	t         *meter
	receiving func()
}

// Receive receives, and counts.
func (s *meteredSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	s.receiving()
	ds, err := s.Source.Receive(ctx, max)
	if len(ds) == 0 {
		return ds, err
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for _, d := range ds {
		s.t.inFlight[d.Token] = d.Time
		s.t.m.deliveries.WithLabelValues(s.t.name, d.Cause.String()).Inc()
	}
	return ds, err
}

// Settle settles, and counts.
func (s *meteredSource) Settle(ctx context.Context,
	ss []ackwise.Settlement) []ackwise.SettleResult {
	results := s.Source.Settle(ctx, ss)
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	for _, one := range ss {
		if one.Outcome != ackwise.OutcomeExtend {
			delete(s.t.inFlight, one.Token)
		}
	}
	return results
}

// look shows what can only be looked at: how much there is, and how old it is.
func (t *meter) look(ctx context.Context, in *inlet, now time.Time) {
	t.mu.Lock()
	held, oldest := len(t.inFlight), time.Time{}
	for _, at := range t.inFlight {
		if !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	t.mu.Unlock()
	t.m.oldest.WithLabelValues(t.name).Set(age(now, oldest))
	ctx, cancel := context.WithTimeout(ctx, lagPatience)
	defer cancel()
	if in.books == nil {
		t.m.messages.WithLabelValues(t.name, string(queue.StateInFlight)).Set(float64(held))
	} else if b, err := in.books(ctx); err == nil {
		for state, n := range map[queue.State]int64{queue.StateReady: b.Ready,
			queue.StateDelayed: b.Delayed, queue.StateInFlight: b.InFlight,
			queue.StateParked: b.Parked, queue.StateDead: b.Dead} {
			t.m.messages.WithLabelValues(t.name, string(state)).Set(float64(n))
		}
	}
	if in.lag == nil {
		return
	}
	records, since, err := in.lag.Lag(ctx)
	if err != nil { // the source's own errors are logged by the loop
		records, since = -1, time.Time{}
	}
	t.tellLag(records, since, now)
}

// tellLag shows how far behind the source is. What is not known is not shown: an old figure would
// stand still while the lag grows.
func (t *meter) tellLag(records int64, since, now time.Time) {
	if records >= 0 {
		t.m.lagRecords.WithLabelValues(t.name).Set(float64(records))
	} else {
		t.m.lagRecords.DeleteLabelValues(t.name)
	}
	if !since.IsZero() || records == 0 {
		t.m.lagSeconds.WithLabelValues(t.name).Set(age(now, since))
	} else {
		t.m.lagSeconds.DeleteLabelValues(t.name)
	}
}

// age is how long ago, in seconds; 0 for the zero time.
func age(now, since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return math.Max(now.Sub(since).Seconds(), 0)
}
