package nakadi

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/ackwise/ackwise"
)

// item is what Nakadi says of one event of a batch.
type item struct {
	EID    string `json:"eid"`
	Status string `json:"publishing_status"`
	Step   string `json:"step"`
	Detail string `json:"detail"`
}

// classify decides what became of an event: by its item, or by the answer where there is none. A
// batch that is rejected as a whole holds at least one event that Nakadi cannot take.
func classify(a *answer, it *item) (ackwise.ResultClass, error) {
	if it != nil {
		return classifyItem(a, it)
	}
	switch s := a.status; {
	case a.err != nil && !a.sent:
		return ackwise.ResultRetryable, a.err // no connection was made, nothing can be stored
	case a.err != nil:
		return ackwise.ResultUnknown, a.err // stored or not, the answer is missing
	case s == http.StatusOK:
		return ackwise.ResultAccepted, nil
	case s >= 200 && s < 300:
		// 207 without items, or an answer that is not in the API: some may be stored.
		return ackwise.ResultUnknown, fmt.Errorf("nakadi answered %d without results", s)
	case s == http.StatusBadRequest, s == http.StatusUnprocessableEntity:
		return ackwise.ResultRejected, a.refusal() // nothing is stored; which event it is stays open
	case s == http.StatusRequestEntityTooLarge:
		return ackwise.ResultRejected, fmt.Errorf("%w: %w", ackwise.ErrTooLarge, a.refusal())
	case s == http.StatusServiceUnavailable && a.problem:
		return ackwise.ResultRetryable, a.refusal() // Nakadi's own, before anything is stored
	case s >= 500, s == http.StatusRequestTimeout:
		return ackwise.ResultUnknown, a.refusal() // also a gateway's, which knows nothing of it
	}
	// 401, 403, 404, 429, redirects and the like: the messages are not at fault, an operator has
	// something to mend.
	return ackwise.ResultRetryable, a.refusal()
}

func classifyItem(a *answer, it *item) (ackwise.ResultClass, error) {
	err := fmt.Errorf("nakadi: %s in step %s: %s", it.Status, it.Step, ackwise.CutError(it.Detail))
	refused := a.status == http.StatusUnprocessableEntity
	switch {
	case it.Status == "submitted" && !refused:
		return ackwise.ResultAccepted, nil
	case it.Status == "aborted" && (refused || it.Step != "publishing"):
		return ackwise.ResultNotAttempted, errors.Join(errAborted, err)
	case it.Status == "failed" && refused && it.Step != "publishing":
		return ackwise.ResultRejected, err // its schema, its partition or its metadata
	}
	// The broker did not confirm it in time; it was seen to store such events all the same.
	return ackwise.ResultUnknown, err
}

var (
	errAborted = errors.New("another event of its batch was refused")
	errBehind  = errors.New("an earlier message of the same key was not accepted")
	errBounded = errors.New("the batch holds more poison than MaxRequests can find at once")
	errFailed  = errors.New("an earlier request of the same call was not accepted")
)
