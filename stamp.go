package ackwise

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Names of the headers that carry an order which a system does not keep itself.
const (
	HeaderSequence = "ackwise-sequence" // the message's number within its key, decimal, from 1
	HeaderStamp    = "ackwise-stamp"    // its logical time, as Stamp.String writes it
)

// MaxNodeBytes bounds Stamp.Node.
const MaxNodeBytes = 64

// Stamp is a logical time: when a write happened by its producer's clock. Stamps are totally
// ordered by Millis, then Counter, then Node, so that two writers never tie unless they share a
// name. The zero Stamp is before all others and means none.
type Stamp struct {
	Millis  int64  // milliseconds since 1970 by the producer's clock; not negative
	Counter uint32 // orders the writes of one millisecond
	Node    string // the producer's name, at most MaxNodeBytes; letters, digits, '.', '_' and '-'
}

// Compare returns -1, 0 or +1 as s is before, equal to or after o.
func (s Stamp) Compare(o Stamp) int {
	return cmp.Or(cmp.Compare(s.Millis, o.Millis), cmp.Compare(s.Counter, o.Counter),
		cmp.Compare(s.Node, o.Node))
}

// IsZero reports whether s means none.
func (s Stamp) IsZero() bool { return s == Stamp{} }

// String writes a stamp so that texts compare, byte by byte, as the stamps do: 16 hexadecimal
// digits, '-', 8 hexadecimal digits, '-', and the node.
func (s Stamp) String() string { return fmt.Sprintf("%016x-%08x-%s", s.Millis, s.Counter, s.Node) }

// Validate reports a stamp that String could not carry. The error is an *InvalidError.
func (s Stamp) Validate() error {
	switch {
	case s.Millis < 0:
		return &InvalidError{Field: "stamp", Reason: "its time is before 1970"}
	case len(s.Node) > MaxNodeBytes:
		return &InvalidError{Field: "stamp", Reason: fmt.Sprintf(
			"its node is %d bytes long, at most %d are allowed", len(s.Node), MaxNodeBytes)}
	case strings.ContainsFunc(s.Node, notInNode):
		return &InvalidError{Field: "stamp", Value: s.Node,
			Reason: "its node may hold letters, digits, '.', '_' and '-' only"}
	}
	return nil
}

func notInNode(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
		strings.ContainsRune("._-", r))
}

// ParseStamp reads what String wrote.
func ParseStamp(text string) (Stamp, error) {
	bad := func(reason string) (Stamp, error) {
		return Stamp{}, &InvalidError{Field: "stamp", Value: text, Reason: reason}
	}
	const head = 16 + 1 + 8 + 1
	if len(text) < head || text[16] != '-' || text[head-1] != '-' {
		return bad("16 hexadecimal digits, '-', 8 more, '-' and a node are expected")
	}
	millis, err := strconv.ParseInt(text[:16], 16, 64)
	if err != nil {
		return bad("its time is not hexadecimal")
	}
	counter, err := strconv.ParseUint(text[17:head-1], 16, 32)
	if err != nil {
		return bad("its counter is not hexadecimal")
	}
	s := Stamp{Millis: millis, Counter: uint32(counter), Node: text[head:]}
	if s.String() != text {
		return bad("it is not written in its one form")
	}
	return s, s.Validate()
}
