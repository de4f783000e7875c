package process

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func TestPipeOutcomes(t *testing.T) {
	h, _ := pipeTo(t, "obey", Options{})
	for _, c := range []struct {
		body string
		want ackwise.Verdict
	}{
		{"done", ackwise.Verdict{Outcome: ackwise.OutcomeAck}},
		{"failed why", ackwise.Verdict{Outcome: ackwise.OutcomeNack, Reason: "why"}},
		{"reject bad", ackwise.Verdict{Outcome: ackwise.OutcomeDead, Reason: "bad"}},
		{"drop old", ackwise.Verdict{Outcome: ackwise.OutcomeDrop, Reason: "old"}},
		{"release", ackwise.Verdict{Outcome: ackwise.OutcomeSnooze}},
		{`raw {"token":"TOKEN","outcome":"retry","after":"3s","reason":"r"}`, ackwise.Verdict{
			Outcome: ackwise.OutcomeNack, Delay: 3 * time.Second, After: true, Reason: "r"}},
		{`raw {"token":"TOKEN","outcome":"snooze","after":"4s"}`, ackwise.Verdict{
			Outcome: ackwise.OutcomeSnooze, Delay: 4 * time.Second}},
	} {
		got := ackwise.OutcomeOf(h.Handle(t.Context(), message("1", c.body)))
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.body, got, c.want)
		}
	}
}

func TestPipeAnswersInAnyOrder(t *testing.T) {
	h, _ := pipeTo(t, "obey", Options{})
	first := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { first <- h.Handle(ctx, message("1", "silent")) }()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if err := h.Handle(t.Context(), message(strconv.Itoa(i+2), "done")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	cancel(ackwise.ErrLeaseLost)
	if err := <-first; !errors.Is(err, ackwise.ErrLeaseLost) {
		t.Errorf("the one without an answer: %v, want ErrLeaseLost", err)
	}
}

func TestPipeNonsense(t *testing.T) {
	for _, c := range []struct{ name, body, report, reason string }{
		{"a line that is no answer is reported and ignored", "print hello world",
			`line 1 of its standard output: not an answer of the handler protocol: "hello world"`, ""},
		{"an unknown token is reported and ignored", `print {"token":"x","outcome":"done"}`,
			`unknown token "x"`, ""},
		{"a second answer is reported and ignored", "twice", "was answered before", ""},
		{"an answer without a token is reported", `print {"outcome":"done"}`, `without "token"`, ""},
		{"a line that is too long is reported", "print " + strings.Repeat("x", 2000),
			"longer than 1000 bytes", ""},
		{"an unknown outcome fails its delivery", `raw {"token":"TOKEN","outcome":"fialed"}`,
			`did you mean "failed"?`, `line 1: unknown outcome "fialed"`},
		{"retry without after fails its delivery", `raw {"token":"TOKEN","outcome":"retry"}`,
			`needs "after"`, `outcome "retry" needs "after"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, r := pipeTo(t, "obey", Options{MaxLine: 1000})
			err := h.Handle(t.Context(), message("1", c.body))
			if (err == nil) != (c.reason == "") || err != nil && !strings.Contains(err.Error(), c.reason) {
				t.Errorf("Handle = %v, want %q", err, c.reason)
			}
			r.await(t, c.report)
			if err := h.Handle(t.Context(), message("2", "done")); err != nil {
				t.Errorf("the next one: %v", err)
			}
		})
	}
}

func TestPipeProcessEnds(t *testing.T) {
	h, r := pipeTo(t, "obey", Options{Grace: patience})
	silent := make(chan error, 1)
	go func() { silent <- h.Handle(t.Context(), message("1", "silent")) }()
	// The silent one is written first or after the restart; either way only what the process
	// was given when it died is lost.
	var lost *LostError
	if err := h.Handle(t.Context(), message("2", "die")); !errors.As(err, &lost) ||
		!strings.Contains(err.Error(), "exit status 7: dying of 2") {
		t.Errorf("Handle = %v, want a LostError with the code and the last line", err)
	}
	r.await(t, "the handler process ended (exit status 7: dying of 2); it is started again in")
	if err := h.Handle(t.Context(), message("3", "done")); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	if err := h.Handle(t.Context(), message("4", "last")); err != nil {
		t.Errorf("an answer just before the end: %v", err)
	}
	if err := <-silent; !errors.As(err, &lost) {
		t.Errorf("the one without an answer: %v, want a LostError", err)
	}
}

func TestPipeThatCannotStartGivesUp(t *testing.T) {
	h, _ := pipeTo(t, "ends", Options{Grace: patience, MaxIdleEnds: 3, RestartMin: time.Second,
		RestartMax: time.Second})
	err := h.Handle(t.Context(), message("1", "done"))
	if !errors.Is(err, errReleased) {
		t.Errorf("Handle = %v, want a release: the message is not charged", err)
	}
	<-h.Failed()
	want := "ended 3 times in a row before it was given a delivery: exit status 9: cannot start"
	if err := h.Err(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Err = %v, want %q", err, want)
	}
}

func TestPipeThatDoesNotRead(t *testing.T) {
	h, r := pipeTo(t, "deaf", Options{Stall: 50 * time.Millisecond})
	var lost *LostError
	err := h.Handle(t.Context(), message("1", strings.Repeat("x", 1<<20)))
	if !errors.As(err, &lost) ||
		!strings.Contains(err.Error(), "read nothing from its standard input") {
		t.Errorf("Handle = %v, want a LostError that says what is wrong", err)
	}
	r.await(t, "it is started again")
}

func TestPipeThatLeavesTooMuchUnread(t *testing.T) {
	h, _ := pipeTo(t, "deaf", Options{MaxUnread: 3})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			var lost *LostError
			err := h.Handle(t.Context(), message(strconv.Itoa(i), strings.Repeat("x", 1<<20)))
			if !errors.As(err, &lost) && !errors.Is(err, errReleased) {
				t.Errorf("Handle = %v, want a LostError or, after Stop, a release", err)
			}
			h.Stop()
		})
	}
	wg.Wait()
}

func TestPipeThatClosesItsOutput(t *testing.T) {
	h, _ := pipeTo(t, "closed", Options{})
	var lost *LostError
	err := h.Handle(t.Context(), message("1", "x"))
	if !errors.As(err, &lost) || !strings.Contains(err.Error(), "closed its standard output") {
		t.Errorf("Handle = %v, want a LostError that says what is wrong", err)
	}
}

func TestPipeNotices(t *testing.T) {
	log := t.TempDir() + "/log"
	t.Setenv("PROCESS_TEST_LOG", log)
	h, _ := pipeTo(t, "obey", Options{Grace: patience})
	for i, err := range []error{nil, ackwise.ErrLeaseLost, ackwise.ErrFull} {
		d := message(strconv.Itoa(i), "done")
		if err := h.Handle(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		h.Settled(d.Token, err)
		h.Settled(d.Token, err) // said once
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ackwise.ErrLeaseLost)
	if err := h.Handle(ctx, message("3", "silent")); !errors.Is(err, ackwise.ErrLeaseLost) {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	for line := range strings.Lines(string(got)) {
		if !strings.Contains(line, `"id"`) {
			notices = append(notices, strings.TrimSpace(line))
		}
	}
	want := `{"token":"token-0","settled":true} {"token":"token-1","lost":true} ` +
		`{"token":"token-3","lost":true} {"stop":true}`
	if got := strings.Join(notices, " "); got != want {
		t.Errorf("notices %s\nwant    %s", got, want)
	}
	if err := h.Handle(t.Context(), message("4", "done")); !errors.Is(err, errReleased) {
		t.Errorf("after Close: %v, want a release", err)
	}
}

func TestPipeStopsAProcessThatDoesNotListen(t *testing.T) {
	h, _ := pipeTo(t, "deaf", Options{Grace: 20 * time.Millisecond})
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var a answers
	for i := range 2*maxAnswers + 1 {
		a.add(ackwise.LeaseToken(strconv.Itoa(i)), true)
		a.add(ackwise.LeaseToken(strconv.Itoa(i)), false)
	}
	last := ackwise.LeaseToken(strconv.Itoa(2 * maxAnswers))
	if len(a.tokens) != maxAnswers || a.has("0") || !a.has(last) {
		t.Errorf("%d tokens are kept, want the last %d", len(a.tokens), maxAnswers)
	}
}
