package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// fakeSource hands messages out through fake sessions and keeps what became of each.
type fakeSource struct {
	mu      sync.Mutex // guards the fields below
	queue   []*ackwise.Delivery
	opened  int
	settled []string // "token outcome", in order
	lost    []string // sessions with their tokens still held
	closed  int
	fail    error // of the next Settle
}

type fakeSession struct {
	src  *fakeSource
	name string
	held []ackwise.LeaseToken
	gone chan struct{}
}

func (f *fakeSource) open(context.Context) (Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	return &fakeSession{src: f, name: fmt.Sprint("s", f.opened), gone: make(chan struct{})}, nil
}

func (s *fakeSession) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	s.src.mu.Lock()
	n := min(most, len(s.src.queue))
	ds := s.src.queue[:n]
	s.src.queue = s.src.queue[n:]
	for _, d := range ds {
		s.held = append(s.held, d.Token)
	}
	s.src.mu.Unlock()
	if n > 0 {
		return ds, nil
	}
	select {
	case <-s.gone:
		return nil, ackwise.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *fakeSession) Settle(_ context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	s.src.mu.Lock()
	defer s.src.mu.Unlock()
	results := make([]ackwise.SettleResult, len(ss))
	for i, st := range ss {
		switch {
		case s.src.fail != nil:
			results[i].Err = s.src.fail
			s.src.fail = nil
			continue
		case !slices.Contains(s.held, st.Token):
			results[i].Err = ackwise.ErrBadToken
			continue
		}
		s.src.settled = append(s.src.settled, fmt.Sprint(st.Token, " ", st.Outcome))
		if st.Outcome != ackwise.OutcomeExtend {
			s.held = slices.DeleteFunc(s.held, func(t ackwise.LeaseToken) bool { return t == st.Token })
		}
	}
	return results
}

func (s *fakeSession) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey}
}

func (s *fakeSession) Close() error {
	s.src.mu.Lock()
	defer s.src.mu.Unlock()
	s.src.closed++
	return nil
}

func (s *fakeSession) Lost() error {
	s.src.mu.Lock()
	defer s.src.mu.Unlock()
	s.src.lost = append(s.src.lost, fmt.Sprint(s.name, " ", s.held))
	close(s.gone)
	return nil
}

func sessionsOn(t *testing.T, src *fakeSource, o SessionsOptions) *Sessions {
	t.Helper()
	o.Open = src.open
	s, err := NewSessions(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fakeSource) put(ids ...string) {
	for _, id := range ids {
		f.queue = append(f.queue, message(id, ""))
	}
}

func receive(t *testing.T, s *Sessions, most int) []*ackwise.Delivery {
	t.Helper()
	ds, err := s.Receive(t.Context(), most)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func settle(s *Sessions, d *ackwise.Delivery, o ackwise.Outcome) error {
	return s.Settle(context.Background(), []ackwise.Settlement{{Token: d.Token, Outcome: o}})[0].Err
}

func check(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

var errDied = &LostError{errors.New("died")}

func TestDeathOfOneProcessIsLossOfOneSession(t *testing.T) {
	src := &fakeSource{}
	src.put("1", "2", "3")
	s := sessionsOn(t, src, SessionsOptions{Count: 2, InFlight: 1})
	one, two := receive(t, s, 10)[0], receive(t, s, 10)[0]
	h := s.Handler(ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
		if d == one {
			return errDied
		}
		return nil
	}))
	if err := h.Handle(t.Context(), one); !errors.Is(err, errDied) {
		t.Errorf("Handle = %v", err)
	}
	if err := settle(s, one, ackwise.OutcomeNack); !errors.Is(err, ackwise.ErrLeaseLost) {
		t.Errorf("a settlement after the death: %v, want ErrLeaseLost", err)
	}
	if !isLost(one) || isLost(two) {
		t.Errorf("lost: %v %v, want only the first", isLost(one), isLost(two))
	}
	if err := errors.Join(h.Handle(t.Context(), two), settle(s, two, ackwise.OutcomeAck)); err != nil {
		t.Error(err)
	}
	three := receive(t, s, 10)[0]
	if err := settle(s, three, ackwise.OutcomeAck); err != nil {
		t.Error(err)
	}
	check(t, "lost", src.lost, []string{"s1 [token-1]"})
	check(t, "settled", src.settled, []string{"token-2 ack", "token-3 ack"})
	if s.Held() != 0 {
		t.Errorf("%d are held", s.Held())
	}
}

func TestDeathWaitsForWhatWasHandledAndReleasesTheRest(t *testing.T) {
	src := &fakeSource{}
	src.put("done", "dies", "beside", "untouched")
	s := sessionsOn(t, src, SessionsOptions{InFlight: 4})
	ds := receive(t, s, 10)
	dying, running := make(chan struct{}), make(chan struct{})
	h := s.Handler(ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
		switch d.ID {
		case "dies":
			<-running
			return errDied
		case "beside":
			close(running)
			<-dying
			return errDied
		}
		return nil
	}))
	if err := h.Handle(t.Context(), ds[0]); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Handle(t.Context(), ds[2]) })
	_ = h.Handle(t.Context(), ds[1])
	close(dying)
	wg.Wait()
	check(t, "lost before the handled one is settled", src.lost, nil)
	check(t, "settled", src.settled, []string{"token-untouched release"})
	if err := h.Handle(t.Context(), ds[3]); !errors.As(err, new(*LostError)) {
		t.Errorf("the untouched one is handled after its release: %v", err)
	}
	src.fail = errors.New("try again")
	if err := settle(s, ds[0], ackwise.OutcomeAck); err == nil {
		t.Error("the fault did not fire")
	}
	check(t, "lost before the settlement succeeded", src.lost, nil)
	if err := settle(s, ds[0], ackwise.OutcomeAck); err != nil {
		t.Error(err)
	}
	check(t, "lost", src.lost, []string{"s1 [token-dies token-beside]"})
}

func TestReleaseOfAHandlerIsARelease(t *testing.T) {
	src := &fakeSource{}
	src.put("1", "2")
	var told []string
	s := sessionsOn(t, src, SessionsOptions{InFlight: 2, Settled: func(d *ackwise.Delivery,
		o ackwise.Outcome, err error) {
		told = append(told, fmt.Sprint(d.ID, " ", o, " ", err))
	}})
	ds := receive(t, s, 2)
	h := s.Handler(ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
		if d.ID == "1" {
			return Answer{Outcome: Release}.Err()
		}
		return Answer{Outcome: Snooze}.Err()
	}))
	for _, d := range ds {
		v := ackwise.OutcomeOf(h.Handle(t.Context(), d))
		if err := settle(s, d, v.Outcome); err != nil {
			t.Error(err)
		}
	}
	check(t, "settled", src.settled, []string{"token-1 release", "token-2 snooze"})
	check(t, "told", told, []string{"1 release <nil>", "2 snooze <nil>"})
}

func TestSourceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{}
		src.put("1", "2", "3")
		s := sessionsOn(t, src, SessionsOptions{InFlight: 9, Max: 2})
		if ds := receive(t, s, 9); len(ds) != 2 {
			t.Errorf("%d deliveries, want Max = 2", len(ds))
		}
		if _, err := s.Receive(t.Context(), 9); !errors.Is(err, io.EOF) {
			t.Errorf("after Max: %v, want io.EOF", err)
		}
		s = sessionsOn(t, &fakeSource{}, SessionsOptions{})
		end := make(chan error)
		go func() {
			_, err := s.Receive(t.Context(), 1)
			end <- err
		}()
		synctest.Wait()
		s.End()
		if err := <-end; !errors.Is(err, io.EOF) {
			t.Errorf("a Receive at End: %v, want io.EOF", err)
		}
		if _, err := s.Receive(t.Context(), 1); !errors.Is(err, io.EOF) {
			t.Errorf("after End: %v, want io.EOF", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReceiveWaitsForRoomAndForgetsRunOutLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &fakeSource{}
		src.put("1", "2", "3")
		src.queue[0].Deadline = time.Now().Add(30 * time.Second)
		s := sessionsOn(t, src, SessionsOptions{InFlight: 1})
		one := receive(t, s, 1)[0]
		begin := time.Now()
		two := receive(t, s, 1)[0] // nobody settles the first: its lease runs out
		if took := time.Since(begin); took < 31*time.Second || took > 33*time.Second {
			t.Errorf("the second came after %s, want soon after the lease of 30s", took)
		}
		if err := settle(s, one, ackwise.OutcomeAck); !errors.Is(err, ackwise.ErrLeaseLost) {
			t.Errorf("the first is settled: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Receive(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without room: %v", err)
		}
		done := make(chan error)
		go func() { done <- settle(s, two, ackwise.OutcomeAck) }()
		receive(t, s, 1)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestHandledBeforeItsSettlement(t *testing.T) {
	src := &fakeSource{}
	src.put("1")
	s := sessionsOn(t, src, SessionsOptions{})
	d := receive(t, s, 1)[0]
	if err := settle(s, d, ackwise.OutcomeAck); err != nil { // at most once: ack first
		t.Fatal(err)
	}
	ran := false
	h := s.Handler(ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
		ran = true
		return errDied
	}))
	if err := h.Handle(t.Context(), d); !errors.Is(err, errDied) || !ran {
		t.Errorf("Handle = %v, ran %v", err, ran)
	}
	check(t, "lost", src.lost, nil)
}
