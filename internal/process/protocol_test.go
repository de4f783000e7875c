package process

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// delivery is one with every field that the protocol carries.
func delivery() *ackwise.Delivery {
	return &ackwise.Delivery{
		Message: ackwise.Message{ID: "m-1", Key: "k\xff", Body: []byte("<body>\x80"),
			Headers: []ackwise.Header{{Name: "a", Value: []byte("1")}, {Name: "a", Value: []byte{0}},
				{Name: "b", Value: []byte{0xfe}}},
			Time: time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)},
		Attempt: 3, Cause: ackwise.CauseConsumerLost, Token: "t/1",
		Deadline: time.Date(2026, 1, 2, 3, 5, 5, 9, time.UTC),
	}
}

func TestLineRoundTrip(t *testing.T) {
	empty, absent := delivery(), delivery()
	empty.Body, empty.Key, empty.Headers = []byte{}, "", nil
	absent.Body, absent.Cause, absent.Deadline = nil, ackwise.CauseFirst, time.Time{}
	for _, want := range []Line{
		{Delivery: delivery(), Pipeline: "t/s", Token: "t/1"},
		{Delivery: empty, Pipeline: "t/s", Token: "t/1"},
		{Delivery: absent, Token: "t/1"},
		{Token: "x", Settled: true}, {Token: "x", Lost: true}, {Stop: true},
	} {
		b, err := AppendLine(nil, want)
		if err != nil || bytes.Count(b, []byte("\n")) != 1 {
			t.Fatalf("AppendLine = %q, %v; want one line", b, err)
		}
		got, err := ParseLine(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseLine(%s) = %+v, %v; want %+v", b, got, err, want)
		}
	}
}

func TestLineForm(t *testing.T) {
	d := delivery()
	d.Topic = "not in the line"
	got, err := AppendLine(nil, Line{Delivery: d, Pipeline: "t/s"})
	want := `{"id":"m-1","key64":"a/8=","headers":[{"name":"a","value":"1"},` +
		`{"name":"a","value":"\u0000"},{"name":"b","value64":"/g=="}],"body64":"PGJvZHk+gA==",` +
		`"time":"2026-01-02T03:04:05.000000678Z","pipeline":"t/s","attempt":3,` +
		`"cause":"consumer-lost","redelivered":true,"token":"t/1",` +
		`"deadline":"2026-01-02T03:05:05.000000009Z"}` + "\n"
	if err != nil || string(got) != want {
		t.Errorf("line = %s, %v; want %s", got, err, want)
	}
}

func TestParseAnswer(t *testing.T) {
	for _, c := range []struct {
		line, fault string // part of the error; "" = none
		want        Answer
	}{
		{`{"token":"t","outcome":"done"}`, "", Answer{Token: "t", Outcome: Done}},
		{`{"token":"t","outcome":"failed","reason":"r"}`, "", Answer{Token: "t", Outcome: Failed,
			Reason: "r"}},
		{`{"token":"t","outcome":"retry","after":"5s"}`, "", Answer{Token: "t", Outcome: Retry,
			After: 5 * time.Second}},
		{`{"token":"t","outcome":"snooze","after":"0s"}`, "", Answer{Token: "t", Outcome: Snooze}},
		{`{"token":"t","outcome":"retry"}`, `needs "after"`, Answer{Token: "t", Outcome: Retry}},
		{`{"token":"t","outcome":"snooze"}`, `needs "after"`, Answer{Token: "t", Outcome: Snooze}},
		{`{"token":"t","outcome":"retry","after":"soon"}`, `"after" is`, Answer{Token: "t", Outcome: Retry}},
		{`{"token":"t","outcome":"retry","after":"-1s"}`, `"after" is`, Answer{Token: "t", Outcome: Retry}},
		{`{"token":"t","outcome":"done","after":"1s"}`, `takes no "after"`, Answer{Token: "t", Outcome: Done}},
		{`{"token":"t","outcome":"dnoe"}`, `did you mean "done"`, Answer{Token: "t", Outcome: "dnoe"}},
		{`{"token":"t"}`, `unknown outcome`, Answer{Token: "t"}},
		{`{"outcome":"done"}`, `without "token"`, Answer{}},
		{`{"token":"t","outcome":"retry","after":5}`, `not an answer`, Answer{}},
		{`hello`, `not an answer`, Answer{}},
		{``, `not an answer`, Answer{}},
		{`null`, `without "token"`, Answer{}},
	} {
		got, err := ParseAnswer([]byte(c.line))
		if got != c.want || (err == nil) != (c.fault == "") ||
			err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("ParseAnswer(%s) = %+v, %v; want %+v, %q", c.line, got, err, c.want, c.fault)
		}
	}
}

func TestAnswerErr(t *testing.T) {
	for _, c := range []struct {
		a    Answer
		want ackwise.Verdict
	}{
		{Answer{Outcome: Done}, ackwise.Verdict{Outcome: ackwise.OutcomeAck}},
		{Answer{Outcome: Failed, Reason: "r"}, ackwise.Verdict{Outcome: ackwise.OutcomeNack,
			Reason: "r"}},
		{Answer{Outcome: Retry, After: 5, Reason: "r"}, ackwise.Verdict{
			Outcome: ackwise.OutcomeNack, Delay: 5, After: true, Reason: "r"}},
		{Answer{Outcome: Snooze, After: 5}, ackwise.Verdict{Outcome: ackwise.OutcomeSnooze, Delay: 5}},
		{Answer{Outcome: Release}, ackwise.Verdict{Outcome: ackwise.OutcomeSnooze}},
		{Answer{Outcome: Reject, Reason: "r"}, ackwise.Verdict{Outcome: ackwise.OutcomeDead,
			Reason: "r"}},
		{Answer{Outcome: Drop}, ackwise.Verdict{Outcome: ackwise.OutcomeDrop,
			Reason: `the handler process answered "drop" without a reason`}},
	} {
		if got := ackwise.OutcomeOf(c.a.Err()); got != c.want {
			t.Errorf("%+v = %+v, want %+v", c.a, got, c.want)
		}
	}
}

// FuzzParseAnswer: an answer that is understood says the same when it is written again, and one
// that is not keeps its token out of the way of others.
func FuzzParseAnswer(f *testing.F) {
	for _, s := range []string{`{"token":"t","outcome":"done"}`,
		`{"token":"t","outcome":"retry","after":"1m0s","reason":"\u0000"}`,
		`{"token":"","outcome":"drop"}`, `[]`, "nonsense", `{"token":"t","outcome":"done","after":"1s"}`,
		`{"token":1}`, `{"token":"a","token":"b","outcome":"release"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err != nil {
			if err.Error() == "" || len(err.Error()) > 4096 {
				t.Errorf("error of %d bytes for %q", len(err.Error()), b)
			}
			return
		}
		again, err := ParseAnswer(AppendAnswer(nil, a))
		if err != nil || again != a {
			t.Errorf("%q is %+v, written again %+v, %v", b, a, again, err)
		}
		ackwise.OutcomeOf(a.Err())
	})
}

// FuzzParseLine: what is read as a line is the same when it is written again.
func FuzzParseLine(f *testing.F) {
	line, _ := AppendLine(nil, Line{Delivery: delivery(), Pipeline: "t/s"})
	for _, s := range []string{string(line), `{"token":"t","settled":true}`, `{"stop":true}`,
		`{"token":"t","lost":true}`, `{"id":"x","token":"t","body":""}`, `{}`, `[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLine(b)
		if err != nil {
			return
		}
		written, err := AppendLine(nil, l)
		if err != nil {
			t.Skip("a time that JSON cannot hold")
		}
		again, err := ParseLine(written)
		if err != nil {
			t.Fatalf("%q is read, but written as %q: %v", b, written, err)
		}
		if twice, _ := AppendLine(nil, again); !bytes.Equal(twice, written) {
			t.Errorf("%q is written as %q, then as %q", b, written, twice)
		}
	})
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	in := "a\n\n" + long + "\nb\r\n" + strings.Repeat("y", 100<<10) + "\nlast"
	r := NewLineReader(strings.NewReader(in), 100<<10)
	type line struct {
		n    int
		text string
		long bool
	}
	want := []line{{1, "a", false}, {2, "", false}, {3, "", true}, {4, "b\r", false},
		{5, strings.Repeat("y", 100<<10), false}, {6, "last", false}}
	for _, w := range want {
		l, err := r.Next()
		if got := (line{l.Number, string(l.Text), l.TooLong}); err != nil || got != w {
			t.Fatalf("line = %d %.20q %v, %v; want %d %.20q %v", got.n, got.text, got.long, err,
				w.n, w.text, w.long)
		}
	}
	if _, err := r.Next(); err == nil || err.Error() != "EOF" {
		t.Errorf("at the end: %v, want EOF", err)
	}
}
