package dynamostreams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/adapters/aws/internal/change"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/pause"
)

// Pauses of a reader.
const (
	idleFirst    = 250 * time.Millisecond // after an empty answer, doubled up to Options.Idle
	failureFirst = 500 * time.Millisecond // after an error, doubled up to failureMost
	failureMost  = 10 * time.Second
)

// reader reads one shard while its lease is held.
type reader struct {
	l        *stream
	h        *held
	iterator *string          // the next one; nil = it has to be found
	cursor   ackwise.Position // of the last record that was read
	first    ackwise.Position // where to begin while there is no cursor; "" = at the oldest
	horizon  bool             // begin with the oldest that is left: what came before is reported lost
	passing  bool             // passing over what is older than the reader
	failing  time.Time        // since when every call has failed
	pause    time.Duration
}

func (l *stream) newReader(h *held) *reader {
	return &reader{l: l, h: h, cursor: h.row.position, first: h.row.first,
		passing: h.row.sinceMillis > 0 && h.row.position == ""}
}

// run reads until ctx ends or the shard does.
func (r *reader) run(ctx context.Context) {
	for r.turn(ctx) {
		ended, err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if r.failed(ctx, err) {
				r.l.ended(r.h)
				return
			}
		case ended:
			r.l.ended(r.h)
			return
		default:
			r.failing = time.Time{}
			r.l.fine("read " + r.h.row.shard)
		}
		if !pause.For(ctx, r.pause) {
			return
		}
	}
}

// turn waits until there is room for more.
func (r *reader) turn(ctx context.Context) bool {
	for {
		r.l.mu.Lock()
		free := len(r.h.buffer) == 0 && !r.h.paused && r.h.known
		changed := r.l.changed
		r.l.mu.Unlock()
		if free {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-changed:
		}
	}
}

// step makes one call, two where the iterator has to be found.
func (r *reader) step(ctx context.Context) (ended bool, err error) {
	ctx, cancel := r.l.rows.call(ctx)
	defer cancel()
	if r.iterator == nil {
		if ended, err := r.seek(ctx); ended || err != nil {
			return ended, err
		}
	}
	out, err := r.l.streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{
		ShardIterator: r.iterator, Limit: aws.Int32(int32(r.l.o.ReadRecords))})
	if err != nil {
		return false, err
	}
	records, cursor, err := r.records(out.Records)
	if err == nil {
		err = r.began(ctx, records)
	}
	if err != nil {
		return false, err
	}
	// Only now: what could not be taken in is read again.
	r.iterator, r.cursor, r.passing = out.NextShardIterator, cursor, r.passing && len(records) == 0
	if n := len(out.Records); n > 0 {
		r.horizon, r.pause = false, 0
		r.l.took(r.h, records)
	} else {
		r.pause = min(max(idleFirst, 2*r.pause), r.l.o.Idle)
		r.l.foundNothing(r.h)
	}
	return r.iterator == nil, nil
}

// began notes, before they are passed on, where the first records stand of a shard that was begun
// at its oldest: what is trimmed of them before any is settled is then a loss that can be told.
func (r *reader) began(ctx context.Context, records []logsource.Record) error {
	if r.first != "" || r.cursor != "" || len(records) == 0 {
		return nil
	}
	first := records[0].Position
	err := r.l.rows.begun(ctx, r.h.row.shard, r.l.me, r.h.row.fence, first)
	if _, refused := errors.AsType[*refusal](err); refused {
		r.l.mu.Lock()
		r.l.lose(r.h)
		r.l.mu.Unlock()
		return err
	}
	if err != nil {
		return r.l.explain(err, "dynamodb:UpdateItem", "the table "+r.l.o.Leases)
	}
	r.first = first
	return nil
}

// seek finds where to go on: behind the last record that was read, else where the shard's row says.
// What is older than the oldest record that is left is answered with an error: that is why a shard
// is not just begun at its oldest.
func (r *reader) seek(ctx context.Context) (ended bool, err error) {
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: &r.l.arn, ShardId: &r.h.row.shard}
	last := r.l.listed(r.h.row.shard).last
	switch {
	case r.horizon:
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
	case r.cursor != "" && last != "" && r.cursor >= last:
		return true, nil
	case r.cursor != "":
		in.ShardIteratorType = types.ShardIteratorTypeAfterSequenceNumber
		in.SequenceNumber = aws.String(sequenceOf(r.cursor))
	case r.first != "":
		in.ShardIteratorType = types.ShardIteratorTypeAtSequenceNumber
		in.SequenceNumber = aws.String(sequenceOf(r.first))
	default:
		in.ShardIteratorType = types.ShardIteratorTypeTrimHorizon
	}
	out, err := r.l.streams.GetShardIterator(ctx, in)
	if in.ShardIteratorType == types.ShardIteratorTypeAtSequenceNumber && isInvalid(err) {
		// A server that takes only numbers of records: begin at the oldest, unchecked.
		r.l.tell("start-unchecked", r.h.row.shard, err)
		in.ShardIteratorType, in.SequenceNumber = types.ShardIteratorTypeTrimHorizon, nil
		out, err = r.l.streams.GetShardIterator(ctx, in)
	}
	if err != nil {
		return false, err
	}
	if r.iterator = out.ShardIterator; r.iterator == nil {
		return false, errNoIterator // it is the reads that say that a shard is over
	}
	return false, nil
}

var errNoIterator = errors.New("the answer has no iterator")

// records turns what was read into records of the log, and returns the cursor behind them.
func (r *reader) records(read []types.Record) ([]logsource.Record, ackwise.Position, error) {
	out := make([]logsource.Record, 0, len(read))
	cursor, passing := r.cursor, r.passing
	for i := range read {
		m, err := change.FromStream(r.l.o.Topic, &read[i])
		if err != nil {
			return nil, "", err
		}
		pos, err := positionOf(aws.ToString(read[i].Dynamodb.SequenceNumber))
		if err != nil {
			return nil, "", fmt.Errorf("read change %s: %w", m.ID, err)
		}
		if pos <= cursor {
			continue // it was read before
		}
		cursor = pos
		passing = passing && m.Time.UnixMilli() < r.h.row.sinceMillis
		if !passing {
			out = append(out, logsource.Record{Position: pos, Message: m})
		}
	}
	return out, cursor, nil
}

// took passes records on.
func (l *stream) took(h *held, records []logsource.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !h.leaving && l.held[h.row.shard] == h {
		h.buffer, h.idle = append(h.buffer, records...), false
		l.wake()
	}
}

// foundNothing notes that a shard was read to where it is.
func (l *stream) foundNothing(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.idle = true
}

// ended notes that a shard was read to its end.
func (l *stream) ended(h *held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h.ended = true
	l.endOf(h)
}

// failed decides what an error means. A call that failed is made again; a loss is told. It reports
// whether the shard ends with it.
func (r *reader) failed(ctx context.Context, err error) (over bool) {
	shard := r.h.row.shard
	r.pause = min(max(failureFirst, 2*r.pause), failureMost)
	var expired *types.ExpiredIteratorException
	var trimmed *types.TrimmedDataAccessException
	var missing *types.ResourceNotFoundException
	if r.failing.IsZero() {
		r.failing = time.Now()
	}
	switch {
	case errors.As(err, &expired):
		// After 15 minutes, of a shard that was paused: the place of the last record is known.
		r.iterator, r.pause = nil, 0
		r.l.tell("iterator-expired", shard, nil)
	case errors.As(err, &trimmed):
		return r.lost(ctx, &TrimmedError{Table: r.l.o.Table, Shard: shard,
			After: sequenceOf(r.cursor)})
	case errors.As(err, &missing):
		told, gone := r.l.missed(shard, r.failing)
		if told && gone {
			return r.lost(ctx, &TrimmedError{Table: r.l.o.Table, Shard: shard,
				After: sequenceOf(r.cursor), Gone: true})
		}
		if told {
			r.trouble(err)
		}
	default:
		if awsconn.KindOf(err) == awsconn.Throttled {
			r.l.tell("throttled", shard, err)
		}
		r.trouble(err)
	}
	return false
}

// trouble reports an error of a read that lasts.
func (r *reader) trouble(err error) {
	shard := r.h.row.shard
	r.l.trouble("read "+shard, r.l.explain(err, "dynamodb:GetRecords",
		"the shard "+shard+" of the stream of table "+r.l.o.Table), r.failing)
}

// lost tells of changes that are gone. With TrimmedStop the shard stays where it is: nothing of it
// or of its children comes any more, while the others go on, so that they are not lost too.
func (r *reader) lost(ctx context.Context, loss *TrimmedError) (over bool) {
	if !loss.Gone {
		loss.Before = r.oldest(ctx)
	}
	r.iterator = nil
	if r.l.o.OnTrimmed != TrimmedSkip {
		r.pause = problemEvery
		r.l.report("read "+r.h.row.shard, loss.hinted())
		return false
	}
	r.l.tell("trimmed", r.h.row.shard, loss)
	r.pause, r.horizon = 0, true
	return loss.Gone
}

// oldest returns the sequence number of the oldest record that is left, for the error; "" where it
// cannot be found.
func (r *reader) oldest(ctx context.Context) string {
	ctx, cancel := r.l.rows.call(ctx)
	defer cancel()
	at, err := r.l.streams.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{
		StreamArn: &r.l.arn, ShardId: &r.h.row.shard,
		ShardIteratorType: types.ShardIteratorTypeTrimHorizon})
	if err != nil || at.ShardIterator == nil {
		return ""
	}
	out, err := r.l.streams.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{
		ShardIterator: at.ShardIterator, Limit: aws.Int32(1)})
	if err != nil || len(out.Records) == 0 || out.Records[0].Dynamodb == nil {
		return ""
	}
	return aws.ToString(out.Records[0].Dynamodb.SequenceNumber)
}
