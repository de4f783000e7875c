// Package claims holds the JSON forms of what the native API says of dedup sets.
//
//	OpenSet, BindSet  SetRequest  ─▶ {}
//	Claim, Look       Asks        ─▶ Answers
//	SettleClaims      Settlements ─▶ Settled
//
// It promises what package wire does: values and errors come out as they went in. It checks no
// bounds: the store does, at the owner.
package claims

import (
	"time"

	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/idempotency"
)

// SetRequest names a dedup set.
type SetRequest struct {
	Set     string        `json:"set"`
	Window  time.Duration `json:"window,omitempty"`   // OpenSet
	MaxKeys int           `json:"max_keys,omitempty"` // OpenSet
	Rule    wire.Bytes    `json:"rule,omitempty"`     // BindSet
}

// Asks is a call of Claim. A call that is sent again keeps its number, and gets what it has got.
type Asks struct {
	Set  string `json:"set"`
	Call uint64 `json:"call,omitempty"`
	Asks []ask  `json:"asks"`
}

// ask is an idempotency.Ask.
type ask struct {
	Key   wire.Bytes      `json:"key"`
	Sum   idempotency.Sum `json:"sum"`
	Lease time.Duration   `json:"lease,omitempty"`
}

// AsksOf turns asks into their JSON form.
func AsksOf(set string, call uint64, asks []idempotency.Ask) Asks {
	r := Asks{Set: set, Call: call, Asks: make([]ask, len(asks))}
	for i, a := range asks {
		r.Asks[i] = ask{Key: wire.Bytes(a.Key), Sum: a.Sum, Lease: a.Lease}
	}
	return r
}

// Values turns them back.
func (r Asks) Values() []idempotency.Ask {
	asks := make([]idempotency.Ask, len(r.Asks))
	for i, w := range r.Asks {
		asks[i] = idempotency.Ask{Key: string(w.Key), Sum: w.Sum, Lease: w.Lease}
	}
	return asks
}

// Answers answers Asks.
type Answers struct {
	Answers []answer `json:"answers"`
}

// answer is an idempotency.Answer.
type answer struct {
	Status   string        `json:"status,omitempty"`
	Fence    uint64        `json:"fence,omitempty"`
	Takeover bool          `json:"takeover,omitempty"`
	Result   []byte        `json:"result"` // base64; null = none was kept
	Time     time.Time     `json:"time,omitzero"`
	Wait     time.Duration `json:"wait,omitempty"`
	Error    *wire.Problem `json:"error,omitempty"`
}

// AnswersOf turns answers into their JSON form.
func AnswersOf(answers []idempotency.Answer) Answers {
	r := Answers{Answers: make([]answer, len(answers))}
	for i, a := range answers {
		r.Answers[i] = answer{Fence: a.Fence, Takeover: a.Takeover, Result: a.Result, Time: a.Time,
			Wait: a.Wait, Error: wire.ProblemOf(a.Err)}
		if a.Status != 0 {
			r.Answers[i].Status = a.Status.String()
		}
	}
	return r
}

// Values turns them back. A status that this version does not know is none.
func (r Answers) Values() []idempotency.Answer {
	answers := make([]idempotency.Answer, len(r.Answers))
	for i, w := range r.Answers {
		answers[i] = idempotency.Answer{Status: statusOf(w.Status), Fence: w.Fence,
			Takeover: w.Takeover, Result: w.Result, Time: w.Time, Wait: w.Wait, Err: w.Error.Err()}
	}
	return answers
}

func statusOf(word string) idempotency.Status {
	for s := idempotency.Claimed; s <= idempotency.Conflict; s++ {
		if s.String() == word {
			return s
		}
	}
	return 0
}

// Settlements is a call of SettleClaims.
type Settlements struct {
	Set    string       `json:"set"`
	Claims []settlement `json:"claims"`
}

// settlement is an idempotency.Settlement.
type settlement struct {
	Key    wire.Bytes       `json:"key"`
	Fence  uint64           `json:"fence"`
	Verb   idempotency.Verb `json:"verb"` // 1 complete, 2 release, 3 extend
	Result []byte           `json:"result"`
	Lease  time.Duration    `json:"lease,omitempty"`
}

// SettlementsOf turns settlements into their JSON form.
func SettlementsOf(set string, claims []idempotency.Settlement) Settlements {
	r := Settlements{Set: set, Claims: make([]settlement, len(claims))}
	for i, c := range claims {
		r.Claims[i] = settlement{Key: wire.Bytes(c.Key), Fence: c.Fence, Verb: c.Verb,
			Result: c.Result, Lease: c.Lease}
	}
	return r
}

// Values turns them back.
func (r Settlements) Values() []idempotency.Settlement {
	claims := make([]idempotency.Settlement, len(r.Claims))
	for i, w := range r.Claims {
		claims[i] = idempotency.Settlement{Key: string(w.Key), Fence: w.Fence, Verb: w.Verb,
			Result: w.Result, Lease: w.Lease}
	}
	return claims
}

// Settled answers Settlements.
type Settled struct {
	Errors []*wire.Problem `json:"errors"` // null = it is settled
}

// SettledOf turns results into their JSON form.
func SettledOf(errs []error) Settled {
	s := Settled{Errors: make([]*wire.Problem, len(errs))}
	for i, err := range errs {
		s.Errors[i] = wire.ProblemOf(err)
	}
	return s
}

// Values turns them back.
func (s Settled) Values() []error {
	errs := make([]error, len(s.Errors))
	for i, p := range s.Errors {
		errs[i] = p.Err()
	}
	return errs
}
