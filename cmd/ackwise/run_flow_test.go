package main

import (
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
)

type featuredSource struct {
	ackwise.Source
	f ackwise.Features
}

func (s featuredSource) Features() ackwise.Features { return s.f }

type featuredSink struct {
	ackwise.Sink
	f ackwise.SinkFeatures
}

func (s featuredSink) Features() ackwise.SinkFeatures { return s.f }

// TestBatchesAreLargeFromALogToALog shows where a relay takes many messages at once by itself.
func TestBatchesAreLargeFromALogToALog(t *testing.T) {
	log, topic := ackwise.Features{KeyRuns: true}, ackwise.SinkFeatures{KeyRunSafe: true}
	for _, c := range []struct {
		name string
		to   string
		o    deliver.Options
		in   ackwise.Features
		out  ackwise.SinkFeatures
		want int // 0 = the loop's own default
	}{
		{"log to log", "x", deliver.Options{}, log, topic, largeBatch},
		{"a handler", "", deliver.Options{}, log, topic, 0},
		{"a size of its own", "x", deliver.Options{BatchSize: 7}, log, topic, 7},
		{"several calls at once", "x", deliver.Options{Concurrency: 2}, log, topic, 0},
		{"leases", "x", deliver.Options{}, ackwise.Features{Lease: time.Second}, topic, 0},
		{"small batches", "x", deliver.Options{}, log,
			ackwise.SinkFeatures{KeyRunSafe: true, MaxBatch: 10}, 0},
		{"one of a key", "x", deliver.Options{}, log, ackwise.SinkFeatures{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &flow{cfg: &pipelineConfig{To: c.to, Options: c.o}, r: &runner{},
				in:  &inlet{source: featuredSource{f: c.in}},
				out: outlet{sink: featuredSink{f: c.out}}}
			if got := f.options(); got.BatchSize != c.want {
				t.Errorf("batches of %d, want %d", got.BatchSize, c.want)
			}
		})
	}
}
