package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// cutter stands between clients and a server, and cuts connections: before a request is passed on,
// or somewhere in its answer. Streams are left alone, since their end means something.
type cutter struct {
	ln      net.Listener
	to      string
	running sync.WaitGroup

	mu               sync.Mutex // guards the fields below
	rng              *rand.Rand
	requests, answer int // cuts before a request was passed on, and within its answer
	off              bool
}

// serveCut is server.Local behind a cutter.
func serveCut(dir string, x *cutter) func(*queue.Store) (io.Closer, error) {
	return func(s *queue.Store) (io.Closer, error) {
		l, err := server.Local(s)
		if err != nil {
			return nil, err
		}
		x.to = filepath.Join(dir, "socket")
		path := filepath.Join(dir, "cut")
		if x.ln, err = net.Listen("unix", path); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		x.running.Go(x.accept) // ends with Close
		return closers{x.ln, l, waiter{&x.running}}, lockfile.Announce(dir, path)
	}
}

type closers []io.Closer

func (cs closers) Close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

type waiter struct{ *sync.WaitGroup }

func (w waiter) Close() error { w.Wait(); return nil }

func (x *cutter) accept() {
	for {
		c, err := x.ln.Accept()
		if err != nil {
			return
		}
		x.running.Go(func() { x.relay(c) }) // ends with either side
	}
}

// relay passes bytes on until a side closes or the connection is cut.
func (x *cutter) relay(c net.Conn) {
	defer c.Close()
	s, err := net.Dial("unix", x.to)
	if err != nil {
		return
	}
	defer s.Close()
	var stream bool
	var mu sync.Mutex     // guards stream
	x.running.Go(func() { // ends with either side
		x.pass(s, c, func(b []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			stream = stream || bytes.Contains(b, []byte("/v1/receivers ")) ||
				bytes.Contains(b, []byte("/v1/owner "))
			return !stream && x.cut(&x.requests)
		})
		_ = s.Close()
		_ = c.Close()
	})
	x.pass(c, s, func([]byte) bool {
		mu.Lock()
		defer mu.Unlock()
		return !stream && x.cut(&x.answer)
	})
}

// pass copies until it fails; where cut says so, only a part of what it has.
func (x *cutter) pass(to, from net.Conn, cut func([]byte) bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if cut(b[:n]) {
			x.mu.Lock()
			n = x.rng.IntN(n)
			x.mu.Unlock()
			_, _ = to.Write(b[:n])
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// cut decides, and counts.
func (x *cutter) cut(count *int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.off || x.rng.IntN(20) > 0 {
		return false
	}
	*count++
	return true
}

// TestCutConnections: whatever call a broken connection hits, it is sent again and takes effect
// once, and no delivery is stranded: leases are an hour long, so that one that was would stay.
func TestCutConnections(t *testing.T) {
	t.Logf("repeat with: go test ./client -run TestCutConnections -seed %d", *seed)
	dir := t.TempDir()
	x := &cutter{rng: rand.New(rand.NewPCG(*seed, 1))}
	o := owning()
	o.Serve = serveCut(dir, x)
	c := open(t, dir, o)
	err := errors.Join(ignoreExists(c.CreateTopic(t.Context(), topic, queue.TopicOptions{})),
		ignoreExists(c.CreateSubscription(t.Context(), topic, sub,
			queue.SubscriptionOptions{Ordered: true, Lease: time.Hour})))
	if err != nil {
		t.Fatal(err)
	}
	const batches, size = 300, 5
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { // ends with its batches
		for i := range batches {
			ms := make([]ackwise.Message, size)
			for j := range ms {
				ms[j] = ackwise.Message{Topic: topic, Key: fmt.Sprint("k", i%3),
					Body: fmt.Appendf(nil, "%d", i*size+j)}
			}
			for _, r := range c.Publish(ctx, ms) {
				if r.Class != ackwise.ResultAccepted || r.Duplicate {
					t.Errorf("publish: %+v", r)
				}
			}
			e, err := c.Get(ctx, "t", "n")
			if err == nil {
				_, err = c.Commit(ctx, queue.Commit{
					Reads: []queue.TableRead{{Table: "t", Key: "n", Version: e.Version}},
					Writes: []queue.TableWrite{
						{Table: "t", Key: "n", Value: fmt.Appendf(e.Value, "%d,", i)}}})
			}
			if err != nil {
				t.Errorf("commit %d: %v", i, err)
			}
		}
	})
	seen := consumeAll(ctx, t, c, batches*size)
	if len(seen) != batches*size {
		t.Errorf("%d of %d were delivered", len(seen), batches*size)
	}
	wg.Wait()
	x.mu.Lock()
	x.off = true
	x.mu.Unlock()
	all, err := c.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if k := all[0]; k.Accepted != batches*size || k.Acked != k.Accepted || k.InFlight != 0 ||
		k.Causes[ackwise.CauseReleased] == 0 {
		t.Errorf("books %+v; want all accepted once, all acked, and some given back", k)
	}
	if x.requests < 20 || x.answer < 20 {
		t.Errorf("only %d requests and %d answers were cut", x.requests, x.answer)
	}
	t.Logf("cut %d requests and %d answers; causes %v", x.requests, x.answer, all[0].Causes)
}

// consumeAll receives and acks until n different messages are acked; some Receives are cancelled.
func consumeAll(ctx context.Context, t *testing.T, c *client.Client, n int) map[string]bool {
	t.Helper()
	r, err := c.Receiver(ctx, topic, sub, queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	acked, last := map[string]bool{}, map[string]int{}
	for i := 0; len(acked) < n; i++ {
		short, cancel := context.WithTimeout(ctx, time.Duration(i%10+1)*time.Millisecond)
		ds, err := r.Receive(short, 7)
		cancel()
		if err != nil && (!errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil) {
			t.Errorf("receive: %v after %d of %d", err, len(acked), n)
			return acked
		}
		ss := make([]ackwise.Settlement, len(ds))
		for j, d := range ds {
			ss[j].Token = d.Token
			var number int
			if _, err := fmt.Sscan(string(d.Body), &number); err != nil {
				t.Error(err)
			}
			if before, ok := last[d.Key]; ok && number <= before {
				t.Errorf("key %s: %d after %d", d.Key, number, before)
			}
			last[d.Key] = number
		}
		if len(ss) == 0 {
			continue
		}
		for j, res := range r.Settle(ctx, ss) {
			if res.Err != nil || acked[ds[j].ID] {
				t.Errorf("ack %s: %+v, acked before: %t", ds[j].ID, res, acked[ds[j].ID])
			}
			acked[ds[j].ID] = true
		}
	}
	return acked
}

// ignoreExists lets pass what a repeat of the same call finds.
func ignoreExists(err error) error {
	if errors.Is(err, ackwise.ErrExists) {
		return nil
	}
	return err
}
