package lambdahost

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise/internal/pause"
)

// QueueMessage is one received message of a queue.
type QueueMessage struct {
	ID      string          // its message ID, the identifier that an answer names
	Receipt string          // what it is deleted by
	Data    json.RawMessage // the element of Records
}

// Queue reads a queue.
type Queue interface {
	// Receive returns at most max messages, after a wait of its own where there is none.
	Receive(ctx context.Context, max int) ([]QueueMessage, error)
	// Delete deletes messages.
	Delete(ctx context.Context, messages []QueueMessage) error
}

// RunQueue feeds the function with the queue until ctx ends. What an answer names as failed, and
// all of a batch that failed as a whole, stays in the queue and is seen again when its visibility
// timeout is over.
func (m Mapping) RunQueue(ctx context.Context, q Queue) error {
	m = m.withDefaults(10)
	var (
		wg    sync.WaitGroup // one goroutine a batch under way, each ended by ctx
		mu    sync.Mutex     // guards fault
		fault error
	)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range m.Parallel {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := m.poll(ctx, q); err != nil && ctx.Err() == nil {
					mu.Lock()
					fault = err
					mu.Unlock()
					cancel()
				}
			}
		})
	}
	wg.Wait()
	return fault
}

// poll gathers a batch, invokes the function and deletes what is done.
func (m Mapping) poll(ctx context.Context, q Queue) error {
	var batch []QueueMessage
	began := time.Now()
	for len(batch) < m.BatchSize {
		got, err := q.Receive(ctx, min(m.BatchSize-len(batch), 10))
		if err != nil {
			return fmt.Errorf("receive from the queue: %w", err)
		}
		batch = append(batch, got...)
		if len(batch) == 0 {
			pause.For(ctx, m.Pause)
			return nil
		}
		if time.Since(began) >= m.Window || ctx.Err() != nil {
			break
		}
	}
	data, ids := make([]json.RawMessage, len(batch)), make([]string, len(batch))
	for i, one := range batch {
		data[i], ids[i] = one.Data, one.ID
	}
	e, err := event(data)
	if err != nil {
		return fmt.Errorf("make an event: %w", err)
	}
	body, err := m.Invoke(ctx, e)
	v := m.judge(body, err, ids)
	if v.whole {
		pause.For(ctx, m.Pause)
		return nil
	}
	done := make([]QueueMessage, 0, len(batch))
	for _, one := range batch {
		if !v.failed[one.ID] {
			done = append(done, one)
		}
	}
	if len(done) == 0 {
		return nil
	}
	// A message that was handled is deleted though the test's time is over.
	if err := q.Delete(context.WithoutCancel(ctx), done); err != nil {
		return fmt.Errorf("delete from the queue: %w", err)
	}
	return nil
}

// Async invokes a function as SNS does: the answer is not looked at, an error is tried again.
type Async struct {
	// Invoke gives the function an event, such as Host.Invoke. Required.
	Invoke func(ctx context.Context, event []byte) ([]byte, error)
	// Waits are the pauses before each repeat. Default: those of Lambda, 1 min and 2 min.
	Waits []time.Duration
}

// Push gives the function an event, and again where it failed. It returns how often, and nil, or
// the last error where the event is discarded.
func (a Async) Push(ctx context.Context, event []byte) (int, error) {
	waits := a.Waits
	if waits == nil {
		waits = []time.Duration{time.Minute, 2 * time.Minute}
	}
	for n := 0; ; n++ {
		_, err := a.Invoke(ctx, event)
		if err == nil || n == len(waits) || ctx.Err() != nil {
			return n + 1, err
		}
		pause.For(ctx, waits[n])
	}
}
