package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// The ways of applying an effect outside of a table, by their words in the report.
const (
	patternNone        = "none"        // a plain increment
	patternDedup       = "dedup"       // the same, but once for each DedupKey
	patternTransaction = "transaction" // the sum lives in the store; effect and ack are one record
)

// milesOf reads what a delivery adds to the sum.
func milesOf(d *ackwise.Delivery) (int64, error) {
	var f Flight
	if err := json.Unmarshal(d.Body, &f); err != nil {
		return 0, ackwise.Reject(fmt.Errorf("read flight: %w", err))
	}
	return f.Flown(), nil
}

// seen is the file that patternDedup increments: each line is a DedupKey together with its effect,
// in one write, so that there is never one without the other. All consumers of a run share it.
type seen struct {
	mu    sync.Mutex // guards the fields below, and the file within this process
	file  *os.File
	lines reader
	keys  map[string]bool
}

func openSeen(path string) (*seen, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open applied effects: %w", err)
	}
	return &seen{file: file, lines: reader{path: path}, keys: map[string]bool{}}, nil
}

// apply applies an effect and reports whether it did. With ask it does not where it was before.
func (s *seen) apply(key string, miles int64, ask bool) (applied bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fd := int(s.file.Fd())
	// The lock of a killed process goes with it. Nobody holds it longer than it takes to write.
	if err := flock(fd, syscall.LOCK_EX); err != nil {
		return false, fmt.Errorf("lock applied effects: %w", err)
	}
	defer func() { err = errors.Join(err, flock(fd, syscall.LOCK_UN)) }()
	others, err := s.lines.next()
	if err != nil {
		return false, err
	}
	for _, m := range others {
		s.keys[m.id] = true
	}
	if ask && s.keys[key] {
		return false, nil
	}
	if err := s.cutTorn(); err != nil {
		return false, err
	}
	m := mark{markEffect, time.Now().UnixNano(), key, strconv.FormatInt(miles, 10)}
	if _, err := s.file.Write(m.line()); err != nil {
		return false, fmt.Errorf("apply effect: %w", err)
	}
	return true, nil
}

// cutTorn cuts off the half of a line that a kill left: neither key nor effect were written.
func (s *seen) cutTorn() error {
	end, err := s.file.Seek(0, io.SeekEnd)
	if err == nil && end > s.lines.at {
		err = s.file.Truncate(s.lines.at)
	}
	if err != nil {
		return fmt.Errorf("cut a torn effect off: %w", err)
	}
	return nil
}

func flock(fd, how int) error {
	for {
		if err := syscall.Flock(fd, how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// tableMiles is the table of exactly-once: aircraft → what was applied for it.
const tableMiles = "miles"

// tally is a value of tableMiles. It names the flights, so that a loss and a repeat cannot hide
// each other.
type tally struct {
	Miles   int64    `json:"miles"`
	Flights []string `json:"flights"`
}

// tallyKey is where a flight is counted. Flights of unknown aircraft are independent of each other,
// so that they get a tally each.
func tallyKey(key, id string) string {
	if key == "" {
		return "flight/" + id
	}
	return "aircraft/" + key
}

// transact adds one delivery to the tally of its aircraft, in the transaction that acks it.
func transact(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
	miles, err := milesOf(d)
	if err != nil {
		return err
	}
	key := tallyKey(d.Key, d.ID)
	value, err := tx.Get(ctx, tableMiles, key)
	if err != nil {
		return err
	}
	var t tally
	if value != nil {
		if err := json.Unmarshal(value, &t); err != nil {
			return fmt.Errorf("read tally: %w", err)
		}
	}
	t.Miles += miles
	t.Flights = append(t.Flights, d.ID)
	value, err = json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write tally: %w", err)
	}
	tx.Put(tableMiles, key, value)
	return nil
}

// tallied returns what the tables of a run say, as marks that the judge reads like a consumer's: an
// effect for each flight, with the miles at the first of a tally.
func tallied(ctx context.Context, store *queue.Store, most int) ([]mark, error) {
	keys, err := store.Keys(ctx, tableMiles, "", most)
	if err != nil {
		return nil, fmt.Errorf("list tallies: %w", err)
	}
	var marks []mark
	for _, key := range keys {
		e, err := store.Get(ctx, tableMiles, key)
		if err != nil {
			return nil, fmt.Errorf("read tally: %w", err)
		}
		var t tally
		if err := json.Unmarshal(e.Value, &t); err != nil {
			return nil, fmt.Errorf("read tally %s: %w", key, err)
		}
		for _, id := range t.Flights {
			if !strings.HasSuffix(key, "/"+id) && !strings.HasPrefix(key, "aircraft/") {
				return nil, fmt.Errorf("read tally %s: flight %s is not of it", key, id)
			}
			marks = append(marks, mark{what: markEffect, id: id,
				text: strconv.FormatInt(t.Miles, 10)})
			t.Miles = 0
		}
	}
	return marks, nil
}
