package dynamostreams

import (
	"fmt"
	"strings"

	"github.com/ackwise/ackwise"
)

// Bounds of a sequence number: the API refuses fewer digits, and documents no more.
const (
	minDigits = 21
	maxDigits = 40
)

// positionOf writes a sequence number so that texts compare as the numbers do: two digits that say
// how many follow, then the number without leading zeros.
func positionOf(sequence string) (ackwise.Position, error) {
	digits := strings.TrimLeft(sequence, "0")
	notDigit := func(r rune) bool { return r < '0' || r > '9' }
	if sequence == "" || len(digits) > maxDigits || strings.ContainsFunc(sequence, notDigit) {
		return "", &ackwise.InvalidError{Field: "sequence number", Value: sequence,
			Reason: fmt.Sprintf("it is not a number of 1 to %d digits", maxDigits)}
	}
	return ackwise.Position(fmt.Sprintf("%02d%s", len(digits), digits)), nil
}

// sequenceOf returns the number that positionOf was given, as the API takes it; "" for "".
func sequenceOf(p ackwise.Position) string {
	if p == "" {
		return ""
	}
	digits := string(p[2:])
	return strings.Repeat("0", max(0, minDigits-len(digits))) + digits
}
