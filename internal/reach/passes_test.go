package reach_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/internal/reach"
)

// answered is an error that holds an HTTP status; 0 = there was no answer.
type answered struct {
	status int
	err    error
}

func (e answered) Error() string       { return fmt.Sprint("status ", e.status) }
func (e answered) Unwrap() error       { return e.err }
func (e answered) HTTPStatusCode() int { return e.status }

// called is an error of a call of a service of AWS.
type called struct {
	service string
	err     error
}

func (e called) Error() string   { return e.service }
func (e called) Unwrap() error   { return e.err }
func (e called) Service() string { return e.service }

// refusal is an answer of a service of AWS.
type refusal struct {
	status int
	code   string
}

func (r refusal) Error() string       { return r.code }
func (r refusal) HTTPStatusCode() int { return r.status }
func (r refusal) ErrorCode() string   { return r.code }

// state is an answer of Postgres, and word one of Redis.
type (
	state string
	word  string
)

func (s state) Error() string    { return string(s) }
func (s state) SQLState() string { return string(s) }
func (w word) Error() string     { return string(w) }
func (w word) RedisError()       {}

func TestPasses(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"refused":                           {fmt.Errorf("open: %w", refused), true},
		"refused, in an answer without one": {called{"SQS", answered{0, refused}}, true},
		"cut":                               {&url.Error{Op: "Get", Err: io.EOF}, true},
		"cut in an answer":                  {answered{0, io.ErrUnexpectedEOF}, true},
		"no answer in time":                 {fmt.Errorf("ask: %w", context.DeadlineExceeded), true},
		"a server that fails":               {answered{503, io.EOF}, true},
		"too many requests":                 {answered{429, nil}, true},
		"throttled":                         {refusal{400, "Throttling"}, true},
		"throttled, and named in full":      {refusal{403, "AWS.SQS.RequestThrottled"}, true},
		"Postgres starts":                   {fmt.Errorf("check: %w", state("57P03")), true},
		"Postgres has no room":              {state("53300"), true},
		"no such database":                  {state("3D000"), false},
		"no such user":                      {state("28P01"), false},
		"Redis loads":                       {word("LOADING Redis is loading the dataset"), true},
		"Redis wants a login":               {word("NOAUTH Authentication required."), false},
		"another code":                      {refusal{400, "ValidationException"}, false},
		"a name server that fails":          {&net.DNSError{IsTemporary: true}, true},
		"no such host":                      {&net.OpError{Err: &net.DNSError{IsNotFound: true}}, false},
		"a permission":                      {answered{403, nil}, false},
		"no such thing":                     {answered{404, io.EOF}, false},
		"a certificate of ours is refused":  {&net.OpError{Op: "remote error", Err: io.EOF}, false},
		"no credentials":                    {called{"ec2imds", answered{0, refused}}, false},
		"a token that is not there":         {errors.New("read the option token: it is empty"), false},
		"stopped":                           {context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := reach.Passes(c.err); got != c.want {
				t.Errorf("%v passes: %v, want %v", c.err, got, c.want)
			}
		})
	}
}
