package bench

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// A warm start is that of a store that has run for a while: what it wrote is drained, and the
// segments that held it are free to be written again.
const (
	stepsPerSegment = 8  // a step is what is published, and then drained, at once
	perStep         = 32 // messages; few and large, as only their bytes matter
	// Freeing takes two checkpoints, each a segment apart, and then the log must have reached a
	// segment that is used again. A store that has not after so many segments does not reuse any.
	mostSegments = 6
)

// warmUp fills the store with at least most bytes, drains it, and goes on publishing and draining
// until checkpoints have freed the segments: until a whole segment was written and the log took no
// more of the disk than before. It returns how many messages it published.
func (b *bench) warmUp(ctx context.Context, store *queue.Store, most int64) (int64, error) {
	r, err := store.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if err != nil {
		return 0, fmt.Errorf("open a receiver: %w", err)
	}
	w := newWarming(store, r, b.SegmentBytes/stepsPerSegment)
	if err = w.fill(ctx, most); err == nil {
		err = w.settle(ctx)
	}
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, fmt.Errorf("warm the store up: %w", err)
	}
	return w.published, nil
}

// warming is a store being warmed up.
type warming struct {
	store              *queue.Store
	receiver           *queue.Receiver
	step               []ackwise.Message
	stepBytes          int64
	acks               []ackwise.Settlement
	published, drained int64
}

func newWarming(store *queue.Store, r *queue.Receiver, stepBytes int64) *warming {
	w := &warming{store: store, receiver: r, stepBytes: stepBytes}
	body := make([]byte, stepBytes/perStep)
	for range perStep {
		w.step = append(w.step, ackwise.Message{Topic: topic, Body: body})
	}
	return w
}

// fill publishes at least most bytes, of which nothing is drained.
func (w *warming) fill(ctx context.Context, most int64) error {
	for filled := int64(0); filled < most; filled += w.stepBytes {
		if err := w.publish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle drains, publishes and drains until the log grows no more.
func (w *warming) settle(ctx context.Context) error {
	last, still := int64(0), 0
	for range mostSegments * stepsPerSegment {
		if err := w.publish(ctx); err != nil {
			return err
		}
		if err := w.drain(ctx); err != nil {
			return err
		}
		size, err := logBytes(w.store.Dir())
		if err != nil {
			return err
		}
		if still++; size > last {
			last, still = size, 0
		}
		if still > stepsPerSegment {
			return nil
		}
	}
	return nil // what the measured run adds is in the report
}

func (w *warming) publish(ctx context.Context) error {
	w.published += int64(len(w.step))
	return publishAll(ctx, w.store, w.step)
}

func (w *warming) drain(ctx context.Context) error {
	for w.drained < w.published {
		ds, err := w.receiver.Receive(ctx, perStep)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if w.acks, err = ack(ctx, w.receiver, ds, w.acks); err != nil {
			return err
		}
		w.drained += int64(len(ds))
	}
	return nil
}

// logBytes is how much of the disk a store's segments take, the free ones too.
func logBytes(dir string) (int64, error) {
	return diskBytes(dir, func(name string) bool {
		return strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".free")
	})
}

// diskBytes is how much of the disk the files in dir take whose names count.
func diskBytes(dir string, counts func(name string) bool) (total int64, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !counts(d.Name()) {
			return ignoreGone(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreGone(err)
		}
		total += allocated(info)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure the disk used: %w", err)
	}
	return total, nil
}

// ignoreGone forgives a file that was removed while the folder was read.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
