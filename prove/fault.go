package prove

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise"
)

// kind is what goes wrong with one delivery of a message. The words are those of Case.Schedule.
type kind string

// The kinds, from the simplest to the most intricate. Those of the second group happen at a point.
const (
	again kind = "again" // delivered once more after it was acked
	lost  kind = "lost"  // acked, and the ack never arrived

	crash  kind = "crash"  // the consumer is killed
	fail   kind = "fail"   // the call that begins at the point is refused
	unsure kind = "unsure" // the call that ends at the point was made, and its answer is lost
	down   kind = "down"   // every call from the point on is refused
	stall  kind = "stall"  // the consumer is held until all leases are over and another has worked
	race   kind = "race"   // the consumer is held while another one works on the message
	orphan kind = "orphan" // as race, but the held one is killed instead of going on
	beside kind = "beside" // the consumer is held while another one works on the next message
)

// kinds lists all kinds, in the order in which they are tried.
func kinds() []kind {
	return []kind{again, lost, crash, fail, unsure, down, stall, race, orphan, beside}
}

// atPoint reports whether the kind happens at a point.
func (k kind) atPoint() bool { return k != again && k != lost }

// canBeLate reports whether the kind brings the message back, so that it may come after all others.
func (k kind) canBeLate() bool {
	return k == again || k == lost || k == crash || k == fail || k == unsure
}

// fault is one thing that goes wrong. A message's faults happen to its deliveries one after the
// other: the first to its first delivery, the second to its second.
type fault struct {
	message int  // index of the message
	kind    kind // "" = nothing goes wrong
	// point counts the points of one delivery: 0 is before the handler begins, then come the
	// handler's own from 1, and the last is after it has ended, before its ack.
	point int
	late  bool // the message comes back after all others instead of at once
}

// String writes a fault as it stands in a schedule, such as "2:crash@3+late".
func (f fault) String() string {
	s := fmt.Sprintf("%d:%s", f.message+1, f.kind)
	if f.kind.atPoint() {
		s += fmt.Sprintf("@%d", f.point)
	}
	if f.late {
		s += "+late"
	}
	return s
}

// schedule is what goes wrong in one run.
type schedule []fault

// String writes a schedule in the form that Case.Schedule takes.
func (s schedule) String() string {
	words := make([]string, len(s))
	for i, f := range s {
		words[i] = f.String()
	}
	return strings.Join(words, " ")
}

// sort orders a schedule by message, and leaves the order of one message's faults.
func (s schedule) sort() {
	slices.SortStableFunc(s, func(a, b fault) int { return cmp.Compare(a.message, b.message) })
}

// parseSchedule reads what String wrote. There are n messages.
func parseSchedule(text string, n int) (schedule, error) {
	var s schedule
	for word := range strings.FieldsSeq(text) {
		f, reason := parseFault(word)
		if reason == "" && (f.message < 0 || f.message >= n) {
			reason = fmt.Sprintf("there are %d messages, counted from 1", n)
		}
		if reason != "" {
			return nil, &ackwise.InvalidError{Field: "schedule", Value: word, Reason: reason}
		}
		s = append(s, f)
	}
	s.sort()
	return s, nil
}

// parseFault reads one word of a schedule, and says what is wrong with it.
func parseFault(word string) (fault, string) {
	number, rest, _ := strings.Cut(word, ":")
	message, err := strconv.Atoi(number)
	if err != nil {
		return fault{}, "MESSAGE:KIND@POINT is expected, such as 1:crash@2"
	}
	rest, late := strings.CutSuffix(rest, "+late")
	name, at, _ := strings.Cut(rest, "@")
	f := fault{message: message - 1, kind: kind(name), late: late}
	switch {
	case !slices.Contains(kinds(), f.kind):
		return f, fmt.Sprintf("the kinds are %q", kinds())
	case late && !f.kind.canBeLate():
		return f, "a message comes late only after again, lost, crash, fail and unsure"
	case !f.kind.atPoint() && at != "":
		return f, "this kind has no point"
	case f.kind.atPoint():
		if f.point, err = strconv.Atoi(at); err != nil || f.point < 0 {
			return f, "a point is needed, such as " + name + "@2"
		}
	}
	return f, ""
}
