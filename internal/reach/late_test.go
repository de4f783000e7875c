package reach_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/reach"
)

var errAway = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}

// place is a system that may be away.
type place struct {
	mu     sync.Mutex // guards all
	err    error      // of an opening; nil = it is there
	opened int
	calls  []int // messages of each Publish
	closed bool
}

func (p *place) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *place) open(context.Context) (ackwise.Sink, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return nil, p.err
	}
	p.opened++
	return p, nil
}

func (p *place) Publish(_ context.Context, msgs []ackwise.Message) []ackwise.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, len(msgs))
	results := make([]ackwise.Result, len(msgs))
	for i := range msgs {
		results[i] = ackwise.Result{Class: ackwise.ResultAccepted, ID: msgs[i].ID}
	}
	return results
}

func (p *place) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{MaxBatch: 2} }
func (p *place) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func messages(n int) []ackwise.Message {
	ms := make([]ackwise.Message, n)
	for i := range ms {
		ms[i] = ackwise.Message{ID: fmt.Sprint(i), Topic: "t"}
	}
	return ms
}

func classes(results []ackwise.Result) (all []string) {
	for i, r := range results {
		all = append(all, fmt.Sprint(r.Class))
		if r.ID != fmt.Sprint(i) {
			all = append(all, "of another ID")
		}
	}
	return slices.Compact(all)
}

// TestLate: until the sink is there nothing was sent; then it is opened once, and gets no more at
// once than it takes.
func TestLate(t *testing.T) {
	p := &place{err: errAway}
	sink, why, err := reach.Open(t.Context(), p.open, true)
	if err != nil || !errors.Is(why, errAway) {
		t.Fatalf("open: %v, late: %v", err, why)
	}
	late := sink.(*reach.Late)
	got := late.Publish(t.Context(), messages(3))
	if s := classes(got); !slices.Equal(s, []string{"retryable"}) || !errors.Is(got[2].Err, errAway) {
		t.Errorf("while it is away: %v, %v", s, got[2].Err)
	}
	if err := late.Reach(t.Context()); !errors.Is(err, errAway) || late.IsOpen() {
		t.Errorf("reach: %v, it is open: %t", err, late.IsOpen())
	}
	p.set(nil)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if s := classes(late.Publish(t.Context(), messages(5))); !slices.Equal(s, []string{"accepted"}) {
				t.Errorf("when it is back: %v", s)
			}
		})
	}
	wg.Wait()
	if p.opened != 1 || len(p.calls) != 12 || slices.Max(p.calls) != 2 {
		t.Errorf("opened %d times, and called with %v", p.opened, p.calls)
	}
	if f := late.Features(); f.MaxBatch != 2 || !late.IsOpen() {
		t.Errorf("features %+v, it is open: %t", f, late.IsOpen())
	}
	if err := late.Close(); err != nil || !p.closed {
		t.Errorf("close: %v, closed: %t", err, p.closed)
	}
	if s := late.Publish(t.Context(), messages(1)); !errors.Is(s[0].Err, ackwise.ErrClosed) {
		t.Errorf("after Close: %v", s[0].Err)
	}
}

// TestLateThatIsWrong: what a person has to mend ends a strict one for good.
func TestLateThatIsWrong(t *testing.T) {
	wrong := errors.New("no such topic")
	for _, strict := range []bool{true, false} {
		p := &place{err: errAway}
		sink, _, err := reach.Open(t.Context(), p.open, strict)
		if err != nil {
			t.Fatal(err)
		}
		p.set(wrong)
		for range 2 {
			err := sink.Publish(t.Context(), messages(1))[0].Err
			if !errors.Is(err, wrong) || errors.Is(err, ackwise.ErrClosed) != strict {
				t.Errorf("strict %t: %v", strict, err)
			}
		}
		p.set(nil)
		class := sink.Publish(t.Context(), messages(1))[0].Class
		if (class == ackwise.ResultAccepted) == strict {
			t.Errorf("strict %t, mended: %s", strict, class)
		}
	}
}

// TestOpenTellsWhatIsWrong: what no time will mend is an error at once; a strict one takes a cut
// connection for that.
func TestOpenTellsWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		err          error
		strict, late bool
	}{
		{errors.New("no such topic"), false, false}, {errAway, true, true}, {errAway, false, true},
		{fmt.Errorf("log in: %w", io.EOF), true, false}, {fmt.Errorf("log in: %w", io.EOF), false, true},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, true, false},
	} {
		p := &place{err: c.err}
		sink, why, err := reach.Open(t.Context(), p.open, c.strict)
		if (err == nil) != c.late || (why != nil) != c.late || (sink != nil) != c.late {
			t.Errorf("%v, strict %t: late %v, error %v", c.err, c.strict, why, err)
		}
	}
}

// TestCloseEndsAnAttempt: neither Close nor a Publish whose context ends waits for a silent system.
func TestCloseEndsAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{err: errAway}
		silent := func(ctx context.Context) (ackwise.Sink, error) {
			if p.err != nil {
				return p.open(ctx)
			}
			return reach.Within(ctx, time.Hour, func(ctx context.Context) (ackwise.Sink, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}
		sink, _, err := reach.Open(t.Context(), silent, true)
		if err != nil {
			t.Fatal(err)
		}
		p.err = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if r := sink.Publish(ctx, messages(1))[0]; r.Class != ackwise.ResultRetryable ||
			time.Since(begin) != time.Minute {
			t.Errorf("%s after %s", r.Class, time.Since(begin))
		}
		if err := sink.Close(); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("close: %v after %s", err, time.Since(begin))
		}
	})
}

// TestWithin: what does not answer in time says so, and passes.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := reach.Within(t.Context(), time.Minute, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, errors.New("it hung")
		})
		if err == nil || err.Error() != "it did not answer within 1m0s: it hung" || !reach.Passes(err) {
			t.Errorf("%v, passes: %t", err, reach.Passes(err))
		}
	})
}
