package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
)

// The words of Answer.Outcome.
const (
	Done    = "done"    // ack
	Failed  = "failed"  // nack with the policy's backoff
	Retry   = "retry"   // nack, again After
	Snooze  = "snooze"  // not now, again After; spends nothing
	Release = "release" // given back unattempted; spends nothing
	Reject  = "reject"  // dead letter now
	Drop    = "drop"    // away, with Reason
)

// Answer is what a handler process says about one delivery.
type Answer struct {
	Token   ackwise.LeaseToken
	Outcome string
	After   time.Duration // Retry and Snooze only, where it is required
	Reason  string
}

// Line is a line that a handler process gets: a delivery or a notice.
type Line struct {
	Delivery *ackwise.Delivery // nil in a notice
	Pipeline string            // with Delivery
	Token    ackwise.LeaseToken
	Settled  bool // the settlement of Token has returned
	Lost     bool // the lease of Token is gone
	Stop     bool // finish and end
}

// errReleased is what a handler returns for a delivery that nobody attempted. To a loop that does
// not know it, it is a snooze of no length, which spends nothing either; Sessions makes it a
// release.
var errReleased = fmt.Errorf("given back unattempted: %w", ackwise.Snooze(0))

type deliveryJSON struct {
	Pipeline    string             `json:"pipeline,omitempty"`
	Attempt     int                `json:"attempt"`
	Cause       ackwise.Cause      `json:"cause"`
	Redelivered bool               `json:"redelivered"`
	Token       ackwise.LeaseToken `json:"token"`
	Deadline    time.Time          `json:"deadline,omitzero"`
}

type noticeJSON struct {
	Token   ackwise.LeaseToken `json:"token,omitempty"`
	Settled bool               `json:"settled,omitempty"`
	Lost    bool               `json:"lost,omitempty"`
	Stop    bool               `json:"stop,omitempty"`
}

type answerJSON struct {
	Token   *ackwise.LeaseToken `json:"token"`
	Outcome string              `json:"outcome"`
	After   string              `json:"after,omitempty"`
	Reason  string              `json:"reason,omitempty"`
}

// AppendLine appends a line for a handler process to b, with its line feed.
func AppendLine(b []byte, l Line) ([]byte, error) {
	if l.Delivery == nil {
		n, err := json.Marshal(noticeJSON{l.Token, l.Settled, l.Lost, l.Stop})
		return append(append(b, n...), '\n'), err
	}
	d := l.Delivery
	m := d.Message
	m.Topic = "" // the pipeline names it
	head, err := json.Marshal(m)
	if err != nil {
		return b, fmt.Errorf("write delivery %q: %w", d.ID, err)
	}
	tail, err := json.Marshal(deliveryJSON{Pipeline: l.Pipeline, Attempt: d.Attempt,
		Cause: d.Cause, Redelivered: d.Redelivered(), Token: d.Token, Deadline: d.Deadline.UTC()})
	if err != nil {
		return b, fmt.Errorf("write delivery %q: %w", d.ID, err)
	}
	b = append(b, head[:len(head)-1]...) // both are objects: one object of both
	b = append(b, ',')
	b = append(b, tail[1:]...)
	return append(b, '\n'), nil
}

// ParseLine reads a line that AppendLine wrote.
func ParseLine(b []byte) (Line, error) {
	var n noticeJSON
	if err := json.Unmarshal(b, &n); err != nil {
		return Line{}, fmt.Errorf("read line: %w", err)
	}
	switch {
	case n.Stop:
		return Line{Stop: true}, nil
	case n.Token == "":
		return Line{}, errors.New(`read line: it has no "token"`)
	case n.Settled || n.Lost:
		return Line{Token: n.Token, Settled: n.Settled, Lost: n.Lost}, nil
	}
	d := new(ackwise.Delivery)
	if err := json.Unmarshal(b, &d.Message); err != nil {
		return Line{}, err
	}
	var j deliveryJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Line{}, fmt.Errorf("read delivery: %w", err)
	}
	d.Attempt, d.Cause, d.Token, d.Deadline = j.Attempt, j.Cause, j.Token, j.Deadline
	return Line{Delivery: d, Pipeline: j.Pipeline, Token: d.Token}, nil
}

// AppendAnswer appends an answer line to b, with its line feed.
func AppendAnswer(b []byte, a Answer) []byte {
	j := answerJSON{Token: &a.Token, Outcome: a.Outcome, Reason: a.Reason}
	if a.Outcome == Retry || a.Outcome == Snooze {
		j.After = a.After.String()
	}
	line, err := json.Marshal(j)
	if err != nil {
		panic(err) // strings only: it cannot fail
	}
	return append(append(b, line...), '\n')
}

// ParseAnswer reads an answer line. Where the token could be read the answer carries it, also
// beside an error: the error is then about that delivery.
func ParseAnswer(b []byte) (Answer, error) {
	var j answerJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return Answer{}, fmt.Errorf("not an answer of the handler protocol: %.80q", b)
	}
	if j.Token == nil || *j.Token == "" {
		return Answer{}, fmt.Errorf(`an answer without "token": %.80q`, b)
	}
	a := Answer{Token: *j.Token, Outcome: j.Outcome, Reason: ackwise.CutError(j.Reason)}
	switch j.Outcome {
	case Retry, Snooze:
		if j.After == "" {
			return a, fmt.Errorf(`outcome %q needs "after", such as "5s"`, j.Outcome)
		}
		after, err := time.ParseDuration(j.After)
		if err != nil || after < 0 {
			return a, fmt.Errorf(`"after" is %.40q; it must be a duration such as "5s"`, j.After)
		}
		a.After = after
	case Done, Failed, Release, Reject, Drop:
		if j.After != "" {
			return a, fmt.Errorf(`outcome %q takes no "after"; %q does`, j.Outcome, Retry)
		}
	default:
		return a, fmt.Errorf("unknown outcome %.40q%s", j.Outcome, hintOutcome(j.Outcome))
	}
	return a, nil
}

func hintOutcome(word string) string {
	words := []string{Done, Failed, Retry, Snooze, Release, Reject, Drop}
	if len(word) <= 40 {
		if near := nearest.Of(word, words); near != "" {
			return fmt.Sprintf("; did you mean %q?", near)
		}
	}
	return "; the outcomes are " + strings.Join(words, ", ")
}

// Err is the answer as a handler's returned error.
func (a Answer) Err() error {
	switch a.Outcome {
	case Done:
		return nil
	case Retry:
		return ackwise.RetryAfter(a.reason(), a.After)
	case Snooze:
		return ackwise.Snooze(a.After)
	case Release:
		return errReleased
	case Reject:
		return ackwise.Reject(a.reason())
	case Drop:
		return ackwise.Drop(a.reason().Error())
	}
	return a.reason()
}

func (a Answer) reason() error {
	if a.Reason == "" {
		return fmt.Errorf("the handler process answered %q without a reason", a.Outcome)
	}
	return errors.New(a.Reason)
}
