package ackwise

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"
	"unicode/utf8"
)

// Names of the headers that carry Ackwise's own fields through systems that have no place for them.
const (
	HeaderID    = "ackwise-id"    // Message.ID
	HeaderKey   = "ackwise-key"   // Message.Key
	HeaderEpoch = "ackwise-epoch" // Delivery.Epoch, decimal
	HeaderTime  = "ackwise-time"  // Message.Time, RFC 3339
)

// Names of the headers that a dead letter carries on top of its message's own.
const (
	HeaderOrigin    = "ackwise-origin"     // the topic or queue it came from
	HeaderPosition  = "ackwise-position"   // its Position there
	HeaderPipeline  = "ackwise-pipeline"   // the pipeline whose budget it spent
	HeaderFirstSeen = "ackwise-first-seen" // time of the first hand-out, RFC 3339
	HeaderAttempts  = "ackwise-attempts"   // hand-outs, decimal
	HeaderCause     = "ackwise-cause"      // cause of the last hand-out
	HeaderError     = "ackwise-error"      // last error, cut at 1 KiB
	HeaderRedrives  = "ackwise-redrives"   // times redriven, decimal
)

// Header is one named value of a message. Names may repeat and their order is kept.
type Header struct {
	Name  string
	Value []byte
}

// Message is what a producer hands over.
//
// ID identifies the message on every copy and hop; a sink assigns one where it is empty. Key is
// the lane whose order is kept: any bytes, "" means no key, and a message without a key is
// independent of all others. A nil Body (a tombstone) and an empty one are different. Time is the
// producer's clock; the zero time means unknown. Body, Headers and their values belong to whoever
// holds the Message and are not changed by Ackwise.
type Message struct {
	ID, Topic string
	Key       string
	Headers   []Header
	Body      []byte
	Time      time.Time
}

// Header returns the value of the first header called name, and whether there is one.
func (m *Message) Header(name string) ([]byte, bool) {
	for _, h := range m.Headers {
		if h.Name == name {
			return h.Value, true
		}
	}
	return nil, false
}

// Bounds that Message.Validate and ValidateName enforce everywhere. Bodies are bounded by each
// sink (the embedded engine: 1 MiB by default).
const (
	MaxNameBytes   = 80        // a topic, subscription or table name
	MaxIDBytes     = 256       // Message.ID
	MaxKeyBytes    = 1024      // Message.Key
	MaxHeaders     = 100       // headers of one message
	MaxHeaderBytes = 64 * 1024 // all names and values of one message together
	MaxErrorBytes  = 1024      // an error text or a reason that is kept; longer ones are cut
)

// Years whose nanoseconds since 1970 fit 64 bits.
const (
	minYear = 1678
	maxYear = 2261
)

// Validate reports what is wrong with the parts of m that every system restricts: the topic's name,
// the ID (valid UTF-8 without control characters; empty is allowed, a sink then assigns one), the
// key's length, the time (zero, or a year from 1678 to 2261) and the headers. The error is an
// *InvalidError.
func (m *Message) Validate() error {
	if err := ValidateName("topic", m.Topic); err != nil {
		return err
	}
	if m.ID != "" {
		if err := ValidateID(m.ID); err != nil {
			return err
		}
	}
	if !m.Time.IsZero() && !keepableTime(m.Time) {
		return &InvalidError{Field: "time", Reason: fmt.Sprintf(
			"the year %d is not between %d and %d", m.Time.Year(), minYear, maxYear)}
	}
	if len(m.Key) > MaxKeyBytes {
		return &InvalidError{Field: "key", Reason: fmt.Sprintf(
			"%d bytes long, at most %d are allowed", len(m.Key), MaxKeyBytes)}
	}
	return validateHeaders(m.Headers)
}

// keepableTime reports whether the nanoseconds of t since 1970 fit 64 bits. Only close to
// either end it asks the calendar.
func keepableTime(t time.Time) bool {
	const nearly = (maxYear - 1 - 1970) * 365 * 24 * 3600
	if s := t.Unix(); -nearly < s && s < nearly {
		return true
	}
	year := t.Year()
	return minYear <= year && year <= maxYear
}

func validateHeaders(hs []Header) error {
	if len(hs) > MaxHeaders {
		return &InvalidError{Field: "headers", Reason: fmt.Sprintf(
			"%d headers, at most %d are allowed", len(hs), MaxHeaders)}
	}
	size := 0
	for _, h := range hs {
		if h.Name == "" {
			return &InvalidError{Field: "header", Reason: "the name is empty"}
		}
		if reason := textFault(h.Name); reason != "" {
			return &InvalidError{Field: "header", Value: h.Name, Reason: "the name " + reason}
		}
		size += len(h.Name) + len(h.Value)
	}
	if size > MaxHeaderBytes {
		return &InvalidError{Field: "headers", Reason: fmt.Sprintf(
			"%d bytes together, at most %d are allowed", size, MaxHeaderBytes)}
	}
	return nil
}

// ValidateID reports what is wrong with a message ID: it has 1 to MaxIDBytes bytes of UTF-8
// without control characters. The error is an *InvalidError.
func ValidateID(id string) error {
	switch {
	case id == "":
		return &InvalidError{Field: "id", Reason: "it is empty"}
	case len(id) > MaxIDBytes:
		return &InvalidError{Field: "id", Reason: fmt.Sprintf(
			"%d bytes long, at most %d are allowed", len(id), MaxIDBytes)}
	}
	if reason := textFault(id); reason != "" {
		return &InvalidError{Field: "id", Value: id, Reason: "it " + reason}
	}
	return nil
}

// ValidateName reports what is wrong with the name of a kind of thing (a topic, a subscription, a
// table): 1 to MaxNameBytes letters, digits, '.', '_' and '-', not beginning with '.'. Names are
// matched literally and never become a path. The error is an *InvalidError.
func ValidateName(kind, name string) error {
	switch {
	case name == "":
		return &InvalidError{Field: kind, Reason: "the name is empty"}
	case len(name) > MaxNameBytes:
		return &InvalidError{Field: kind, Reason: fmt.Sprintf(
			"the name is %d bytes long, at most %d are allowed", len(name), MaxNameBytes)}
	case name[0] == '.':
		return &InvalidError{Field: kind, Value: name, Reason: "the name begins with '.'"}
	}
	for _, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && !('0' <= c && c <= '9') && c != '.' && c != '_' && c != '-' {
			return &InvalidError{Field: kind, Value: name,
				Reason: "only letters, digits, '.', '_' and '-' are allowed in a name"}
		}
	}
	return nil
}

func textFault(s string) string {
	if plainASCII(s) {
		return ""
	}
	if !utf8.ValidString(s) {
		return "is not valid UTF-8"
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			return "contains a control character"
		}
	}
	return ""
}

// plainASCII reports whether s is printable ASCII, as most names and IDs are.
func plainASCII(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			return false
		}
	}
	return true
}

// NewID returns a new message ID: a random UUID of version 7 (RFC 9562 §5.7), which sorts by the
// millisecond of now.
func NewID(now time.Time) string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(b[:6], ms[2:])
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}
