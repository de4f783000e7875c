package adaptertest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// What a consumer says, one JSON line each.
const (
	saysOpen        = "open"        // the source is open; features follow
	saysReceived    = "received"    // the source gave a delivery
	saysGot         = "got"         // the handler was called; it waits for the order of this N
	saysInterrupted = "interrupted" // the handler's context ended before an order came
	saysSettling    = "settling"    // a settlement is about to be carried out
	saysSettled     = "settled"     // a settlement has returned without an error
	saysRefused     = "refused"     // a settlement has returned with one
	saysDead        = "dead"        // it is to be dead (N waits for an order), or is (no N)
	saysSwallowed   = "swallowed"   // settlements were carried out, and their answer kept back
	saysDies        = "dies"        // it is about to kill itself
	saysFailed      = "failed"      // the consumer could not work
	saysEnded       = "ended"       // a clean stop is over
)

// said is one line of a consumer.
type said struct {
	Kind string `json:"kind"`
	At   int64  `json:"at"`          // nanoseconds since 1970
	N    int    `json:"n,omitempty"` // names what waits for an order

	ID        string         `json:"id,omitempty"`
	Key       []byte         `json:"key,omitempty"`
	Token     []byte         `json:"token,omitempty"`
	Sum       string         `json:"sum,omitempty"` // of body and headers
	Partition string         `json:"partition,omitempty"`
	Attempt   int            `json:"attempt,omitempty"`
	Cause     ackwise.Cause  `json:"cause,omitempty"`
	Counts    ackwise.Counts `json:"counts"`
	Outcome   string         `json:"outcome,omitempty"`
	Held      int            `json:"held,omitempty"` // deliveries received and not settled
	Reason    string         `json:"reason,omitempty"`
	Lost      bool           `json:"lost,omitempty"` // refused: the lease was lost
	Time      time.Time      `json:"time,omitzero"`  // the message's

	Features *ackwise.Features `json:"features,omitempty"`
}

// The answers of an order.
const (
	doAck     = "ack"
	doNack    = "nack"   // RetryAfter Delay
	doSnooze  = "snooze" // for Delay
	doDie     = "die"    // kill the process
	doStop    = "stop"   // end in good order
	doSwallow = "swallow"
	doHold    = "" // none yet
)

// order is one line to a consumer.
type order struct {
	N     int           `json:"n,omitempty"`
	Do    string        `json:"do"`
	Delay time.Duration `json:"delay,omitempty"`
}

// lineWriter writes JSON lines, one write each.
type lineWriter struct {
	mu sync.Mutex // guards the order of writes: a line is short, and its reader always reads
	w  io.Writer
}

func (l *lineWriter) write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write line: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err = l.w.Write(append(b, '\n'))
	return err
}

// eachLine reads JSON lines until the stream ends.
func eachLine[T any](in io.Reader, fn func(T)) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return err // what is not a whole line was cut by a kill
		}
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			return fmt.Errorf("read line %.80q: %w", line, err)
		}
		fn(v)
	}
}

// sumOf is a digest of what a message carries.
func sumOf(m *ackwise.Message) string {
	h := sha256.New()
	part := func(b []byte) { _, _ = fmt.Fprintf(h, "%d:%t:", len(b), b == nil); h.Write(b) }
	part(m.Body)
	for _, header := range m.Headers {
		part([]byte(header.Name))
		part(append([]byte{}, header.Value...)) // nil and empty values are the same
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// sameTime reports whether a message's time was carried, to the millisecond that systems know. One
// that was not set may be whatever the system says.
func sameTime(got, want time.Time) bool {
	return want.IsZero() || got.Sub(want).Abs() < time.Millisecond
}
