package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
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

func TestEveryErrorComesOutAsItWentIn(t *testing.T) {
	for _, s := range sentinels {
		t.Run(s.word, func(t *testing.T) {
			if got := over(t, ProblemOf(s.err)).Err(); !errors.Is(got, s.err) {
				t.Errorf("the plain error came out as %#v", got)
			}
			wrapped := fmt.Errorf("publish m1: %w", s.err)
			p := over(t, ProblemOf(wrapped))
			got := p.Err()
			if !errors.Is(got, s.err) || got.Error() != wrapped.Error() {
				t.Errorf("wrapped, it came out as %v", got)
			}
			for _, other := range sentinels {
				if !errors.Is(other.err, s.err) && errors.Is(got, other.err) {
					t.Errorf("it also became %v", other.err)
				}
			}
			if p.Status != s.status || p.Type != "urn:ackwise:"+s.word || p.Title == "" {
				t.Errorf("problem %+v", p)
			}
		})
	}
	if p := ProblemOf(nil); p != nil || p.Err() != nil {
		t.Errorf("no error became %+v", p)
	}
}

func TestTypedErrorsKeepTheirFields(t *testing.T) {
	invalid := &ackwise.InvalidError{Field: "id", Value: "a\nb", Reason: "it is bad"}
	if got := over(t, ProblemOf(invalid)).Err(); !reflect.DeepEqual(got, invalid) {
		t.Errorf("%#v", got)
	}
	notFound := &ackwise.NotFoundError{Kind: "topic", Name: "ordr", Nearest: "order"}
	if got := over(t, ProblemOf(notFound)).Err(); !reflect.DeepEqual(got, notFound) {
		t.Errorf("%#v", got)
	}
	all := fmt.Errorf("open: %w", &ackwise.HintError{Hint: "wait",
		Err: errors.Join(invalid, notFound, fmt.Errorf("store: %w", queue.ErrFatal))})
	got := over(t, ProblemOf(all)).Err()
	var (
		i *ackwise.InvalidError
		n *ackwise.NotFoundError
		h *ackwise.HintError
	)
	if got.Error() != all.Error() || !errors.As(got, &i) || *i != *invalid ||
		!errors.As(got, &n) || *n != *notFound || !errors.Is(got, queue.ErrFatal) ||
		!errors.As(got, &h) || h.Hint != "wait" || h.Error() == "" {
		t.Errorf("%v", got)
	}
	unknown := errors.New("the disk is on fire")
	if got := over(t, ProblemOf(unknown)).Err(); got.Error() != unknown.Error() ||
		errors.Is(got, context.Canceled) {
		t.Errorf("%v", got)
	}
}

func TestBytesOfAnyKind(t *testing.T) {
	for _, s := range []Bytes{"", "text", "ü", "\xff\x00", "{", `{"64":""}`} {
		if got := over(t, s); got != s {
			t.Errorf("%q came out as %q", s, got)
		}
	}
}

func TestDeliveriesComeOutAsTheyWentIn(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	d := &ackwise.Delivery{Message: ackwise.Message{ID: "i", Topic: "t", Key: "\xff", Time: at,
		Headers: []ackwise.Header{{Name: "h", Value: []byte{0}}}, Body: []byte{0xfe}},
		Attempt: 3, Counts: ackwise.Counts{HandOuts: 3, Failures: 1, Crashes: 1, Redrives: 1},
		Cause: ackwise.CauseRedriven, History: []ackwise.Attempt{{Number: 1, Time: at,
			Consumer: "c", Cause: ackwise.CauseFirst, Outcome: "nack", Error: "e", Duration: 5}},
		Token: "tok", Deadline: at, Partition: "p", Position: "pos", Epoch: 2, Suspect: true}
	got := over(t, ReceivedOf([]*ackwise.Delivery{d})).Values()
	if len(got) != 1 || !reflect.DeepEqual(got[0], d) {
		t.Errorf("%+v came out as %+v", d, got[0])
	}
	fields := reflect.TypeFor[ackwise.Delivery]()
	for i := range fields.NumField() {
		if f := fields.Field(i); f.IsExported() && reflect.ValueOf(d).Elem().Field(i).IsZero() {
			t.Errorf("this test does not look at the field %s", f.Name)
		}
	}
}

func TestResultsComeOutAsTheyWentIn(t *testing.T) {
	in := []ackwise.Result{
		{Class: ackwise.ResultAccepted, ID: "a", Position: "1", Duplicate: true},
		{Class: ackwise.ResultRetryable, ID: "b", Err: ackwise.ErrFull, After: time.Second},
		{Class: ackwise.ResultRejected, Err: ackwise.ErrIDConflict},
		{Class: ackwise.ResultUnknown, Err: queue.ErrFatal},
		{Class: ackwise.ResultNotAttempted, Err: ackwise.ErrTooLarge},
	}
	if got := over(t, PublishedOf(in)).Values(); !reflect.DeepEqual(got, in) {
		t.Errorf("%+v came out as %+v", in, got)
	}
	odd := Published{Results: []result{{Class: "perhaps"}}}
	if got := odd.Values()[0].Class; got != ackwise.ResultUnknown {
		t.Errorf("an unknown class is read as %s", got)
	}
	settled := []ackwise.SettleResult{{Err: ackwise.ErrLeaseLost}, {Already: true},
		{Deadline: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}}
	if got := over(t, SettledOf(settled)).Values(); !reflect.DeepEqual(got, settled) {
		t.Errorf("%+v came out as %+v", settled, got)
	}
}

func TestTransactionsComeOutAsTheyWentIn(t *testing.T) {
	var ss []ackwise.Settlement
	for o := ackwise.OutcomeAck; o <= ackwise.OutcomeDrop; o++ {
		ss = append(ss, ackwise.Settlement{Token: "t", Outcome: o, Delay: 5, Reason: "r"})
	}
	in := queue.Commit{ID: "x", Settle: ss,
		Publish: []ackwise.Message{{ID: "m", Topic: "t", Body: []byte{}}},
		Reads:   []queue.TableRead{{Table: "t", Key: "\xff", Version: 7}},
		Writes: []queue.TableWrite{{Table: "t", Key: "a", Value: []byte{0xff}},
			{Table: "t", Key: "empty", Value: []byte{}}, {Table: "t", Key: "deleted"}},
		Once: map[string][]idempotency.Ask{"a": {{Key: "\xff", Sum: idempotency.Sum{1}}, {Key: "k"}},
			"b": {{Key: "k"}}}}
	got, err := over(t, TransactionOf(in)).Commit()
	if err != nil || !reflect.DeepEqual(got, in) {
		t.Errorf("%+v came out as %+v, %v", in, got, err)
	}
	fields := reflect.TypeFor[queue.Commit]()
	for i := range fields.NumField() {
		if reflect.ValueOf(in).Field(i).IsZero() {
			t.Errorf("this test does not look at the field %s", fields.Field(i).Name)
		}
	}
	bad := SettleRequest{Settlements: []settlement{{Outcome: "explode"}}}
	var invalid *ackwise.InvalidError
	if _, err := bad.Values(); !errors.As(err, &invalid) || invalid.Value != "explode" {
		t.Errorf("an unknown outcome: %v", err)
	}
}

// FuzzProblem: whatever a server says becomes an error, and the same one again.
func FuzzProblem(f *testing.F) {
	for _, s := range sentinels {
		b, err := json.Marshal(ProblemOf(fmt.Errorf("x: %w", s.err)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"type":"urn:ackwise:invalid","invalid":{},"hint":"h","also":["urn:x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Problem
		if json.Unmarshal(data, &p) != nil {
			return
		}
		err := p.Err()
		if again := ProblemOf(err).Err(); again == nil || again.Error() != err.Error() {
			t.Errorf("%v became %v", err, again)
		}
	})
}

// FuzzBytes: whatever is read comes out as it is written again.
func FuzzBytes(f *testing.F) {
	f.Add([]byte(`"text"`))
	f.Add([]byte(`{"64":"/wA="}`))
	f.Add([]byte(`{"64":1}`))
	f.Add([]byte(`nul`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b, again Bytes
		if b.UnmarshalJSON(data) != nil {
			return
		}
		out, err := b.MarshalJSON()
		if err == nil {
			err = again.UnmarshalJSON(out)
		}
		if err != nil || again != b || bytes.Contains(out, []byte("\n")) {
			t.Errorf("%q was written as %s and read as %q, %v", b, out, again, err)
		}
	})
}
