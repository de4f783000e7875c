package queueorder

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// childEnv names the directory in which a test binary works as a child.
const (
	childEnv = "ACKWISE_ORDER_CHILD"
	fillEnv  = "ACKWISE_ORDER_FILL"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child resequences what is there, tells of its progress, and ends when nothing is left.
func child(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	s, err := queue.Open(dir, queue.Options{})
	if err != nil {
		return err
	}
	batch := 20
	if text := os.Getenv(fillEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err == nil {
			err = fill(ctx, s, n)
		}
		if err != nil {
			return err
		}
		batch = 0
	}
	r, err := Open(ctx, s, Options{Topic: in, Subscription: sub, Out: out, Batch: batch})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(run) }() // ends with run; done says so
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	most := 0
	for left := true; left; {
		select {
		case <-tick.C:
		case err := <-done:
			stop()
			return fmt.Errorf("it ended by itself: %w", err)
		}
		rep := r.Report()
		most = max(most, rep.Held)
		fmt.Println("released", rep.Released)
		books, err := s.Books(ctx)
		if err != nil {
			stop()
			return err
		}
		left = rep.Held > 0
		for _, b := range books {
			left = left || b.Topic != out && b.Waiting() > 0
		}
	}
	stop()
	if err := <-done; err != nil {
		return err
	}
	fmt.Println("most", most)
	return s.Close()
}

// fill publishes n messages of up to 1000 keys, so that every key's first number comes last.
func fill(ctx context.Context, s *queue.Store, n int) error {
	if err := makeTopics(ctx, s); err != nil {
		return err
	}
	keys := min(1000, n/20)
	each := n / keys
	rng := rand.New(rand.NewPCG(5, 5))
	order := rng.Perm(keys * (each - 1))
	body := bytes.Repeat([]byte("x"), 100)
	ms := make([]ackwise.Message, 0, 1000)
	flush := func() error {
		for _, r := range s.Publish(ctx, ms) {
			if r.Class != ackwise.ResultAccepted {
				return r.Err
			}
		}
		ms = ms[:0]
		return nil
	}
	for i := range keys * each {
		k, number := 0, 1
		if i < len(order) {
			k, number = order[i]%keys, 2+order[i]/keys
		} else {
			k = i - len(order)
		}
		m := numbered(fmt.Sprint("k", k), number)
		m.Body = append(m.Body, body...)
		if ms = append(ms, m); len(ms) == cap(ms) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func makeTopics(ctx context.Context, s *queue.Store) error {
	for _, name := range []string{in, out} {
		if err := s.CreateTopic(ctx, name, queue.TopicOptions{}); err != nil {
			return err
		}
	}
	err := s.CreateSubscription(ctx, in, sub, queue.SubscriptionOptions{})
	if err == nil {
		err = s.CreateSubscription(ctx, out, reader, queue.SubscriptionOptions{Ordered: true})
	}
	return err
}

// spawn starts a child and returns its lines.
func spawn(t *testing.T, dir string, env ...string) (*exec.Cmd, *bufio.Scanner, *bytes.Buffer) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+dir)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(stdout), &stderr
}

// wantSorted checks the whole out topic: each key's numbers from 1 on, each once.
func wantSorted(t testing.TB, s *queue.Store, total int) {
	t.Helper()
	next := map[string]uint64{}
	read, err := ordering.NewResequencer(ordering.ResequencerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	after, n := ackwise.Position(""), 0
	for {
		page, err := s.Scan(t.Context(), out, after, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for i := range page {
			a, err := read.Read(&page[i].Message)
			if next[a.Key]++; err != nil || a.Number != next[a.Key] {
				t.Fatalf("message %s has number %d, %v; want %d", page[i].Message.ID, a.Number, err,
					next[a.Key])
			}
			n++
		}
		after = page[len(page)-1].Position
	}
	if n != total {
		t.Errorf("%d messages came out, want %d", n, total)
	}
}

// O1, and the real kill: what a killed resequencer held or had taken comes out in order, once.
func TestKilledResequencerLosesNothing(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	kills := runs(3, 50)
	keys, each := 20, runs(60, 150)
	var ms []ackwise.Message
	for k := range keys {
		for n := 1; n <= each; n++ {
			ms = append(ms, numbered(fmt.Sprint("k", k), n))
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	rng.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	middle, part := 0, len(ms)/(kills+1)
	for i := range kills + 1 {
		s := openStore(t, dir)
		if i == 0 {
			setUpStore(t, s)
		}
		if i == kills {
			part = len(ms)
		}
		publish(t, s, ms[:min(part, len(ms))]...)
		ms = ms[min(part, len(ms)):]
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		cmd, lines, stderr := spawn(t, dir)
		if i == kills {
			finish(t, cmd, lines, stderr)
			break
		}
		for range 1 + rng.IntN(8) {
			lines.Scan() // progress
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		if working(t, dir) {
			middle++
		}
	}
	if middle == 0 {
		t.Errorf("none of %d kills hit a resequencer at work", kills)
	}
	s := openStore(t, dir)
	wantSorted(t, s, keys*each)
	verify(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// finish waits until a child has done everything.
func finish(t *testing.T, cmd *exec.Cmd, lines *bufio.Scanner, stderr *bytes.Buffer) {
	t.Helper()
	for lines.Scan() { // until its output ends
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the last child: %v\n%s", err, stderr)
	}
}

// working reports whether a killed child had something under way.
func working(t *testing.T, dir string) bool {
	t.Helper()
	s := openStore(t, dir)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	books, err := s.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	left := false
	for _, b := range books {
		left = left || b.Topic != out && b.Waiting() > 0
	}
	return left
}

// TestMemoryOfManyHeld holds a million messages, or in the sample 20,000, and looks at the most
// memory that the process ever had.
func TestMemoryOfManyHeld(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the process's peak memory is read from /proc")
	}
	n := runs(10_000, 1_001_000)
	dir := filepath.Join(t.TempDir(), "store")
	cmd, lines, stderr := spawn(t, dir, fmt.Sprint(fillEnv, "=", n))
	peak := 0
	for lines.Scan() {
		peak = max(peak, peakMiB(t, cmd.Process.Pid))
		if text, ok := strings.CutPrefix(lines.Text(), "most "); ok && text != "" {
			most, err := strconv.Atoi(text)
			if keys := min(1000, n/20); err != nil || most < n-3*keys {
				t.Errorf("at most %s messages were held, of %d", text, n)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the child: %v\n%s", err, stderr)
	}
	t.Logf("%d messages held, peak %d MiB", n, peak)
	if peak == 0 || peak > 256 {
		t.Errorf("%d messages took %d MiB, at most 256 are allowed", n, peak)
	}
	s := openStore(t, dir)
	wantSorted(t, s, n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// peakMiB reads VmHWM of a process; 0 = it has ended.
func peakMiB(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")))
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	return 0
}
