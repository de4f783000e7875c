package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
)

// DeadLetters makes a sink the dead-letter store of a loop, for sources that have none. A dead
// letter is the whole message under its own ID, with headers that say where it came from and why it
// is dead. Where the message's own headers leave no room for all of them, the last ones are left
// out, and all of them where only without them the sink does not refuse it. What it refuses all the
// same is not written: the loop keeps the message, and tries again with its backoff. A sink that
// does not deduplicate may hold a dead letter twice after a crash.
func DeadLetters(sink ackwise.Sink, pipeline string, o Options) deliver.DeadLetters {
	o = o.withDefaults()
	return deliver.DeadLetterFunc(
		func(ctx context.Context, d *ackwise.Delivery, reason string) error {
			m := deadLetter(d, pipeline, reason, time.Now())
			if o.Topic != "" {
				m.Topic = o.Topic
			}
			refused, err := publishDead(ctx, sink, m)
			if refused {
				// What fitted into its source would else be stuck there for ever.
				m.Headers = without(m.Headers, deadLetterHeaders()...)
				refused, err = publishDead(ctx, sink, m)
			}
			if errors.Is(err, ackwise.ErrClosed) {
				o.Closed(err)
			}
			if refused {
				err = &ackwise.HintError{Err: err, Hint: "The store of dead letters will not take it at " +
					"any attempt. It stays where it is, and so does what waits behind it, until the " +
					"store's limit is raised or another store is named that takes it, such as a file."}
			}
			return err
		})
}

// publishDead publishes one dead letter. refused says that it will not be accepted as it is.
func publishDead(ctx context.Context, sink ackwise.Sink, m ackwise.Message) (
	refused bool, err error) {
	results := sink.Publish(ctx, []ackwise.Message{m})
	if len(results) != 1 {
		return false, fmt.Errorf("write dead letter: the sink gave %d results", len(results))
	}
	r := results[0]
	if r.Class == ackwise.ResultAccepted {
		return false, nil
	}
	if r.Err == nil {
		r.Err = errNoReason
	}
	return r.Class == ackwise.ResultRejected, fmt.Errorf("write dead letter (%s): %w", r.Class, r.Err)
}

// deadLetter adds to a message what its dead letter says.
func deadLetter(d *ackwise.Delivery, pipeline, reason string, now time.Time) ackwise.Message {
	seen, origin := now, d.Partition
	if len(d.History) > 0 {
		seen = d.History[0].Time
	}
	if origin == "" {
		origin = d.Topic
	}
	said := map[string]string{
		ackwise.HeaderError:     ackwise.CutError(reason),
		ackwise.HeaderAttempts:  strconv.Itoa(d.Attempt),
		ackwise.HeaderCause:     d.Cause.String(),
		ackwise.HeaderOrigin:    origin,
		ackwise.HeaderPosition:  string(d.Position),
		ackwise.HeaderPipeline:  pipeline,
		ackwise.HeaderFirstSeen: seen.UTC().Format(time.RFC3339Nano),
		ackwise.HeaderRedrives:  strconv.Itoa(redrives(d)),
	}
	names := deadLetterHeaders()
	m := d.Message
	m.Headers = without(m.Headers, names...)
	size := 0
	for _, h := range m.Headers {
		size += len(h.Name) + len(h.Value)
	}
	for _, name := range names {
		size += len(name) + len(said[name])
		if len(m.Headers) == ackwise.MaxHeaders || size > ackwise.MaxHeaderBytes {
			break
		}
		m.Headers = append(m.Headers, ackwise.Header{Name: name, Value: []byte(said[name])})
	}
	return m
}

// without copies the headers that are not called so.
func without(hs []ackwise.Header, names ...string) []ackwise.Header {
	return slices.DeleteFunc(slices.Clone(hs), func(h ackwise.Header) bool {
		return slices.Contains(names, h.Name)
	})
}
