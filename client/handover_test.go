package client_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/queue"
)

var (
	seed  = flag.Uint64("seed", 1, "seed of the random choices")
	kills = flag.Int("kills", 20, "how many processes TestKilledOwners kills")
)

// setUp makes the topic and the ordered subscription in a new directory.
func setUp(t *testing.T, dir string) {
	t.Helper()
	c, err := client.Open(t.Context(), dir, owning())
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(c.CreateTopic(t.Context(), topic, queue.TopicOptions{}),
		c.CreateSubscription(t.Context(), topic, sub, queue.SubscriptionOptions{Ordered: true}),
		c.Close())
	if err != nil {
		t.Fatal(err)
	}
}

// TestKilledOwners kills the owner, or another process, with SIGKILL at random moments under load.
// The oracle is what the processes said: no accepted message is lost, no acked one comes back, the
// messages of a key are first handed out in the order of its publishes.
func TestKilledOwners(t *testing.T) {
	t.Logf("repeat with: go test ./client -run TestKilledOwners -seed %d", *seed)
	dir := t.TempDir()
	setUp(t, dir)
	rng := rand.New(rand.NewPCG(*seed, 0))
	rec := newRecord()
	roles := []string{"publish", "publish", "consume", "consume"}
	var children []*child
	started := 0
	start := func(role string) *child {
		started++
		return rec.start(t, role, dir, fmt.Sprintf("p%d", started))
	}
	for _, role := range roles {
		children = append(children, start(role))
	}
	owners := 0
	for range *kills {
		acked, _ := rec.count("acked")
		rec.wait(t, "acked", acked+50+rng.IntN(200))
		i := rng.IntN(len(children))
		if rng.IntN(3) > 0 {
			i = max(0, ownerAmong(t, dir, children))
		}
		if i == ownerAmong(t, dir, children) {
			owners++
		}
		children[i].signal(syscall.SIGKILL)
		children[i] = start(children[i].role)
	}
	if owners < *kills/3 {
		t.Errorf("only %d of %d kills hit the owner", owners, *kills)
	}
	acked, _ := rec.count("acked")
	rec.wait(t, "acked", acked+50)
	for _, k := range children[:2] { // the publishers, so that the consumers finish
		k.leave(t)
	}
	drain(t, dir)
	for _, k := range children[2:] {
		k.leave(t)
	}
	judge(t, dir, rec)
	t.Logf("%d kills, %d of owners", *kills, owners)
}

// ownerAmong returns which child owns the directory; -1 = none at this moment.
func ownerAmong(t *testing.T, dir string, children []*child) int {
	t.Helper()
	info, err := lockfile.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return slices.IndexFunc(children, func(k *child) bool { return k.cmd.Process.Pid == info.PID })
}

// drain waits until nothing is left to hand out.
func drain(t *testing.T, dir string) {
	t.Helper()
	c := open(t, dir, client.Options{})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	for {
		all, err := c.Books(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if all[0].Waiting() == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not drained: %+v", all[0])
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// judge compares what the processes said with each other, and the books with it.
func judge(t *testing.T, dir string, rec *record) {
	t.Helper()
	lines := slices.Clone(rec.lines)
	slices.SortStableFunc(lines, func(a, b said) int { return cmp.Compare(a.at, b.at) })
	published, got, ackedAt := map[string]bool{}, map[string]int{}, map[string]int64{}
	last := map[string]int{}
	causes := map[string]int{}
	for _, s := range lines {
		id, cause, _ := strings.Cut(s.rest, " ")
		switch s.what {
		case "published":
			published[id] = true
		case "got":
			if got[id]++; got[id] == 1 {
				key, number, _ := strings.Cut(id, "/")
				n, err := strconv.Atoi(number)
				if before, ok := last[key]; err != nil || ok && n <= before {
					t.Errorf("key %s: %d was handed out after %d", key, n, before)
				}
				last[key] = n
			}
			causes[cause]++
			if at, ok := ackedAt[id]; ok {
				t.Errorf("%s came back %s after its ack (%s)", id, time.Duration(s.at-at), cause)
			}
		case "acked":
			if _, ok := ackedAt[id]; ok {
				t.Errorf("%s was acked twice", id)
			}
			ackedAt[id] = s.at
		}
	}
	lost := 0
	for id := range published {
		if got[id] == 0 {
			lost++
			t.Errorf("%s was accepted and never delivered", id)
		}
	}
	c := open(t, dir, owning())
	all, err := c.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := all[0]
	if !k.Balanced() || k.Acked != k.Accepted || k.Accepted != int64(len(got)) ||
		int(k.Accepted) < len(published) || int(k.Acked) < len(ackedAt) {
		t.Errorf("books %+v; %d published, %d got, %d acked", k, len(published), len(got),
			len(ackedAt))
	}
	report, err := c.Verify(t.Context())
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("verify: %v, %q", err, report.Findings)
	}
	t.Logf("published %d, acked %d, lost %d, causes %v, the engine's %v", len(published),
		len(ackedAt), lost, causes, k.Causes)
}

// TestALeaseOutlivesTheOwner: a consumer keeps its leases when the owner is killed, also what was
// handed to it just before, and what had not reached it is handed out again.
func TestALeaseOutlivesTheOwner(t *testing.T) {
	dir := t.TempDir()
	setUp(t, dir)
	rec := newRecord()
	owner := rec.start(t, "idle", dir, "")
	rec.wait(t, "ready", 1)
	c := open(t, dir, owning())
	if c.Owner() {
		t.Fatal("the child was to own the directory")
	}
	publish(t, c, "a/1", "b/1", "c/1")
	r, err := c.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := r.Receive(t.Context(), 2)
	if err != nil || len(ds) != 2 {
		t.Fatalf("received %d, %v", len(ds), err)
	}
	waiting := make(chan []*ackwise.Delivery, 1)
	last, err := r.Receive(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends when the redelivery below arrives
		ds, _ := r.Receive(t.Context(), 10) // waits across the hand-over
		waiting <- ds
	}()
	owner.signal(syscall.SIGKILL)
	for _, res := range r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token},
		{Token: ds[1].Token}}) {
		if res.Err != nil || res.Already {
			t.Errorf("an ack across the hand-over: %+v", res)
		}
	}
	if !c.Owner() {
		t.Error("the client did not take over")
	}
	res := r.Settle(t.Context(), []ackwise.Settlement{{Token: last[0].Token,
		Outcome: ackwise.OutcomeNack}})
	if res[0].Err != nil {
		t.Errorf("a nack across the hand-over: %v", res[0].Err)
	}
	if ds := <-waiting; len(ds) != 1 || ds[0].ID != last[0].ID || ds[0].Cause != ackwise.CauseFailed {
		t.Errorf("the waiting Receive got %v", ds)
	}
}

// TestADeadConsumerIsLostAtOnce: while the owner lives, a killed consumer's messages are handed out
// again as consumer-lost; when the owner's own process was the consumer, as restarted.
func TestADeadConsumerIsLostAtOnce(t *testing.T) {
	for _, c := range []struct {
		name  string
		first string // who owns the directory
		want  ackwise.Cause
	}{
		{"the owner lives", "idle", ackwise.CauseConsumerLost},
		{"the consumer was the owner", "hold", ackwise.CauseRestarted},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			setUp(t, dir)
			rec := newRecord()
			first := rec.start(t, c.first, dir, "")
			rec.wait(t, "ready", 1)
			holder := first
			if c.first != "hold" {
				holder = rec.start(t, "hold", dir, "")
				rec.wait(t, "ready", 2)
			}
			here := open(t, dir, owning())
			publish(t, here, "a/1")
			rec.wait(t, "got", 1)
			r, err := here.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			holder.signal(syscall.SIGKILL)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			ds, err := r.Receive(ctx, 1)
			if err != nil || ds[0].Cause != c.want || ds[0].Counts.Crashes != 1 {
				t.Fatalf("received %+v, %v; want cause %s and one crash", ds, err, c.want)
			}
		})
	}
}

// TestAnOwnerThatLeavesHandsOver: an owner that closes in good order leaves the others' sessions
// and calls alone.
func TestAnOwnerThatLeavesHandsOver(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir, owning()), open(t, dir, owning())
	if err := errors.Join(first.CreateTopic(t.Context(), topic, queue.TopicOptions{}),
		first.CreateSubscription(t.Context(), topic, sub, queue.SubscriptionOptions{}),
	); err != nil {
		t.Fatal(err)
	}
	r, err := second.Receiver(t.Context(), topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, second, "a")
	ds, err := r.Receive(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 200
	failed := make(chan error, calls)
	go func() { // ends after its calls
		defer close(failed)
		for i := range calls {
			for _, res := range second.Publish(t.Context(), []ackwise.Message{
				{ID: fmt.Sprint("m", i), Topic: topic}}) {
				if res.Err != nil {
					failed <- res.Err
				}
			}
		}
	}()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	for err := range failed {
		t.Errorf("a call during the hand-over: %v", err)
	}
	res := r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token}})
	if res[0].Err != nil || !second.Owner() {
		t.Errorf("ack at the next owner: %+v; own it: %t", res[0], second.Owner())
	}
	all, err := second.Books(t.Context())
	if err != nil || all[0].Accepted != calls+1 || all[0].Acked != 1 || all[0].Ready != calls {
		t.Errorf("books %+v, %v", all, err)
	}
}

func publish(t *testing.T, c *client.Client, names ...string) {
	t.Helper()
	for _, n := range names {
		key, _, _ := strings.Cut(n, "/")
		for _, r := range c.Publish(t.Context(), []ackwise.Message{
			{ID: n, Topic: topic, Key: key, Body: []byte(n)}}) {
			if r.Class != ackwise.ResultAccepted {
				t.Fatalf("publish %s: %+v", n, r)
			}
		}
	}
}
