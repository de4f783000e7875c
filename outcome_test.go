package ackwise_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
)

func TestOutcomeOf(t *testing.T) {
	boom := errors.New("boom")
	long := strings.Repeat("é", ackwise.MaxErrorBytes) // two bytes each
	cut := strings.Repeat("é", ackwise.MaxErrorBytes/2)
	nack := ackwise.Verdict{Outcome: ackwise.OutcomeNack, Reason: "boom"}
	retry := ackwise.Verdict{Outcome: ackwise.OutcomeNack, Delay: time.Second, After: true,
		Reason: "boom"}
	snooze := ackwise.Verdict{Outcome: ackwise.OutcomeSnooze, Delay: time.Minute}
	dead := ackwise.Verdict{Outcome: ackwise.OutcomeDead, Reason: "boom"}
	drop := ackwise.Verdict{Outcome: ackwise.OutcomeDrop, Reason: "stale"}
	for _, c := range []struct {
		name string
		err  error
		want ackwise.Verdict
	}{
		{"nil", nil, ackwise.Verdict{Outcome: ackwise.OutcomeAck}},
		{"any error", boom, nack},
		{"retry after", ackwise.RetryAfter(boom, time.Second), retry},
		{"retry at once", ackwise.RetryAfter(boom, 0),
			ackwise.Verdict{Outcome: ackwise.OutcomeNack, After: true, Reason: "boom"}},
		{"snooze", ackwise.Snooze(time.Minute), snooze},
		{"reject", ackwise.Reject(boom), dead},
		{"drop", ackwise.Drop("stale"), drop},
		{"wrapped retry", fmt.Errorf("charge: %w", ackwise.RetryAfter(boom, time.Second)), retry},
		{"wrapped snooze", fmt.Errorf("charge: %w", ackwise.Snooze(time.Minute)), snooze},
		{"wrapped reject", fmt.Errorf("charge: %w", ackwise.Reject(boom)), dead},
		{"drop without a reason", ackwise.Drop(""), ackwise.Verdict{Outcome: ackwise.OutcomeDrop,
			Reason: "no reason given"}},
		{"wrapped drop", fmt.Errorf("charge: %w", ackwise.Drop("stale")), drop},
		{"joined", errors.Join(boom, ackwise.Snooze(time.Minute)), snooze},
		{"drop beats reject", errors.Join(ackwise.Reject(boom), ackwise.Drop("stale")), drop},
		{"reject beats snooze", errors.Join(ackwise.Snooze(1), ackwise.Reject(boom)), dead},
		{"rejected retry", ackwise.Reject(ackwise.RetryAfter(boom, time.Second)),
			ackwise.Verdict{Outcome: ackwise.OutcomeDead, Reason: "boom (retry after 1s)"}},
		{"no error to retry", ackwise.RetryAfter(nil, time.Second), ackwise.Verdict{
			Outcome: ackwise.OutcomeNack, Delay: time.Second, After: true, Reason: "<nil>"}},
		{"long text", errors.New(long),
			ackwise.Verdict{Outcome: ackwise.OutcomeNack, Reason: cut}},
		{"long drop", ackwise.Drop(long),
			ackwise.Verdict{Outcome: ackwise.OutcomeDrop, Reason: cut}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ackwise.OutcomeOf(c.err); got != c.want {
				t.Errorf("OutcomeOf(%v) = %+v, want %+v", c.err, got, c.want)
			}
		})
	}
}

func TestRetryAfterKeepsTheCauseReachable(t *testing.T) {
	boom := errors.New("boom")
	for _, err := range []error{ackwise.RetryAfter(boom, 1), ackwise.Reject(boom)} {
		if !errors.Is(err, boom) {
			t.Errorf("errors.Is(%v, boom) = false, want true: a caller looks for its own error", err)
		}
	}
}

func TestCutError(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     int // bytes
	}{
		{"short", "boom", 4},
		{"just fits", strings.Repeat("x", ackwise.MaxErrorBytes), ackwise.MaxErrorBytes},
		{"one over", strings.Repeat("x", ackwise.MaxErrorBytes+1), ackwise.MaxErrorBytes},
		{"between characters", "x" + strings.Repeat("é", ackwise.MaxErrorBytes),
			ackwise.MaxErrorBytes - 1},
	} {
		got := ackwise.CutError(c.in)
		if len(got) != c.want || !strings.HasPrefix(c.in, got) || !utf8.ValidString(got) {
			t.Errorf("%s: cut to %d bytes (valid UTF-8: %t), want %d", c.name, len(got),
				utf8.ValidString(got), c.want)
		}
	}
}

func TestCutErrorKeepsBytesThatAreNoText(t *testing.T) {
	in := strings.Repeat("\x80", 2*ackwise.MaxErrorBytes)
	if got := ackwise.CutError(in); got == "" {
		t.Error("CutError of 2 KiB that are no UTF-8 is empty, want what it can keep")
	}
}

func TestWordsOfOutcomesAndClasses(t *testing.T) {
	got := []string{}
	for o := ackwise.OutcomeAck; o <= ackwise.OutcomeDrop+1; o++ {
		got = append(got, o.String())
	}
	for c := ackwise.ResultUnknown; c <= ackwise.ResultNotAttempted+1; c++ {
		got = append(got, c.String())
	}
	want := "ack nack snooze release extend dead drop ackwise.Outcome(7) " +
		"unknown accepted retryable rejected not-attempted ackwise.ResultClass(5)"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("words = %s, want %s", s, want)
	}
}

func TestCauseWords(t *testing.T) {
	want := strings.Fields(`unknown first failed snoozed released lease-expired consumer-lost
		restarted ack-lost produced-again redriven redone rebalanced replayed`)
	all := ackwise.Causes()
	if len(all) != len(want) {
		t.Fatalf("%d causes, want the closed list of %d", len(all), len(want))
	}
	for i, c := range all {
		if c.String() != want[i] {
			t.Errorf("cause %d = %s, want %s", i, c, want[i])
		}
		text, err := json.Marshal(map[ackwise.Cause]ackwise.Cause{c: c})
		if err != nil {
			t.Fatal(err)
		}
		var back map[ackwise.Cause]ackwise.Cause
		if err := json.Unmarshal(text, &back); err != nil || back[c] != c || len(back) != 1 {
			t.Errorf("%s came back from %s as %v, %v", c, text, back, err)
		}
	}
}

func TestUnknownCauseIsRefused(t *testing.T) {
	var invalid *ackwise.InvalidError
	c := ackwise.CauseFailed
	if err := c.UnmarshalText([]byte("Failed")); !errors.As(err, &invalid) {
		t.Errorf("reading cause %q gives %v, want an *InvalidError", "Failed", err)
	}
	if c != ackwise.CauseFailed {
		t.Errorf("a refused word changed the cause to %s", c)
	}
	if got := ackwise.Cause(200).String(); got != "Cause(200)" {
		t.Errorf("Cause(200) = %s", got)
	}
}

func TestFiveDuplicateSources(t *testing.T) {
	got := make(map[string][]string)
	for _, c := range ackwise.Causes() {
		got[c.DuplicateSource()] = append(got[c.DuplicateSource()], c.String())
		if want := c.DuplicateSource() == "crash"; c.Crash() != want {
			t.Errorf("%s.Crash() = %t, want %t", c, c.Crash(), want)
		}
	}
	want := map[string]string{
		"crash":          "lease-expired consumer-lost restarted",
		"ack-lost":       "ack-lost",
		"produced-again": "produced-again",
		"redriven":       "redriven",
		"rebalanced":     "rebalanced",
		"":               "unknown first failed snoozed released redone replayed",
	}
	for source, causes := range want {
		if s := strings.Join(got[source], " "); s != causes {
			t.Errorf("duplicate source %q has %q, want %q", source, s, causes)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d duplicate sources, want five and none", len(got)-1)
	}
}

func TestAgain(t *testing.T) {
	for o, want := range map[ackwise.Outcome]ackwise.Cause{
		ackwise.OutcomeAck: ackwise.CauseAckLost, ackwise.OutcomeDrop: ackwise.CauseAckLost,
		ackwise.OutcomeNack: ackwise.CauseFailed, ackwise.OutcomeSnooze: ackwise.CauseSnoozed,
		ackwise.OutcomeRelease: ackwise.CauseReleased, ackwise.OutcomeDead: ackwise.CauseUnknown,
	} {
		if got := o.Again(); got != want {
			t.Errorf("after %s: %s, want %s", o, got, want)
		}
	}
}
