package ordering

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
)

// StampOptions say what Stamped sets. Sequencer, Clock or both are required.
type StampOptions struct {
	// Sequencer numbers the messages that have a key: ackwise.HeaderSequence. A message that
	// carries a number already is rejected. Default: nil, no numbers.
	Sequencer *Sequencer
	// Clock stamps the messages: ackwise.HeaderStamp. A message that carries a stamp keeps it: a
	// producer whose repeats must have the first one's stamp sets it itself. Default: nil, no
	// stamps.
	Clock *Clock
	// Logger gets what no result can say: a number that may be lost although its message was
	// accepted. Default: nothing is logged.
	Logger *slog.Logger
}

type stamped struct {
	ackwise.Sink
	opt StampOptions
}

// Stamped wraps a sink so that what goes through it carries its order: a number within its key, a
// logical time, or both. It confirms numbers that are accepted and leaves those whose fate is
// unknown: publish them again with the same ID, and they have the same number.
//
// What is wrong with a message is looked for before it is numbered. One that the sink rejects all
// the same gives its number back, and the key's next message gets it. Where a later message of its
// key is numbered already, the number is lost and the result's error says so: to fill it in would
// put a later message before an earlier one. One that is rejected at a later try keeps its number,
// and the error says so too: an earlier try may have been accepted.
//
// A message that the sink had before, under a number that the sequencer has forgotten
// (SequencerOptions.Remember), leaves a gap at its new number: it is logged, and never given again.
func Stamped(sink ackwise.Sink, o StampOptions) (ackwise.Sink, error) {
	if o.Sequencer == nil && o.Clock == nil {
		return nil, &ackwise.InvalidError{Field: "StampOptions",
			Reason: "a Sequencer or a Clock is needed"}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &stamped{Sink: sink, opt: o}, nil
}

// Publish implements ackwise.Sink.
func (s *stamped) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	send, place := make([]ackwise.Message, 0, len(msgs)), make([]int, 0, len(msgs))
	limits := s.Features()
	for i, m := range msgs {
		err := s.prepare(ctx, &m, limits)
		if err == nil && limits.MaxBatch > 0 && len(msgs) > limits.MaxBatch {
			err = fmt.Errorf("a batch of %d messages, at most %d are allowed: %w", len(msgs),
				limits.MaxBatch, ackwise.ErrTooLarge)
		}
		if err != nil {
			results[i] = ackwise.Result{Class: classOf(err), ID: m.ID, Err: err}
			continue
		}
		send, place = append(send, m), append(place, i)
	}
	numbers, err := s.number(ctx, send)
	if err != nil {
		for j, i := range place {
			results[i] = ackwise.Result{Class: ackwise.ResultRetryable, ID: send[j].ID, Err: err}
		}
		return results
	}
	kept := 0
	for j, i := range place {
		if err := numbers[j].Err; err != nil {
			results[i] = ackwise.Result{Class: classOf(err), ID: send[j].ID, Err: err}
			continue
		}
		send[kept], place[kept], numbers[kept] = send[j], i, numbers[j]
		kept++
	}
	if kept == 0 {
		return results
	}
	got := s.Sink.Publish(ctx, send[:kept])
	s.settle(ctx, numbers[:kept], got)
	for j, i := range place[:kept] {
		results[i] = got[j]
	}
	return results
}

// classOf sorts what was refused before it was sent.
func classOf(err error) ackwise.ResultClass {
	_, invalid := errors.AsType[*ackwise.InvalidError](err)
	if invalid || errors.Is(err, ackwise.ErrTooLarge) {
		return ackwise.ResultRejected
	}
	return ackwise.ResultRetryable
}

// longestNumber stands for a number that is not known yet.
const longestNumber = "18446744073709551615"

// prepare checks a message as it will be sent, and stamps it. The caller's headers stay.
func (s *stamped) prepare(ctx context.Context, m *ackwise.Message, f ackwise.SinkFeatures) error {
	headers := append(make([]ackwise.Header, 0, len(m.Headers)+2), m.Headers...)
	if _, has := m.Header(ackwise.HeaderStamp); s.opt.Clock != nil && !has {
		stamp, err := s.opt.Clock.Now(ctx)
		if err != nil {
			return fmt.Errorf("stamp message: %w", err)
		}
		headers = append(headers,
			ackwise.Header{Name: ackwise.HeaderStamp, Value: []byte(stamp.String())})
	}
	if s.opt.Sequencer != nil && m.Key != "" {
		if _, has := m.Header(ackwise.HeaderSequence); has {
			return &ackwise.InvalidError{Field: "header", Value: ackwise.HeaderSequence,
				Reason: "the message has a number already, from another sequencer"}
		}
		headers = append(headers,
			ackwise.Header{Name: ackwise.HeaderSequence, Value: []byte(longestNumber)})
	}
	m.Headers = headers
	if m.ID == "" {
		m.ID = ackwise.NewID(time.Now())
	}
	if err := m.Validate(); err != nil {
		return err
	}
	if f.MaxBodyBytes > 0 && len(m.Body) > f.MaxBodyBytes {
		return fmt.Errorf("a body of %d bytes, the sink takes at most %d: %w", len(m.Body),
			f.MaxBodyBytes, ackwise.ErrTooLarge)
	}
	return nil
}

// number gives each message with a key its number. The numbers of the others are zero.
func (s *stamped) number(ctx context.Context, send []ackwise.Message) ([]Number, error) {
	all := make([]Number, len(send))
	if s.opt.Sequencer == nil {
		return all, nil
	}
	var asks []Number
	for i := range send {
		if send[i].Key != "" {
			asks = append(asks, Number{Key: send[i].Key, ID: send[i].ID})
		}
	}
	if len(asks) == 0 {
		return all, nil
	}
	if err := s.opt.Sequencer.Assign(ctx, asks); err != nil {
		return nil, fmt.Errorf("number messages: %w", err)
	}
	for i := range send {
		if send[i].Key == "" {
			continue
		}
		all[i], asks = asks[0], asks[1:]
		last := len(send[i].Headers) - 1
		send[i].Headers[last].Value = strconv.AppendUint(nil, all[i].N, 10)
	}
	return all, nil
}

// settle confirms the numbers of what was accepted, and takes back those of what never will be,
// the latest first, so that a run that was rejected as a whole leaves no gap.
func (s *stamped) settle(ctx context.Context, numbers []Number, got []ackwise.Result) {
	if s.opt.Sequencer == nil {
		return
	}
	ctx = context.WithoutCancel(ctx)
	for i := len(numbers) - 1; i >= 0; i-- {
		n, r := &numbers[i], &got[i]
		accepted := r.Class == ackwise.ResultAccepted
		var err error
		switch {
		case n.N == 0:
			continue
		case r.Class == ackwise.ResultRejected && n.Again:
			// An earlier try may have been accepted.
			r.Err = fmt.Errorf("%w; its number %d in its key stays given: where no earlier try was "+
				"accepted, return it (Sequencer.Return)", r.Err, n.N)
		case r.Class == ackwise.ResultRejected:
			var lost bool
			if lost, err = s.opt.Sequencer.Return(ctx, n.ID); lost {
				r.Err = fmt.Errorf("%w; its number %d in its key is lost, since a later one is given",
					r.Err, n.N)
			}
		case accepted:
			if r.Duplicate && !n.Again {
				// The sink may have sent it twice, and then this is its number. So it is never given
				// again: a gap is seen, a number of two messages is not.
				s.opt.Logger.Warn("a message was accepted before: where that was under another number, "+
					"this one is lost", "id", n.ID, "key", n.Key, "number", n.N)
			}
			err = s.opt.Sequencer.Confirm(ctx, n.ID)
		}
		if err != nil {
			s.opt.Logger.Error("settle number", "id", n.ID, "key", n.Key, "number", n.N, "err", err)
		}
	}
}
