package kafka

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise/deliver/logsource"
)

// TestWhatEndsAHold: a poll that waits because all partitions are full waits no longer once there
// is something to do or to tell.
func TestWhatEndsAHold(t *testing.T) {
	first := map[string][]int32{"t": {0}}
	for name, end := range map[string]func(g *group){
		"room":    func(g *group) { g.Pause("t/0", false) },
		"revoked": func(g *group) { g.leave(first, time.Now()) },
		"dropped": func(g *group) { g.drop(first, true) },
		"admission": func(g *group) {
			if g.enter(t.Context()) == nil {
				g.exit()
			}
		},
		"failed": func(g *group) { g.fail(errors.New("it is over")) },
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := bare(t)
			g.gate = make(chan struct{}, 1)
			cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			g.cl = cl
			two := g.newPart("t", 1)
			g.admit([]*part{two}, []logsource.Change{{Kind: logsource.Assigned, Partition: two.name}})
			g.told(t, logsource.Assigned)
			g.told(t)
			g.Pause("t/0", true)
			g.Pause("t/1", true)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			over := make(chan struct{})
			go func() {
				defer close(over)
				g.gate <- struct{}{}
				defer func() { <-g.gate }()
				if !g.mayPoll(cancel) {
					t.Error("it may not poll")
				}
				if !g.hold(ctx) {
					t.Error("it did not wait")
				}
			}()
			bound := time.NewTimer(time.Minute)
			defer bound.Stop()
			look := time.NewTicker(time.Millisecond)
			defer look.Stop()
			for held := false; !held; {
				select {
				case <-look.C:
				case <-bound.C:
					t.Fatal("it does not wait")
				}
				g.mu.Lock()
				held = g.held
				g.mu.Unlock()
			}
			end(g)
			select {
			case <-over:
			case <-bound.C:
				t.Fatal("it waits on")
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if g.held {
				t.Error("it is noted as waiting still: every resume ends a poll from now on")
			}
		})
	}
}

// TestPlacesOfNeighbours: a place names its own partition, whatever came before it.
func TestPlacesOfNeighbours(t *testing.T) {
	var p places
	for _, r := range []kgo.Record{{Topic: "a", Partition: 1, Offset: 7},
		{Topic: "a", Partition: 1, Offset: 12}, {Topic: "a", Partition: 2, Offset: 8},
		{Topic: "b", Partition: 2, Offset: 9}, {Topic: "a", Partition: 1, Offset: 13}} {
		want := partitionName(r.Topic, r.Partition) + "/" + string(position(r.Offset))
		if got := p.of(&r); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestAPauseEndsWithItsReason: the client fetches a partition again once there is room, and when it
// comes anew after it was taken away.
func TestAPauseEndsWithItsReason(t *testing.T) {
	for name, end := range map[string]func(g *group){
		"room": func(g *group) { g.Pause("t/0", false) },
		"gone": func(g *group) { g.drop(map[string][]int32{"t": {0}}, false) },
	} {
		g, _ := bare(t)
		cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		g.cl = cl
		g.admit([]*part{g.newPart("t", 1)}, nil)
		g.Pause("t/0", true)
		_, wait := g.tellFull(time.Now().Add(time.Hour))
		if wait || len(cl.PauseFetchPartitions(nil)["t"]) != 1 {
			t.Fatalf("%s: paused %v", name, cl.PauseFetchPartitions(nil))
		}
		end(g)
		if left := cl.PauseFetchPartitions(nil); len(left["t"]) > 0 {
			t.Errorf("%s: still paused: %v", name, left)
		}
	}
}
