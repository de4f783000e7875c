package queueorder

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// patience bounds every wait for something that has to happen.
const patience = 60 * time.Second

func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

func runs(sample, all int) int {
	if long() {
		return all
	}
	return sample
}

// Names that the tests use.
const (
	in, sub, out, reader = "flights", "sort", "sorted", "reader"
)

func openStore(t testing.TB, dir string) *queue.Store {
	t.Helper()
	s, err := queue.Open(dir, queue.Options{SegmentBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// setUpStore makes the topics around a resequencer.
func setUpStore(t testing.TB, s *queue.Store) {
	t.Helper()
	if err := makeTopics(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// numbered makes a message of a key with its number.
func numbered(key string, n int) ackwise.Message {
	return ackwise.Message{Topic: in, ID: fmt.Sprintf("%s-%d", key, n), Key: key,
		Body: fmt.Appendf(nil, "%s/%d", key, n), Headers: []ackwise.Header{
			{Name: ackwise.HeaderSequence, Value: strconv.AppendInt(nil, int64(n), 10)}}}
}

func publish(t testing.TB, s *queue.Store, ms ...ackwise.Message) {
	t.Helper()
	for part := range slices.Chunk(ms, 1000) {
		for _, r := range s.Publish(t.Context(), part) {
			if r.Class != ackwise.ResultAccepted {
				t.Fatal(r.Err)
			}
		}
	}
}

// running is a resequencer at work.
type running struct {
	*Resequencer
	stop context.CancelFunc
	done chan error
}

func start(t testing.TB, s Store, o Options) *running {
	t.Helper()
	o.Topic, o.Subscription, o.Out = in, sub, out
	r, err := Open(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	run := &running{Resequencer: r, stop: stop, done: make(chan error, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { run.done <- r.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	return run
}

func (r *running) end(t testing.TB) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// receive takes n messages from the out topic, acks them, and returns what each key got.
func receive(t testing.TB, s *queue.Store, n int) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := s.Receiver(ctx, out, reader, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for n > 0 {
		ds, err := r.Receive(ctx, min(n, 500))
		if err != nil {
			t.Fatalf("%d messages are missing: %v", n, err)
		}
		var ss []ackwise.Settlement
		for _, d := range ds {
			text := string(d.Body)
			if _, late := d.Header(ordering.HeaderLate); late {
				text += " late"
			}
			got[d.Key] = append(got[d.Key], text)
			ss = append(ss, *ack(d))
			n--
		}
		for _, res := range r.Settle(ctx, ss) {
			if res.Err != nil {
				t.Fatal(res.Err)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return got
}

// wantNothing checks that nothing is left anywhere.
func wantNothing(t testing.TB, s *queue.Store) {
	t.Helper()
	eventually(t, func() string {
		books, err := s.Books(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range books {
			if b.Waiting()+b.Parked+b.Dead != 0 {
				return fmt.Sprintf("%s/%s still has %+v", b.Topic, b.Subscription, b)
			}
		}
		return ""
	})
}

// eventually asks until the answer is "".
func eventually(t testing.TB, ask func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		answer := ask()
		if answer == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(answer)
		}
	}
}

func wantKey(t testing.TB, got map[string][]string, key string, want ...string) {
	t.Helper()
	if !slices.Equal(got[key], want) {
		t.Errorf("key %s came out as %.300s, want %.300s", key, strings.Join(got[key], " "),
			strings.Join(want, " "))
	}
}

func numbers(key string, to int) (want []string) {
	for n := 1; n <= to; n++ {
		want = append(want, fmt.Sprintf("%s/%d", key, n))
	}
	return want
}

// TestShuffledMessagesComeOutInOrder goes through a store and a restart in good order.
func TestShuffledMessagesComeOutInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	setUpStore(t, s)
	const keys, each = 7, 300
	var ms []ackwise.Message
	for k := range keys {
		for n := 1; n <= each; n++ {
			ms = append(ms, numbered(fmt.Sprint("k", k), n))
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	half := len(ms) / 2
	publish(t, s, ms[:half]...)
	r := start(t, s, Options{Batch: 50})
	eventually(t, func() string { return waitingIn(t, s, in, sub) })
	r.end(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	r = start(t, s, Options{})
	publish(t, s, ms[half:]...)
	got := receive(t, s, len(ms))
	for k := range keys {
		key := fmt.Sprint("k", k)
		wantKey(t, got, key, numbers(key, each)...)
	}
	wantNothing(t, s)
	if rep := r.Report(); rep.Held != 0 || rep.Keys != 0 {
		t.Errorf("report %+v", rep)
	}
	r.end(t)
	verify(t, s)
}

func waitingIn(t testing.TB, s *queue.Store, topic, name string) string {
	t.Helper()
	subs, err := s.Subscriptions(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range subs {
		if x.Name == name && x.Books.Waiting() > 0 {
			return fmt.Sprintf("%d messages wait in %s/%s", x.Books.Waiting(), topic, name)
		}
	}
	return ""
}

func verify(t testing.TB, s *queue.Store) {
	t.Helper()
	report, err := s.Verify(t.Context())
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("verify: %v, %v", report.Findings, err)
	}
	books, err := s.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range books {
		if !b.Balanced() {
			t.Errorf("books of %s/%s do not balance: %+v", b.Topic, b.Subscription, b)
		}
	}
}
