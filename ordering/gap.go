package ordering

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"
)

// Policy is how a key treats a missing number. The zero value waits until it comes, however long.
type Policy struct {
	// GiveUpAfter is how long the key waits before it goes on without the number, and says so.
	// Default: 0, it never does.
	GiveUpAfter time.Duration
	// StopAfter is how long the key waits before the resequencer stops; unused where GiveUpAfter
	// is set. Default: 0, it never does.
	StopAfter time.Duration
	// Known is the time in place of either for a number that is known to be somewhere, Late or
	// Parked, where it is longer. Default: 0, the same time.
	Known time.Duration
}

// never is a limit that is not reached.
const never = math.MaxInt64

// limit is how long a number may be missing, in milliseconds.
func (p Policy) limit(w Whereabouts) int64 {
	after := cmp.Or(p.GiveUpAfter, p.StopAfter)
	if after <= 0 {
		return never
	}
	if w == Late || w == Parked {
		after = max(after, p.Known)
	}
	return after.Milliseconds()
}

// Whereabouts is what is known of a missing number.
type Whereabouts uint8

// Where a missing number may be.
const (
	Unknown Whereabouts = iota // nobody was asked, or could say
	Late                       // its source still has it: waiting, delayed or in flight
	Parked                     // it is a dead letter of its source
	Lost                       // its source has it nowhere: never accepted there, or let go
)

// String returns "unknown", "late", "parked" or "lost".
func (w Whereabouts) String() string {
	words := [...]string{"unknown", "late", "parked", "lost"}
	if int(w) < len(words) {
		return words[w]
	}
	return fmt.Sprintf("Whereabouts(%d)", w)
}

// MarshalText returns the word.
func (w Whereabouts) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// Missing is a number that a key waits for.
type Missing struct {
	Key    string
	Number uint64
}

// Finder knows where a missing message is: the books and dead letters of the source that it should
// have come from.
type Finder interface {
	// Find answers each question, in order. It never guesses: Unknown is an answer.
	Find(ctx context.Context, missing []Missing) ([]Whereabouts, error)
}

// Gap is a run of missing numbers of a key.
type Gap struct {
	Key   string      `json:"key"`
	First uint64      `json:"first"`
	Last  uint64      `json:"last"`
	State Whereabouts `json:"state"` // of the first one
	Since time.Time   `json:"since"` // since when the key waits
}

// String names the key, the numbers and what is known of them.
func (g Gap) String() string {
	if g.First == g.Last {
		return fmt.Sprintf("number %d of key %.80q is missing (%s)", g.First, g.Key, g.State)
	}
	return fmt.Sprintf("numbers %d to %d of key %.80q are missing (%s)", g.First, g.Last, g.Key,
		g.State)
}

// GapError stops a resequencer whose policy says so.
type GapError struct{ Gap Gap }

// Error names the gap and what an operator can do.
func (e *GapError) Error() string {
	return fmt.Sprintf("%s since %s: bring it back from where it is, or order the key to go on "+
		"without it", e.Gap, e.Gap.Since.UTC().Format(time.RFC3339))
}

// SequenceError says what is wrong with the order that a message carries.
type SequenceError struct {
	Key    string
	Number uint64 // 0 = it carries none
	Reason string
}

// Error names the key, the number and the reason.
func (e *SequenceError) Error() string {
	if e.Number == 0 {
		return fmt.Sprintf("message of key %.80q: %s", e.Key, e.Reason)
	}
	return fmt.Sprintf("number %d of key %.80q: %s", e.Number, e.Key, e.Reason)
}
