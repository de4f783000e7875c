package wire

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
)

// ContentType is the media type of a problem (RFC 9457).
const ContentType = "application/problem+json"

// urn is what every problem's type begins with.
const urn = "urn:ackwise:"

// Errors that the client deals with itself.
var (
	// ErrHandingOver: this owner is about to give the directory up. Nothing is known of what the
	// call did; it is sent again to the next owner.
	ErrHandingOver = errors.New("the owner is giving the directory up")
	// ErrNoSession: no such session is open here; it is opened first.
	ErrNoSession = errors.New("no such session is open here")
)

// Problem is an error as JSON (RFC 9457). Type and Also name what errors.Is and errors.As find in
// it; Detail is its text.
type Problem struct {
	Type     string                 `json:"type"`
	Title    string                 `json:"title,omitempty"`
	Status   int                    `json:"status,omitempty"`
	Detail   string                 `json:"detail"`
	Also     []string               `json:"also,omitempty"` // further types
	Invalid  *ackwise.InvalidError  `json:"invalid,omitempty"`
	NotFound *ackwise.NotFoundError `json:"not_found,omitempty"`
	Rule     *idempotency.RuleError `json:"rule,omitempty"`
	Hint     string                 `json:"hint,omitempty"`
	HintFor  string                 `json:"hint_for,omitempty"` // the text that the hint was added to
}

// The table, for both directions: the most telling first, since the first that an error is becomes
// its Type. Clients live by these words; they are never changed, only added to.
var sentinels = []struct {
	word   string
	status int
	err    error
}{
	{"handing-over", http.StatusServiceUnavailable, ErrHandingOver},
	{"no-session", http.StatusGone, ErrNoSession},
	{"lease-lost", http.StatusConflict, ackwise.ErrLeaseLost},
	{"settled", http.StatusConflict, ackwise.ErrSettled},
	{"run-order", http.StatusConflict, ackwise.ErrRunOrder},
	{"bad-token", http.StatusBadRequest, ackwise.ErrBadToken},
	{"id-conflict", http.StatusConflict, ackwise.ErrIDConflict},
	{"conflict", http.StatusConflict, queue.ErrConflict},
	{"fence", http.StatusConflict, idempotency.ErrFence},
	{"full", http.StatusInsufficientStorage, ackwise.ErrFull},
	{"too-large", http.StatusRequestEntityTooLarge, ackwise.ErrTooLarge},
	{"exists", http.StatusConflict, ackwise.ErrExists},
	{"fatal", http.StatusInternalServerError, queue.ErrFatal},
	{"closed", http.StatusGone, ackwise.ErrClosed},
	{"stopping", http.StatusServiceUnavailable, ackwise.ErrStopping},
	{"canceled", http.StatusRequestTimeout, context.Canceled},
	{"deadline", http.StatusRequestTimeout, context.DeadlineExceeded},
}

// Words of errors that are types, and of those that are nothing we know.
const (
	invalidWord  = "invalid"
	notFoundWord = "not-found"
	ruleWord     = "rule"
	otherWord    = "other"
)

// ProblemOf turns an error into a problem; nil into nil.
func ProblemOf(err error) *Problem {
	if err == nil {
		return nil
	}
	p := &Problem{Detail: err.Error()}
	var (
		hint     *ackwise.HintError
		invalid  *ackwise.InvalidError
		notFound *ackwise.NotFoundError
		rule     *idempotency.RuleError
	)
	if errors.As(err, &hint) {
		p.Hint, p.HintFor = hint.Hint, hint.Err.Error()
	}
	if errors.As(err, &invalid) {
		p.Invalid = invalid
		p.add(invalidWord, http.StatusBadRequest, "invalid value")
	}
	if errors.As(err, &notFound) {
		p.NotFound = notFound
		p.add(notFoundWord, http.StatusNotFound, "not found")
	}
	if errors.As(err, &rule) {
		p.Rule = rule
		p.add(ruleWord, http.StatusConflict, "another rule")
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			p.add(s.word, s.status, s.err.Error())
		}
	}
	if p.Type == "" {
		p.add(otherWord, http.StatusInternalServerError, "error")
	}
	return p
}

func (p *Problem) add(word string, status int, title string) {
	if p.Type != "" {
		p.Also = append(p.Also, urn+word)
		return
	}
	p.Type, p.Status, p.Title = urn+word, status, title
}

// Err turns it back; nil into nil. An error that was a plain sentinel or typed error is that again.
func (p *Problem) Err() error {
	if p == nil {
		return nil
	}
	var is []error
	if p.Hint != "" {
		is = append(is, &ackwise.HintError{Err: errors.New(p.HintFor), Hint: p.Hint})
	}
	if p.Invalid != nil {
		is = append(is, p.Invalid)
	}
	if p.NotFound != nil {
		is = append(is, p.NotFound)
	}
	if p.Rule != nil {
		is = append(is, p.Rule)
	}
	for _, s := range sentinels {
		if p.is(s.word) {
			is = append(is, s.err)
		}
	}
	if len(is) == 1 && is[0].Error() == p.Detail {
		return is[0]
	}
	return &remoteError{text: p.Detail, is: is}
}

func (p *Problem) is(word string) bool {
	if p.Type == urn+word {
		return true
	}
	return slices.Contains(p.Also, urn+word)
}

// remoteError is an error that came over the wire: its text, and what it is.
type remoteError struct {
	text string
	is   []error
}

func (e *remoteError) Error() string   { return e.text }
func (e *remoteError) Unwrap() []error { return e.is }
