package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// shown is what the gauges of lag show; -1 = nothing.
func (m *metrics) shown(t *testing.T) string {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{"ackwise_lag_records": -1, "ackwise_lag_seconds": -1}
	for _, f := range families {
		if _, ok := values[f.GetName()]; ok {
			values[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return fmt.Sprint(values["ackwise_lag_records"], " of ", values["ackwise_lag_seconds"], " s")
}

// TestReasonOfALetterThatWasQuick: a message is handled again before its settlement is heard of.
func TestReasonOfALetterThatWasQuick(t *testing.T) {
	meter := newMeter(newMetrics("test"), "p")
	for _, e := range []ackwise.Event{
		{Kind: "handled", ID: "a", Attempt: 1, Outcome: ackwise.OutcomeNack},
		{Kind: "handled", ID: "a", Attempt: 2, Outcome: ackwise.OutcomeNack},
		{Kind: "settled", ID: "a", Attempt: 1, Outcome: ackwise.OutcomeNack},
	} {
		meter.see(e, false)
	}
	if why := meter.why("a", false); why != "failures" {
		t.Errorf("the reason is %s", why)
	}
	end := ackwise.Event{Kind: "settled", ID: "a", Attempt: 2, Outcome: ackwise.OutcomeNack}
	meter.see(end, false)
	if why := meter.why("a", false); why != "crashes" || len(meter.last) > 0 {
		t.Errorf("the reason of one that was not handled since is %s", why)
	}
}

// TestLagThatIsNotKnownIsNotShown: no old figure stands still while the lag grows.
func TestLagThatIsNotKnownIsNotShown(t *testing.T) {
	m := newMetrics("test")
	meter, now := newMeter(m, "p"), time.Now()
	for _, c := range []struct {
		records int64
		since   time.Time
		want    string
	}{
		{-1, time.Time{}, "-1 of -1 s"},
		{0, time.Time{}, "0 of 0 s"},
		{1000, time.Time{}, "1000 of -1 s"},
		{5, now.Add(-time.Minute), "5 of 60 s"},
		{-1, now.Add(-time.Hour), "-1 of 3600 s"},
		{-1, time.Time{}, "-1 of -1 s"},
	} {
		meter.tellLag(c.records, c.since, now)
		if got := m.shown(t); got != c.want {
			t.Errorf("told %d since %s, shown are %s, want %s", c.records, c.since, got, c.want)
		}
	}
}
