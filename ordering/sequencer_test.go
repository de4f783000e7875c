package ordering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ackwise/ackwise"
)

func sequencer(t *testing.T, o SequencerOptions) *Sequencer {
	t.Helper()
	s, err := NewSequencer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func assign(t *testing.T, s *Sequencer, key, id string) Number {
	t.Helper()
	ns := []Number{{Key: key, ID: id}}
	if err := s.Assign(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return ns[0]
}

// sink is a Sink whose answers a test chooses, and which keeps what it accepted.
type sink struct {
	answer func(m *ackwise.Message) ackwise.Result
	got    []ackwise.Message
	calls  int
}

func (s *sink) Publish(_ context.Context, ms []ackwise.Message) []ackwise.Result {
	s.calls++
	out := make([]ackwise.Result, len(ms))
	for i := range ms {
		out[i] = ackwise.Result{Class: ackwise.ResultAccepted, ID: ms[i].ID}
		if s.answer != nil {
			out[i] = s.answer(&ms[i])
		}
		if out[i].Class == ackwise.ResultAccepted && !out[i].Duplicate {
			s.got = append(s.got, ms[i])
		}
	}
	return out
}

func (s *sink) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{MaxBatch: 100, MaxBodyBytes: 1000}
}
func (s *sink) Close() error { return nil }

func numberOf(t *testing.T, m *ackwise.Message) int {
	t.Helper()
	text, _ := m.Header(ackwise.HeaderSequence)
	n, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The numbers of a key are 1, 2, 3 over any restart, and a message that is not confirmed has the
// number that it had.
func TestNumbersSurviveRestarts(t *testing.T) {
	for seed := range uint64(runs(50, 2000)) {
		rng := rand.New(rand.NewPCG(seed, 9))
		keeper := newMemory()
		s := sequencer(t, SequencerOptions{Keeper: keeper, Remember: 3})
		given, last := map[string]uint64{}, map[string]uint64{}
		var open []string
		for i := range 200 {
			key, id := fmt.Sprint("k", rng.IntN(3)), fmt.Sprint("m", i)
			if len(open) > 0 && rng.IntN(3) == 0 { // a repeat
				id = open[rng.IntN(len(open))]
				key, _, _ = strings.Cut(id, "/")
			} else {
				id = key + "/" + id
			}
			n := assign(t, s, key, id)
			before, again := given[id]
			if n.Err != nil || again != n.Again || again && n.N != before ||
				!again && n.N != last[key]+1 {
				t.Fatalf("seed %d: %s got %+v; it had %d, and its key is at %d", seed, id, n, before,
					last[key])
			}
			given[id], last[key] = n.N, max(last[key], n.N)
			if !again {
				open = append(open, id)
			}
			if len(open) > 0 && rng.IntN(2) == 0 {
				if err := s.Confirm(t.Context(), open[0]); err != nil {
					t.Fatal(err)
				}
				open = open[1:]
			}
			if rng.IntN(10) == 0 { // killed
				s = sequencer(t, SequencerOptions{Keeper: keeper, Remember: 3})
			}
		}
	}
}

// A message that was confirmed has its number again while it is remembered.
func TestConfirmedNumbersAreRemembered(t *testing.T) {
	keeper := newMemory()
	s := sequencer(t, SequencerOptions{Keeper: keeper, Remember: 2})
	for i := range 4 {
		id := fmt.Sprint("m", i)
		assign(t, s, "k", id)
		if err := s.Confirm(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = sequencer(t, SequencerOptions{Keeper: keeper, Remember: 2})
	if n := assign(t, s, "k", "m3"); n.N != 4 || !n.Again {
		t.Errorf("m3 got %+v", n)
	}
	if n := assign(t, s, "k", "m0"); n.N != 5 || n.Again {
		t.Errorf("m0, which is forgotten, got %+v", n)
	}
	if len(keeper.kept) > 5 {
		t.Errorf("%d records are kept", len(keeper.kept))
	}
}

// Bounds push back, and what is wrong is refused, each message by itself.
func TestSequencerBounds(t *testing.T) {
	s := sequencer(t, SequencerOptions{Keeper: newMemory(), MaxOpen: 2, MaxKeys: 2})
	ns := []Number{{Key: "a", ID: "1"}, {Key: "b", ID: "2"}, {Key: "a", ID: "3"}, {Key: "c", ID: "4"},
		{Key: "", ID: "5"}, {Key: "a", ID: ""}, {Key: "b", ID: "1"},
		{Key: strings.Repeat("k", 1024), ID: "6"}, {Key: "a", ID: "1"}}
	if err := s.Assign(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	full := func(i int) bool { return errors.Is(ns[i].Err, ackwise.ErrFull) }
	invalid := func(i int) bool {
		_, ok := errors.AsType[*ackwise.InvalidError](ns[i].Err)
		return ok
	}
	if ns[0].Err != nil || ns[1].Err != nil || !full(2) || !full(3) || !invalid(4) || !invalid(5) ||
		!invalid(6) || !invalid(7) || ns[8].N != 1 || !ns[8].Again {
		t.Errorf("got %+v", ns)
	}
	open := s.Unconfirmed()
	if len(open) != 2 || open[0].ID != "1" || open[1].ID != "2" {
		t.Errorf("unconfirmed: %+v", open)
	}
}

// A save that failed leaves it unknown what is kept: no number is given from then on.
func TestSequencerStopsAfterAFailedSave(t *testing.T) {
	keeper := newMemory()
	s := sequencer(t, SequencerOptions{Keeper: keeper})
	keeper.fail = errors.New("no disk")
	for range 2 {
		if err := s.Assign(t.Context(), []Number{{Key: "k", ID: "a"}}); err == nil {
			t.Fatal("a number was given without a save")
		}
		keeper.fail = nil
	}
}

// Numbers are gapless and unique among goroutines, which share saves.
func TestSequencerIsConcurrent(t *testing.T) {
	keeper := newMemory()
	s := sequencer(t, SequencerOptions{Keeper: keeper})
	var wg sync.WaitGroup
	var mu sync.Mutex // guards all
	var all []int
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				ns := []Number{{Key: "k", ID: fmt.Sprint(g, "/", i)}}
				if err := s.Assign(t.Context(), ns); err != nil || ns[0].Err != nil {
					t.Error(err, ns[0].Err)
					return
				}
				mu.Lock()
				all = append(all, int(ns[0].N))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.Sort(all)
	for i, n := range all {
		if n != i+1 {
			t.Fatalf("number %d is %d", i+1, n)
		}
	}
}

// What is unknown is repeated with the same number, also after a restart: the sink sees no gap and
// no number for two messages.
func TestStampedRepeatsTheNumber(t *testing.T) {
	keeper := newMemory()
	rng := rand.New(rand.NewPCG(4, 4))
	out := &sink{answer: func(m *ackwise.Message) ackwise.Result {
		switch rng.IntN(4) {
		case 0:
			return ackwise.Result{ID: m.ID} // unknown, and lost
		case 1:
			return ackwise.Result{Class: ackwise.ResultRetryable, ID: m.ID, Err: ackwise.ErrFull}
		}
		return ackwise.Result{Class: ackwise.ResultAccepted, ID: m.ID}
	}}
	var todo []ackwise.Message
	for i := range 200 {
		todo = append(todo, ackwise.Message{Topic: "t", Key: fmt.Sprint("k", i%3), ID: fmt.Sprint(i)})
	}
	for rounds := 0; len(todo) > 0; rounds++ {
		if rounds > 1000 {
			t.Fatal("it does not end")
		}
		seq := sequencer(t, SequencerOptions{Keeper: keeper, MaxOpen: 20}) // killed each round
		s, err := Stamped(out, StampOptions{Sequencer: seq})
		if err != nil {
			t.Fatal(err)
		}
		batch := todo[:min(len(todo), 1+rng.IntN(7))]
		todo = todo[len(batch):]
		for i, r := range s.Publish(t.Context(), batch) {
			if r.Class != ackwise.ResultAccepted {
				todo = append(todo, batch[i])
			}
		}
		if err := seq.Close(t.Context()); rounds%2 == 0 && err != nil {
			t.Fatal(err)
		}
	}
	byKey := map[string]map[int]string{}
	for _, m := range out.got {
		n := numberOf(t, &m)
		if byKey[m.Key] == nil {
			byKey[m.Key] = map[int]string{}
		}
		if other := byKey[m.Key][n]; other != "" && other != m.ID {
			t.Errorf("number %d of %s is both %s and %s", n, m.Key, other, m.ID)
		}
		byKey[m.Key][n] = m.ID
	}
	for key, ns := range byKey {
		for n := 1; n <= len(ns); n++ {
			if ns[n] == "" {
				t.Errorf("number %d of %s is a gap", n, key)
			}
		}
	}
}

// A rejected message gives its number to the next one where nothing behind it has a number; else
// the number is lost and the result says so.
func TestStampedRejections(t *testing.T) {
	bad := map[string]bool{"b": true, "d": true, "e": true}
	rejected := errors.New("no such topic")
	out := &sink{answer: func(m *ackwise.Message) ackwise.Result {
		if bad[m.ID] {
			return ackwise.Result{Class: ackwise.ResultRejected, ID: m.ID, Err: rejected}
		}
		return ackwise.Result{Class: ackwise.ResultAccepted, ID: m.ID}
	}}
	seq := sequencer(t, SequencerOptions{Keeper: newMemory()})
	s, err := Stamped(out, StampOptions{Sequencer: seq})
	if err != nil {
		t.Fatal(err)
	}
	message := func(id string) ackwise.Message {
		return ackwise.Message{Topic: "t", Key: "k", ID: id}
	}
	s.Publish(t.Context(), []ackwise.Message{message("a"), message("d"), message("e")})
	rs := s.Publish(t.Context(), []ackwise.Message{message("f"), message("b"), message("c")})
	if !errors.Is(rs[1].Err, rejected) || !strings.Contains(rs[1].Err.Error(), "number 3") {
		t.Errorf("the rejected message before an accepted one: %v", rs[1].Err)
	}
	// What is wrong with a message is found before it has a number.
	for _, m := range []ackwise.Message{
		{Topic: "t", Key: "k", ID: "large", Body: make([]byte, 1001)},
		{Topic: "/", Key: "k", ID: "topic"},
		{Topic: "t", Key: "k", ID: "headers", Headers: slices.Repeat([]ackwise.Header{{Name: "h"}}, 100)},
		{Topic: "t", Key: "k", ID: "numbered",
			Headers: []ackwise.Header{{Name: ackwise.HeaderSequence, Value: []byte("7")}}},
	} {
		if r := s.Publish(t.Context(), []ackwise.Message{m}); r[0].Class != ackwise.ResultRejected {
			t.Errorf("%s: %+v", m.ID, r[0])
		}
	}
	s.Publish(t.Context(), []ackwise.Message{message("g"), {Topic: "t", ID: "no key"}})
	var got []string
	for i := range out.got {
		if m := &out.got[i]; m.Key != "" {
			got = append(got, fmt.Sprint(m.ID, numberOf(t, m)))
		} else if _, has := m.Header(ackwise.HeaderSequence); has {
			t.Error("a message without a key has a number")
		}
	}
	if want := []string{"a1", "f2", "c4", "g5"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if open := seq.Unconfirmed(); len(open) != 0 {
		t.Errorf("unconfirmed: %v", open)
	}
}

// A sink that sends a message twice, because the first answer was cut off, calls it a duplicate of
// itself. So a duplicate's number is never given again: one number for two messages would be seen
// by nobody, and the gap where the sink had it under another number is, and is logged.
func TestStampedDuplicates(t *testing.T) {
	var log strings.Builder
	out := &sink{}
	s, err := Stamped(out, StampOptions{Sequencer: sequencer(t,
		SequencerOptions{Keeper: newMemory(), Remember: 1}),
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	message := func(id string) []ackwise.Message {
		return []ackwise.Message{{Topic: "t", Key: "k", ID: id}}
	}
	out.answer = func(m *ackwise.Message) ackwise.Result { // as after a resend
		out.got = append(out.got, *m)
		return ackwise.Result{Class: ackwise.ResultAccepted, ID: m.ID, Duplicate: true}
	}
	s.Publish(t.Context(), message("a"))
	out.answer = nil
	s.Publish(t.Context(), message("b"))
	if first, second := numberOf(t, &out.got[0]), numberOf(t, &out.got[1]); first != 1 || second != 2 {
		t.Errorf("a is number %d and b is number %d", first, second)
	}
	if !strings.Contains(log.String(), "id=a key=k number=1") {
		t.Errorf("nothing is told of it: %q", log.String())
	}
	out.answer = func(m *ackwise.Message) ackwise.Result { // really its second copy
		return ackwise.Result{Class: ackwise.ResultAccepted, ID: m.ID, Duplicate: true}
	}
	s.Publish(t.Context(), message("a"))
	out.answer = nil
	s.Publish(t.Context(), message("c"))
	if n := numberOf(t, &out.got[2]); n != 4 {
		t.Errorf("c is number %d", n)
	}
}

// A message that is rejected at a later try keeps its number, since the first try may have been
// accepted, and the result says so.
func TestStampedRejectedAtTheSecondTry(t *testing.T) {
	class := ackwise.ResultRetryable
	out := &sink{answer: func(m *ackwise.Message) ackwise.Result {
		return ackwise.Result{Class: class, ID: m.ID, Err: ackwise.ErrFull}
	}}
	seq := sequencer(t, SequencerOptions{Keeper: newMemory()})
	s, err := Stamped(out, StampOptions{Sequencer: seq})
	if err != nil {
		t.Fatal(err)
	}
	message := []ackwise.Message{{Topic: "t", Key: "k", ID: "a"}}
	s.Publish(t.Context(), message)
	class = ackwise.ResultRejected
	r := s.Publish(t.Context(), message)[0]
	if r.Err == nil || !strings.Contains(r.Err.Error(), "number 1 in its key stays given") ||
		!errors.Is(r.Err, ackwise.ErrFull) {
		t.Errorf("the result is %v", r.Err)
	}
	if lost, err := seq.Return(t.Context(), "a"); lost || err != nil {
		t.Errorf("returned: lost %v, %v", lost, err)
	}
	if n := assign(t, seq, "k", "b"); n.N != 1 {
		t.Errorf("the next one got %+v", n)
	}
}

// Stamps are set where there is none, and the caller's message stays as it is.
func TestStampedStamps(t *testing.T) {
	out := &sink{}
	c := clockOn(t, newMemory(), &wall{at: zeroTime}, "a")
	s, err := Stamped(out, StampOptions{Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	own := []ackwise.Header{{Name: ackwise.HeaderStamp, Value: []byte("mine")}}
	in := []ackwise.Message{{Topic: "t"}, {Topic: "t", Headers: own}, {Topic: "t", Key: "k"}}
	rs := s.Publish(t.Context(), in)
	var last ackwise.Stamp
	for _, i := range []int{0, 2} {
		text, _ := out.got[i].Header(ackwise.HeaderStamp)
		stamp, err := ackwise.ParseStamp(string(text))
		if err != nil || stamp.Compare(last) <= 0 || len(in[i].Headers) != 0 || rs[i].ID == "" {
			t.Errorf("message %d: stamp %q, %v; result %+v", i, text, err, rs[i])
		}
		last = stamp
	}
	if text, _ := out.got[1].Header(ackwise.HeaderStamp); string(text) != "mine" {
		t.Errorf("a stamp that was there became %q", text)
	}
	if _, err := Stamped(out, StampOptions{}); err == nil {
		t.Error("nothing to set is accepted")
	}
	if r := s.Publish(t.Context(), make([]ackwise.Message, 101)); out.calls != 1 ||
		r[100].Class != ackwise.ResultRejected {
		t.Errorf("too large a batch: %+v after %d calls", r[100], out.calls)
	}
}
