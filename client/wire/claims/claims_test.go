package claims

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// over sends a value through JSON.
func over[T any](t *testing.T, v T) T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return out
}

func TestValuesComeOutAsTheyWentIn(t *testing.T) {
	asks := []idempotency.Ask{{Key: "k", Sum: idempotency.Sum{1, 255}, Lease: time.Minute},
		{Key: "\xff not UTF-8"}, {}}
	q := over(t, AsksOf("set", 1<<63+1, asks))
	if got := q.Values(); !reflect.DeepEqual(got, asks) || q.Set != "set" || q.Call != 1<<63+1 {
		t.Errorf("asks: %+v, %+v", q, got)
	}
	answers := []idempotency.Answer{{Status: idempotency.Claimed, Fence: 1<<63 + 5, Takeover: true},
		{Status: idempotency.Done, Result: []byte{0, 1}, Time: time.Unix(5, 6).UTC()},
		{Status: idempotency.Done, Result: []byte{}, Time: time.Unix(5, 6).UTC()},
		{Status: idempotency.Busy, Wait: time.Second}, {Status: idempotency.Conflict},
		{Err: &ackwise.InvalidError{Field: "lease", Reason: "it is short"}}, {}}
	if got := over(t, AnswersOf(answers)).Values(); !reflect.DeepEqual(got, answers) {
		t.Errorf("answers: %+v, want %+v", got, answers)
	}
	claims := []idempotency.Settlement{
		{Key: "k", Fence: 1<<63 + 5, Verb: idempotency.Complete, Result: []byte("r")},
		{Key: "k", Verb: idempotency.Complete, Result: []byte{}}, {Verb: idempotency.Release},
		{Verb: idempotency.Extend, Lease: time.Second}, {Verb: 9}}
	if got := over(t, SettlementsOf("set", claims)).Values(); !reflect.DeepEqual(got, claims) {
		t.Errorf("settlements: %+v, want %+v", got, claims)
	}
}

func TestErrorsComeOutAsTheyWentIn(t *testing.T) {
	rule := &idempotency.RuleError{Store: "s", Kept: "id", Got: "body"}
	got := over(t, SettledOf([]error{nil, idempotency.ErrFence,
		fmt.Errorf("settle: %w", ackwise.ErrFull), fmt.Errorf("bind: %w", rule)})).Values()
	if got[0] != nil || !errors.Is(got[1], idempotency.ErrFence) ||
		!errors.Is(got[2], ackwise.ErrFull) || got[2].Error() != "settle: full" {
		t.Errorf("%v", got)
	}
	if e, ok := errors.AsType[*idempotency.RuleError](got[3]); !ok || *e != *rule {
		t.Errorf("%#v", got[3])
	}
}
