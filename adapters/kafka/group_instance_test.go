package kafka_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
)

// final receives until the source says that it has failed for good, and returns how many messages
// came before.
func final(t *testing.T, s ackwise.Source) (n int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		ds, err := s.Receive(ctx, 1)
		if f, ok := errors.AsType[interface {
			error
			Final() bool
		}](err); ok && f.Final() {
			return n, err
		}
		if ctx.Err() != nil {
			t.Fatalf("%v; want an error for good", err)
		}
		n += len(ds)
	}
}

// next receives one message. A start that waits for its instance says so, and goes on.
func next(t *testing.T, s ackwise.Source) *ackwise.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		ds, err := s.Receive(ctx, 1)
		if len(ds) > 0 {
			return ds[0]
		}
		if ctx.Err() != nil || err != nil && !strings.Contains(err.Error(), "instance=") {
			t.Fatal(err)
		}
	}
}

// Two consumers of one instance: one of them ends, and says why. The classic protocol ends the
// older one, as if it had crashed, KIP-848 the newer one.
func testInstanceTwice(t *testing.T, p *place) {
	p.put(t, 0, 0, 2)
	url := p.url("&instance=one&session-timeout=3s")
	older := open(t, url)
	d := receive(t, older, 1)[0]
	newer := open(t, url)
	out, stays, why := older, newer, "put this consumer out"
	if p.protocol == "consumer" {
		out, stays, why = newer, older, "kept this consumer out"
	}
	n, err := final(t, out)
	if out == newer && n > 0 {
		t.Errorf("%d messages came to the one that is kept out", n)
	}
	for _, part := range []string{why, "g-" + p.topic, "instance=one", "INSTANCE_ID",
		"give each process an instance of its own"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %q", err, part)
		}
	}
	if err := out.Close(); err != nil {
		t.Errorf("close the one that is out: %v", err)
	}
	if stays == newer {
		select {
		case <-d.Lost():
		case <-late(t):
			t.Error("what the older one had is not lost")
		}
		d = receive(t, newer, 1)[0]
	}
	ack(t, stays, d)
	ack(t, stays, receive(t, stays, 1)...)
	if d.ID != "m0" {
		t.Errorf("%s came first", d.ID)
	}
}

// A member that crashed comes back under its instance, however long the group takes it for alive.
func testInstanceCrash(t *testing.T, p *place) {
	p.put(t, 0, 0, 1)
	url := p.url("&instance=one&session-timeout=20s")
	for crashes := range 3 {
		s := open(t, url)
		d := next(t, s)
		if d.ID != "m0" || d.Counts.Crashes != crashes {
			t.Errorf("%s came, %d crashes, want %d", d.ID, d.Counts.Crashes, crashes)
		}
		kafka.Kill(s)
	}
}

// Members with instances restart, the group's leader too: each has its partition again, and the
// other one notices nothing.
func testInstanceRestart(t *testing.T, p *place) {
	p.put(t, 0, 0, 20)
	p.put(t, 1, 20, 20)
	url := func(name string) string { return p.url("&session-timeout=20s&instance=" + name) }
	has := map[string]ackwise.Source{"one": open(t, url("one"))}
	first := receive(t, has["one"], 1)
	has["two"] = open(t, url("two"))
	at := map[string]string{} // instance → its partition
	ack(t, has["one"], first...)
	for _, name := range []string{"two", "one"} { // two has one only when the group has settled
		d := receive(t, has[name], 1)[0]
		ack(t, has[name], d)
		at[name] = d.Partition
	}
	for at["one"] == at["two"] {
		d := receive(t, has["one"], 1)[0]
		ack(t, has["one"], d)
		at["one"] = d.Partition
	}
	for again, other := range map[string]string{"one": "two", "two": "one"} {
		witness := receive(t, has[other], 1)[0]
		generation := kafka.GenerationOf(has[other])
		began := time.Now()
		if err := has[again].Close(); err != nil {
			t.Fatal(err)
		}
		has[again] = open(t, url(again))
		d := receive(t, has[again], 1)[0]
		t.Logf("%s is back after %s", again, time.Since(began))
		if d.Partition != at[again] {
			t.Errorf("%s had %s and has %s now", again, at[again], d.Partition)
		}
		ack(t, has[again], d)
		select {
		case <-witness.Revoked():
			t.Errorf("%s was asked for what it has when %s restarted", other, again)
		default:
		}
		ack(t, has[other], witness)
		if p.fake != nil && p.protocol == "classic" {
			continue // it rebalances where a member has other data, Kafka only for another protocol
		}
		if now := kafka.GenerationOf(has[other]); now != generation {
			t.Errorf("the group's generation was %d and is %d now", generation, now)
		}
	}
}
