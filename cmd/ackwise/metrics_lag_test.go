package main

import (
	"fmt"
	"testing"
	"time"
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
