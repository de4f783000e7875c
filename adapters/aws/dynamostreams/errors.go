package dynamostreams

import (
	"errors"
	"fmt"
	"time"

	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
)

// TrimmedError names changes that the stream does not have any more and that were not handed out,
// or may not have been.
type TrimmedError struct {
	Table, Shard string
	After        string // the last sequence number that was read; "" = none of the shard
	Before       string // the oldest one that is left; "" = not known, or none
	Gone         bool   // the shard is not there any more
	Unseen       bool   // it came and went while nobody read the stream
}

// Error names table, shard and range.
func (e *TrimmedError) Error() string {
	after, before := e.After, e.Before
	if after == "" {
		after = "its first change on"
	} else {
		after = "after sequence number " + after
	}
	switch {
	case e.Gone:
		before = "up to its end"
	case before == "":
		before = "up to what is left"
	default:
		before = "up to before " + before
	}
	return fmt.Sprintf("changes of table %s are lost: shard %s, %s, %s: the stream keeps them for "+
		"24 hours", e.Table, e.Shard, after, before)
}

func (e *TrimmedError) hinted() error {
	return &ackwise.HintError{Err: e, Hint: "Bring the target in line with the table, then start " +
		"once with on_trimmed=skip, which goes on with what is left. Until then nothing of this shard, " +
		"or of what came out of it, is handed out."}
}

// AgeError says that a shard's oldest unsettled change will soon be trimmed.
type AgeError struct {
	Table, Shard string
	Age          time.Duration
	Most         time.Duration // SourceOptions.MaxAge
}

// Error names table and shard.
func (e *AgeError) Error() string {
	return fmt.Sprintf("the oldest unsettled change of table %s, shard %s, is %s old: after 24 hours "+
		"it is lost", e.Table, e.Shard, e.Age.Round(time.Second))
}

// endedError says that a disabled stream was read to its end.
type endedError struct{ table, arn string }

func (e *endedError) Error() string {
	return fmt.Sprintf("the stream %s of table %s is disabled and was read to its end", e.arn, e.table)
}

// Final says that nothing more comes.
func (e *endedError) Final() bool { return true }

// isInvalid reports whether the server has refused an argument.
func isInvalid(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == "ValidationException"
}
