package queue_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queueorder"
)

// resequencing plays a resequencer on a disk that loses its power again and again. What it took,
// held and let go is one atomic record, so that its out topic is in order whatever the disk lost.
type resequencing struct {
	t    *testing.T
	rng  *rand.Rand
	disk *vfs.Mem
	todo []ackwise.Message // not accepted yet
	all  int
}

const resequencedKeys = 4

func (r *resequencing) open(fs vfs.FS) (*queue.Store, error) {
	return queue.OpenOn(fs, "/store", queue.Options{SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16})
}

// life opens the store, publishes and resequences until the disk fails, then cuts the power. It
// reports whether something was under way.
func (r *resequencing) life(n int) (fired bool) {
	r.t.Helper()
	faults := vfs.NewFaults(r.disk)
	fault := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: n, Onward: true, Err: syscall.EIO,
		Short: r.rng.IntN(600)}
	faults.Set(fault)
	if s, err := r.open(faults); err == nil {
		r.work(s, false)
		_ = s.Close() // the disk is gone
	}
	r.disk = r.disk.CrashClone(r.rng)
	return faults.Fired(fault) > 0
}

// work resequences until the store stops, or with all, until everything is out.
func (r *resequencing) work(s *queue.Store, all bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	q, err := queueorder.Open(ctx, s, queueorder.Options{Topic: "in", Subscription: "sort",
		Out: "out", Batch: 1 + r.rng.IntN(20)})
	if err != nil {
		return
	}
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { done <- q.Run(run) }() // ends with run, or with the store
	defer func() {
		stop()
		if err := <-done; err != nil && s.Err() == nil {
			r.t.Errorf("the resequencer ended with %v on a store that works", err)
		}
	}()
	for len(r.todo) > 0 {
		k := min(len(r.todo), 1+r.rng.IntN(10))
		if !all && r.rng.IntN(3) == 0 {
			break
		}
		for i, res := range s.Publish(ctx, r.todo[:k]) {
			if res.Class != ackwise.ResultAccepted {
				r.todo = r.todo[i:]
				return
			}
		}
		r.todo = r.todo[k:]
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		subs, err := s.Subscriptions(ctx, "in")
		if err != nil {
			return
		}
		report := q.Report()
		if len(done) > 0 || report.Held == 0 && subs[0].Books.Waiting() == 0 ||
			!all && subs[0].Books.Waiting() == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Errorf("it does not come to an end: %+v, the oldest gap is %v; %+v", report,
				report.Oldest, subs[0].Books)
			return
		}
	}
}

// check reads the whole out topic: each key's numbers from 1 on, each once.
func (r *resequencing) check(s *queue.Store, all bool) {
	r.t.Helper()
	next := map[string]int{}
	page, err := s.Scan(r.t.Context(), "out", "", 4000)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range page {
		m := &page[i].Message
		next[m.Key]++
		text, _ := m.Header(ackwise.HeaderSequence)
		if string(text) != strconv.Itoa(next[m.Key]) {
			r.t.Fatalf("%s comes as the %d. of its key", m.ID, next[m.Key])
		}
	}
	if all && len(page) != r.all {
		r.t.Errorf("%d messages came out, want %d", len(page), r.all)
	}
}

// TestResequencerSurvivesPowerCuts kills the disk at random calls, several times in a row.
func TestResequencerSurvivesPowerCuts(t *testing.T) {
	runs := 6
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		runs = 400
	}
	fired := 0
	for seed := range uint64(runs) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := &resequencing{t: t, rng: rand.New(rand.NewPCG(seed, 77)), disk: vfs.NewMem()}
			r.prepare()
			for range 5 {
				if r.life(1 + r.rng.IntN(60)) {
					fired++
				}
				s, err := r.open(r.disk)
				if err != nil {
					t.Fatal(err)
				}
				r.check(s, false)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s, err := r.open(r.disk)
			if err != nil {
				t.Fatal(err)
			}
			r.work(s, true)
			r.check(s, true)
			if report, err := s.Verify(t.Context()); err != nil || len(report.Findings) > 0 {
				t.Errorf("verify: %v, %v", report.Findings, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	if fired < runs {
		t.Errorf("the disk failed %d times only", fired)
	}
}

// prepare makes the topics, and the messages in a random order, some of them twice.
func (r *resequencing) prepare() {
	r.t.Helper()
	ctx := r.t.Context()
	s, err := r.open(r.disk)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, topic := range []string{"in", "out"} {
		o := queue.TopicOptions{DedupWindow: queue.NoDedup} // a repeat goes through to the sorter
		if topic == "out" {
			o = queue.TopicOptions{}
		}
		if err := s.CreateTopic(ctx, topic, o); err != nil {
			r.t.Fatal(err)
		}
		if err := s.CreateSubscription(ctx, topic, "sort", queue.SubscriptionOptions{}); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		r.t.Fatal(err)
	}
	for k := range resequencedKeys {
		for n := 1; n <= 30; n++ {
			m := ackwise.Message{Topic: "in", Key: fmt.Sprint("k", k), ID: fmt.Sprintf("k%d-%d", k, n),
				Body: fmt.Appendf(nil, "%d", n), Headers: []ackwise.Header{
					{Name: ackwise.HeaderSequence, Value: strconv.AppendInt(nil, int64(n), 10)}}}
			r.all++
			for range 1 + r.rng.IntN(5)/4 {
				r.todo = append(r.todo, m)
			}
		}
	}
	r.rng.Shuffle(len(r.todo), func(i, j int) { r.todo[i], r.todo[j] = r.todo[j], r.todo[i] })
}
