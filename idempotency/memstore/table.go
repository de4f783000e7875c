package memstore

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// TableOptions configure a Table.
type TableOptions struct {
	// MaxBytes bounds the table: keys and values, and 128 bytes a key. A full table answers
	// ackwise.ErrFull. Default: 64 MiB.
	MaxBytes int64
	// Now is the clock that Purge goes by. Default: time.Now.
	Now func() time.Time
}

// entryBytes is about what a key costs beside its bytes.
const entryBytes = 128

// Table is an idempotency.Table in this process's memory.
type Table struct {
	o TableOptions

	mu      sync.Mutex // guards the fields below
	version uint64     // of the last write
	bytes   int64
	entries map[string]idempotency.Entry
	graves  map[string]time.Time // when each tombstone was written
}

// OpenTable makes an empty Table.
func OpenTable(o TableOptions) *Table {
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Table{o: o, entries: make(map[string]idempotency.Entry),
		graves: make(map[string]time.Time)}
}

// Get reads a key.
func (t *Table) Get(ctx context.Context, key string) (idempotency.Entry, error) {
	if err := ctx.Err(); err != nil {
		return idempotency.Entry{}, fmt.Errorf("read key: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	e.Data = bytes.Clone(e.Data)
	return e, nil
}

// Put sets a key, or removes it.
func (t *Table) Put(ctx context.Context, key string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put key: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, err := t.plain(key, data)
	return err
}

// Swap sets a key, or removes it, if its version still is old.
func (t *Table) Swap(ctx context.Context, key string, old uint64, data []byte) (
	uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("swap key: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[key]
	if e.Version != old && !e.Stamped() {
		return 0, idempotency.ErrChanged
	}
	return t.plain(key, data)
}

// plain writes without a stamp. The caller holds mu.
func (t *Table) plain(key string, data []byte) (uint64, error) {
	if t.entries[key].Stamped() {
		return 0, idempotency.ErrStamped
	}
	return t.write(key, idempotency.Entry{Data: data})
}

// Upsert sets a key if the write wins.
func (t *Table) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("upsert key: %w", err)
	}
	if err := idempotency.ValidateStamp(stamp); err != nil {
		return false, fmt.Errorf("upsert key: %w", err)
	}
	now := t.o.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	there := t.entries[key]
	if there.Version != 0 && !there.Stamped() {
		return false, idempotency.ErrStamped
	}
	if !idempotency.Wins(stamp, data, there) {
		return false, nil
	}
	_, err := t.write(key, idempotency.Entry{Data: data, Stamp: stamp, Deleted: data == nil})
	if err != nil {
		return false, err
	}
	if data == nil {
		t.graves[key] = now
	}
	return true, nil
}

// write puts e in the place of what is there. The caller holds mu.
func (t *Table) write(key string, e idempotency.Entry) (uint64, error) {
	size := t.bytes
	if old, ok := t.entries[key]; ok {
		size -= entryBytes + int64(len(key)+len(old.Data))
	}
	if e.Data == nil && !e.Deleted {
		delete(t.entries, key)
		t.bytes = size
		return 0, nil
	}
	size += entryBytes + int64(len(key)+len(e.Data))
	// What is there may always be made smaller.
	if size > t.o.MaxBytes && size > t.bytes {
		return 0, fmt.Errorf("write key: the table holds %d of %d bytes: %w", t.bytes, t.o.MaxBytes,
			ackwise.ErrFull)
	}
	t.version++
	e.Version, e.Data = t.version, bytes.Clone(e.Data)
	t.entries[key], t.bytes = e, size
	delete(t.graves, key)
	return e.Version, nil
}

// Purge removes tombstones that were written more than age ago.
func (t *Table) Purge(ctx context.Context, age time.Duration) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("purge tombstones: %w", err)
	}
	now, n := t.o.Now(), 0
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, written := range t.graves {
		if now.Sub(written) > age {
			t.bytes -= entryBytes + int64(len(key))
			delete(t.entries, key)
			delete(t.graves, key)
			n++
		}
	}
	return n, nil
}
