package adaptertest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

// form is one message of the checks Bodies and Headers, by the name that Harness.Rejects may have.
type form struct {
	name string
	set  func(m *ackwise.Message)
}

const (
	largeBody = 200_000
	// tooLarge is the longest body that the suite makes to see it refused.
	tooLarge = 8 << 20
)

// allBytes returns every byte once, from 0 to 255.
func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func bodyForms(most int) []form {
	if most == 0 || most > largeBody {
		most = largeBody
	}
	body := func(b []byte) func(*ackwise.Message) { return func(m *ackwise.Message) { m.Body = b } }
	return []form{
		{"empty body", body([]byte{})},
		{"nil body", body(nil)},
		{"body of all bytes", body(allBytes())},
		{"body with line feeds", body([]byte("{\"a\":\n1}\r\n"))},
		{"body that is plain text", body([]byte("plain text, no JSON"))},
		// Half of the bound leaves room for what a system counts beside the body.
		{"large body", body([]byte(`{"x":"` + strings.Repeat("x", most/2) + `"}`))},
	}
}

func headerForms() []form {
	set := func(hs ...ackwise.Header) func(*ackwise.Message) {
		return func(m *ackwise.Message) { m.Headers = hs }
	}
	var many []ackwise.Header
	for i := range 40 {
		many = append(many, ackwise.Header{Name: fmt.Sprintf("name-%d", i), Value: []byte("value")})
	}
	return []form{
		{"header", set(ackwise.Header{Name: "name", Value: []byte("value")})},
		{"header of all bytes", set(ackwise.Header{Name: "name", Value: allBytes()})},
		{"empty header", set(ackwise.Header{Name: "name", Value: []byte{}})},
		{"repeated names", set(ackwise.Header{Name: "b", Value: []byte("1")},
			ackwise.Header{Name: "a", Value: []byte("2")},
			ackwise.Header{Name: "b", Value: []byte("3")})},
		{"names that differ in case", set(ackwise.Header{Name: "Name", Value: []byte("1")},
			ackwise.Header{Name: "name", Value: []byte("2")})},
		{"name with every ASCII sign",
			set(ackwise.Header{Name: "a !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~z", Value: []byte("1")})},
		{"name beyond ASCII", set(ackwise.Header{Name: "größe-✓", Value: []byte("1")})},
		{"40 headers", set(many...)},
		{"key of all bytes", func(m *ackwise.Message) { m.Key = string(allBytes()) }},
		{"key of 1024 bytes", func(m *ackwise.Message) {
			m.Key = strings.Repeat("k", ackwise.MaxKeyBytes)
		}},
		{"ID of 256 bytes", func(m *ackwise.Message) {
			m.ID += strings.Repeat("i", ackwise.MaxIDBytes-len(m.ID))
		}},
		{"time", func(m *ackwise.Message) {
			m.Time = time.Date(2026, time.January, 2, 3, 4, 5, 678_000_000, time.UTC)
		}},
		{"ID beyond ASCII", func(m *ackwise.Message) { m.ID += " größe/✓#" }},
	}
}

func bodies(r *rig) {
	r.forms(bodyForms(r.h.Sink.MaxBodyBytes))
	most := r.h.Sink.MaxBodyBytes
	if most == 0 || most > tooLarge {
		return
	}
	m := messages(900, 1, 0)
	m[0].Body = bytes.Repeat([]byte("1"), most+1)
	r.book.send(m)
	if res := r.publishOnce(m)[0]; res.Class != ackwise.ResultRejected {
		r.t.Errorf("a body of %d bytes, one more than MaxBodyBytes: %s, %v", most+1, res.Class,
			res.Err)
	}
}

func headers(r *rig) { r.forms(headerForms()) }

// forms publishes one message of each form. Each one arrives as it was, or is refused as the
// harness says.
func (r *rig) forms(fs []form) {
	r.sink()
	if r.h.Source != nil {
		r.member("consumer", setup{}, ackAll)
	}
	var refused []string
	for i, f := range fs {
		ms := messages(i, 1, 0)
		f.set(&ms[0])
		r.book.send(ms)
		res := r.publishOnce(ms)[0]
		switch res.Class {
		case ackwise.ResultAccepted:
		case ackwise.ResultRejected:
			refused = append(refused, f.name)
			r.book.locked(func() { r.book.sent[ms[0].ID].refused = true })
			if !saysWhat(res.Err) {
				r.t.Errorf("%s: it is rejected, and the error does not say why: %v", f.name, res.Err)
			}
		case ackwise.ResultUnknown, ackwise.ResultRetryable, ackwise.ResultNotAttempted:
			r.t.Errorf("%s: %s, %v", f.name, res.Class, res.Err)
		}
	}
	var expected []string
	for _, name := range r.h.Rejects {
		if slices.ContainsFunc(fs, func(f form) bool { return f.name == name }) {
			expected = append(expected, name)
		}
	}
	slices.Sort(expected)
	slices.Sort(refused)
	if !slices.Equal(refused, expected) {
		r.t.Errorf("the sink refuses %q, and Harness.Rejects has %q", refused, expected)
	}
	r.arrive()
}

// saysWhat reports whether an error is more than a word.
func saysWhat(err error) bool {
	var invalid *ackwise.InvalidError
	return errors.As(err, &invalid) || errors.Is(err, ackwise.ErrTooLarge) ||
		err != nil && len(strings.Fields(err.Error())) > 2
}
