package kafka

import (
	"testing"
	"time"

	"github.com/ackwise/ackwise/deliver/logsource"
)

// TestAFullPartition: while one is full nothing is read for a moment, then the others alone; while
// all are, nothing is.
func TestAFullPartition(t *testing.T) {
	g, one := bare(t)
	two := g.newPart("t", 1)
	g.admit([]*part{two}, []logsource.Change{{Kind: logsource.Assigned, Partition: two.name}})
	g.told(t, logsource.Assigned)
	g.told(t)
	now := time.Now()
	if pause, _, wait := g.overfull(now); len(pause) > 0 || wait {
		t.Fatal("nothing is full, and it waits")
	}
	g.Pause(one.name, true)
	begin := one.full
	if pause, until, wait := g.overfull(begin); len(pause) > 0 || !wait ||
		!until.Equal(begin.Add(pauseGrace)) {
		t.Errorf("pauses %v, waits %v until %s", pause, wait, until)
	}
	g.Pause(two.name, true)
	if pause, until, wait := g.overfull(begin.Add(time.Hour)); len(pause) > 0 || !wait ||
		!until.IsZero() {
		t.Errorf("all are full: pauses %v, waits %v until %s", pause, wait, until)
	}
	g.Pause(two.name, false)
	pause, _, wait := g.overfull(begin.Add(pauseGrace))
	if wait || len(pause["t"]) != 1 || pause["t"][0] != 0 || !one.paused {
		t.Errorf("pauses %v, waits %v", pause, wait)
	}
	if pause, _, wait = g.overfull(begin.Add(time.Hour)); wait || len(pause) > 0 {
		t.Errorf("the client knows it, and is told again %v, waits %v", pause, wait)
	}
}

// TestALeavingPartitionHoldsNobodyUp: the source pauses a partition that was revoked; the others
// are read all the same.
func TestALeavingPartitionHoldsNobodyUp(t *testing.T) {
	g, one := bare(t)
	two := g.newPart("t", 1)
	g.admit([]*part{two}, []logsource.Change{{Kind: logsource.Assigned, Partition: two.name}})
	g.told(t, logsource.Assigned)
	g.told(t)
	g.leave(map[string][]int32{"t": {0}}, time.Now().Add(time.Minute))
	g.told(t, logsource.Revoked)
	g.Pause(one.name, true) // as the source does
	if _, until, wait := g.overfull(time.Now()); wait {
		t.Errorf("the partition that stays is not read until %s", until)
	}
}
