package kafka

import (
	"fmt"
	"strings"

	"github.com/ackwise/ackwise"
)

// maxGiven bounds how many messages a givenUpError names.
const maxGiven = 10

// givenUpError names messages that went back after the last hand-out that the brokers allow: nobody
// gets them any more. deliver.Run makes dead letters of them before, see Features.MaxHandOuts.
type givenUpError struct {
	ids   []string
	count int
	limit int
}

// note notes a record that goes back unsettled.
func (e *givenUpError) note(h *held, limit int) {
	if h.delivery.Counts.HandOuts < limit {
		return
	}
	e.count++
	e.limit = limit
	if len(e.ids) < maxGiven {
		e.ids = append(e.ids, h.delivery.ID)
	}
}

// told returns what was noted, once; nil = nothing.
func (e *givenUpError) told() error {
	if e.count == 0 {
		return nil
	}
	told := *e
	*e = givenUpError{}
	return &ackwise.HintError{Err: &told, Hint: "raise the share group's " + shareLimit +
		"; the records are in their topic until its retention ends"}
}

// Error names the messages.
func (e *givenUpError) Error() string {
	text := fmt.Sprintf("%d messages were given back unsettled after %d hand-outs, and the brokers "+
		"hand them out no more: %s", e.count, e.limit, strings.Join(e.ids, ", "))
	if e.count > len(e.ids) {
		text += ", …"
	}
	return text
}
