package lambdahost

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Mapping is an event source mapping: how batches are made and what their answers mean. The words
// in brackets are Lambda's.
type Mapping struct {
	// Invoke gives the function an event, such as Host.Invoke. Required.
	Invoke func(ctx context.Context, event []byte) ([]byte, error)
	// BatchSize is the most records of one event. Default: 100 of a shard, 10 of a queue.
	BatchSize int
	// Window is how long records are gathered for a batch. Default: 0, what one read gives.
	Window time.Duration
	// Report says that answers are read [FunctionResponseTypes: ReportBatchItemFailures]. Without
	// it, every answer is a success. Default: false.
	Report bool
	// Pause is between two reads that gave nothing, and between two attempts. Default: 50 ms.
	Pause time.Duration
	// Parallel is how many batches are under way at once [ParallelizationFactor for each shard]; a
	// key of a shard is in one of them at most. Default: 1.
	Parallel int

	// Bisect splits a batch whose invocation failed [BisectBatchOnFunctionError]. Streams only.
	Bisect bool
	// MaxAttempts is [MaximumRetryAttempts] + 1: so often a batch is tried before it is discarded.
	// Streams only. Default: 0, until the records expire.
	MaxAttempts int
	// MaxAge discards older records [MaximumRecordAgeInSeconds]. Streams only. Default: 0, none.
	MaxAge time.Duration
	// Discarded is told of what is discarded [the destination on failure]. Streams only. Default:
	// nobody is told.
	Discarded func(Discarded)
}

// Discarded is what the destination on failure gets: where the records are, not what is in them.
type Discarded struct {
	Condition   string // "RetryAttemptsExhausted" or "RecordAgeExceeded"
	Shard       string
	First, Last string // sequence numbers
	Records     int
	Attempts    int
}

func (m Mapping) withDefaults(batch int) Mapping {
	if m.BatchSize == 0 {
		m.BatchSize = batch
	}
	if m.Pause == 0 {
		m.Pause = 50 * time.Millisecond
	}
	if m.Parallel == 0 {
		m.Parallel = 1
	}
	if m.Discarded == nil {
		m.Discarded = func(Discarded) {}
	}
	return m
}

// verdict is what an answer means for a batch.
type verdict struct {
	whole  bool            // nothing of it is done
	failed map[string]bool // else: the identifiers that are not
	why    error           // with whole
}

// judge reads the answer to a batch with these identifiers.
func (m Mapping) judge(body []byte, err error, ids []string) verdict {
	if err != nil {
		return verdict{whole: true, why: err}
	}
	if !m.Report || len(body) == 0 {
		return verdict{}
	}
	var response *struct {
		Failures []map[string]json.RawMessage `json:"batchItemFailures"`
	}
	if err := json.Unmarshal(body, &response); err != nil {
		return verdict{whole: true, why: fmt.Errorf("the answer is not JSON of its form: %w", err)}
	}
	v := verdict{failed: map[string]bool{}}
	if response == nil {
		return v
	}
	known := map[string]bool{}
	for _, id := range ids {
		known[id] = true
	}
	for _, f := range response.Failures {
		var id string
		raw, ok := f["itemIdentifier"]
		if !ok || json.Unmarshal(raw, &id) != nil || id == "" || !known[id] {
			return verdict{whole: true, why: fmt.Errorf(
				"the answer names %s, which is no identifier of the batch", text(f))}
		}
		v.failed[id] = true
	}
	return v
}

func text(f map[string]json.RawMessage) string {
	b, err := json.Marshal(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// event makes the event of a batch.
func event(records []json.RawMessage) ([]byte, error) {
	return json.Marshal(map[string]any{"Records": records})
}
