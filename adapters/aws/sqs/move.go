package sqs

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

// Move is a move task of the service.
type Move struct {
	Handle  string // names it in CancelMove, as long as it runs
	Status  string // RUNNING, COMPLETED, CANCELLING, CANCELLED or FAILED
	Moved   int64  // about
	Total   int64  // about; 0 = not known
	Started time.Time
	Problem string // why it failed
	To      string // the target's ARN; "" = each letter goes back where it came from
	PerSec  int    // 0 = the service decides
}

// StartMove has the service move all letters of a dead-letter queue: to a queue, or, where to is
// "", back to where each came from. perSec is at most 500; 0 lets the service decide. The service
// gives each letter a new message ID, chooses none and retries none: KeepForward and the loop do.
func StartMove(ctx context.Context, from Queue, to string, perSec int) (handle string, err error) {
	q, err := openMoves(ctx, from)
	if err != nil {
		return "", err
	}
	in := &sqs.StartMessageMoveTaskInput{SourceArn: &q.arn}
	if perSec > 0 {
		in.MaxNumberOfMessagesPerSecond = aws.Int32(int32(min(perSec, 500)))
	}
	if to != "" {
		target := from
		target.Name, target.Create = to, false
		t, err := openMoves(ctx, target)
		if err != nil {
			return "", err
		}
		in.DestinationArn = &t.arn
	}
	out, err := q.api.StartMessageMoveTask(ctx, in)
	if err != nil {
		return "", q.explainMove(ctx, "StartMessageMoveTask", err)
	}
	return aws.ToString(out.TaskHandle), nil
}

// ListMoves returns the last ten move tasks of a queue, the newest first.
func ListMoves(ctx context.Context, from Queue) ([]Move, error) {
	q, err := openMoves(ctx, from)
	if err != nil {
		return nil, err
	}
	moves, err := q.moves(ctx)
	if err != nil {
		return nil, q.explainMove(ctx, "ListMessageMoveTasks", err)
	}
	return moves, nil
}

// CancelMove stops a move task and returns how many letters it had moved, about. They stay moved.
func CancelMove(ctx context.Context, from Queue, handle string) (moved int64, err error) {
	q, err := openMoves(ctx, from)
	if err != nil {
		return 0, err
	}
	out, err := q.api.CancelMessageMoveTask(ctx,
		&sqs.CancelMessageMoveTaskInput{TaskHandle: &handle})
	if err != nil {
		return 0, q.explainMove(ctx, "CancelMessageMoveTask", err)
	}
	return out.ApproximateNumberOfMessagesMoved, nil
}

func openMoves(ctx context.Context, o Queue) (*queue, error) {
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("move letters: %w", err)
	}
	q, err := openQueue(ctx, o, settings{})
	if err != nil {
		return nil, fmt.Errorf("move letters: %w", err)
	}
	return q, nil
}

func (q *queue) moves(ctx context.Context) ([]Move, error) {
	out, err := q.asks.ListMessageMoveTasks(ctx, &sqs.ListMessageMoveTasksInput{SourceArn: &q.arn,
		MaxResults: aws.Int32(10)})
	if err != nil {
		return nil, err
	}
	moves := make([]Move, len(out.Results))
	for i, r := range out.Results {
		moves[i] = Move{Handle: aws.ToString(r.TaskHandle), Status: aws.ToString(r.Status),
			Moved: r.ApproximateNumberOfMessagesMoved, Total: aws.ToInt64(
				r.ApproximateNumberOfMessagesToMove), Started: time.UnixMilli(r.StartedTimestamp).UTC(),
			Problem: aws.ToString(r.FailureReason), To: aws.ToString(r.DestinationArn),
			PerSec: int(aws.ToInt32(r.MaxNumberOfMessagesPerSecond))}
	}
	return moves, nil
}

// explainMove says why a move task cannot be had.
func (q *queue) explainMove(ctx context.Context, action string, err error) error {
	code, _ := codeOf(err)
	err = fmt.Errorf("move letters: %w", q.explain(action, err))
	if awsconn.KindOf(err) == awsconn.Denied {
		return err
	}
	hint := ""
	switch {
	case action == "CancelMessageMoveTask":
		hint = "The task is over, or its handle is another queue's: ListMoves shows the one that runs."
	case code == "UnsupportedOperation":
		hint = "A queue has one move task at a time."
		if moves, err := q.moves(ctx); err == nil && len(moves) > 0 {
			hint += fmt.Sprintf(" One runs since %s and has moved %d; CancelMove ends it.",
				moves[0].Started.Format(time.RFC3339), moves[0].Moved)
		}
	case code == "InvalidParameterValue" || code == "ResourceNotFoundException":
		hint = "The service moves letters only out of a queue that is the dead-letter queue of another " +
			"queue of SQS: look at the RedrivePolicy of the queues that should point to " + q.Name + "."
	default:
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}
