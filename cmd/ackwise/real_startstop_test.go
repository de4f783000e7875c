package main

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/test/servers"
)

// TestRealScaleStartsAndStops measures how long an idle pipeline takes to be ready and to be gone.
// The figures are for reading; what is checked is only that it does both.
func TestRealScaleStartsAndStops(t *testing.T) {
	topic := fmt.Sprintf("kafka://%s/idle_%d", servers.Address(t, "ACKWISE_TEST_KAFKA"),
		time.Now().UnixNano())
	o, err := kafka.ParseSink(topic + "?create=true&partitions=12")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := kafka.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, binary: buildCommand(t), cfg: scaleConfig{Dir: t.TempDir()},
		file: writeFile(t, "idle.yaml", pipelineOf("from: "+topic+"?group=idle", "exec: \"true\"",
			"no_dead_letters: true"))}
	var starts, stops []time.Duration
	for i := range 7 {
		began := time.Now()
		m := f.add(fmt.Sprintf("idle%d", i))
		f.wait("it is ready", func() bool {
			code, _, err := m.get("/readyz")
			return err == nil && code == http.StatusOK
		})
		starts = append(starts, time.Since(began).Round(time.Millisecond))
		stops = append(stops, m.stop().Round(time.Millisecond))
	}
	slices.Sort(starts)
	slices.Sort(stops)
	t.Logf("an idle pipeline of 12 partitions: ready %s after its start (%s to %s), gone %s after "+
		"SIGTERM (%s to %s); %d runs", starts[3], starts[0], starts[6], stops[3], stops[0], stops[6],
		len(starts))
	if starts[3] > 20*time.Second || stops[3] > 20*time.Second {
		t.Error("that is too long, on any machine")
	}
}
