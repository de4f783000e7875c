package queuestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
)

// Tables is what a Table is kept in: a *queue.Store, or a *client.Client.
type Tables interface {
	queue.Transactor
	Keys(ctx context.Context, table, prefix string, max int) ([]string, error)
}

const (
	// gravesSuffix names the engine's table that lists the tombstones of another one, by time.
	gravesSuffix = ".graves"
	// maxTries bounds how often a write begins again because others were faster.
	maxTries = 1000
	// purgeBatch is how many tombstones one commit of Purge removes.
	purgeBatch = 4096
)

// Table is an idempotency.Table in a table of a directory of package queue. It is safe for
// concurrent use, and several of one name, in several processes, are one.
//
// Each value stands behind one byte that says how it was written, so that the engine's table is not
// for other use; tombstones are listed in a second one, NAME.graves, so that a key that is written
// with stamps may have 1,008 bytes and no more. The clock of Purge is the wall clock of the process
// that wrote the tombstone.
type Table struct {
	engine Tables
	name   string
}

var _ idempotency.Table = (*Table)(nil)

// OpenTable returns the table of a name. It does not close the engine.
func OpenTable(engine Tables, name string) (*Table, error) {
	if err := ackwise.ValidateName("table", name); err != nil {
		return nil, err
	}
	if err := ackwise.ValidateName("table", name+gravesSuffix); err != nil {
		return nil, fmt.Errorf("list the tombstones of table %s: %w", name, err)
	}
	return &Table{engine: engine, name: name}, nil
}

// value is what the engine's table holds of a key.
//
//	kind 1 · plain: data
//	       · stamped: millis uvarint, counter uvarint, length of the node 1, node, data
//	       · tombstone: written 8, and as stamped without data
type value struct {
	kind    byte
	stamp   ackwise.Stamp
	data    []byte
	written int64  // of a tombstone: Unix milliseconds
	version uint64 // the engine's; 0 = the key is missing
}

const (
	plain     = 1
	stamped   = 2
	tombstone = 3
)

func (v value) encode() []byte {
	b := []byte{v.kind}
	if v.kind == tombstone {
		b = binary.BigEndian.AppendUint64(b, uint64(v.written))
	}
	if v.kind != plain {
		b = binary.AppendUvarint(b, uint64(v.stamp.Millis))
		b = binary.AppendUvarint(b, uint64(v.stamp.Counter))
		b = append(append(b, byte(len(v.stamp.Node))), v.stamp.Node...)
	}
	return append(b, v.data...)
}

var errForeign = errors.New("the value was not written by this kind of table")

func decode(b []byte) (v value, err error) {
	if len(b) == 0 || b[0] < plain || b[0] > tombstone {
		return v, errForeign
	}
	v.kind, b = b[0], b[1:]
	if v.kind == tombstone {
		if len(b) < 8 {
			return v, errForeign
		}
		v.written, b = int64(binary.BigEndian.Uint64(b)), b[8:]
	}
	if v.kind != plain {
		if v.stamp, b, err = decodeStamp(b); err != nil {
			return v, err
		}
	}
	if v.kind != tombstone {
		v.data = append([]byte{}, b...)
	} else if len(b) > 0 {
		return v, errForeign
	}
	return v, nil
}

func decodeStamp(b []byte) (s ackwise.Stamp, rest []byte, err error) {
	millis, n := binary.Uvarint(b)
	if n <= 0 {
		return s, nil, errForeign
	}
	counter, k := binary.Uvarint(b[n:])
	if b = b[n+max(k, 0):]; k <= 0 || counter > 1<<32-1 || len(b) == 0 || len(b) <= int(b[0]) {
		return s, nil, errForeign
	}
	end := 1 + int(b[0])
	s = ackwise.Stamp{Millis: int64(millis), Counter: uint32(counter), Node: string(b[1:end])}
	if s.IsZero() || s.Validate() != nil {
		return s, nil, errForeign
	}
	return s, b[end:], nil
}

// outer is the version that users see: twice the engine's, and 1 more where there is a stamp. So
// Swap can tell by the version alone that there is none.
func (v value) outer() uint64 {
	if v.kind > plain {
		return v.version<<1 | 1
	}
	return v.version << 1
}

func (v value) entry() idempotency.Entry {
	return idempotency.Entry{Data: v.data, Version: v.outer(), Stamp: v.stamp,
		Deleted: v.kind == tombstone}
}

// read reads a key.
func (t *Table) read(ctx context.Context, key string) (value, error) {
	if err := ctx.Err(); err != nil {
		return value{}, context.Cause(ctx)
	}
	e, err := t.engine.Get(ctx, t.name, key)
	if err != nil || e.Version == 0 {
		return value{}, err
	}
	v, err := decode(e.Value)
	v.version = e.Version
	return v, err
}

// write puts next in the place of there, if that still is what is there. A nil next removes it.
func (t *Table) write(ctx context.Context, key string, there value, next *value) error {
	c := queue.Commit{Reads: []queue.TableRead{{Table: t.name, Key: key, Version: there.version}}}
	w := queue.TableWrite{Table: t.name, Key: key}
	if next != nil {
		w.Value = next.encode()
	}
	c.Writes = append(c.Writes, w)
	if there.kind == tombstone {
		c.Writes = append(c.Writes, t.grave(there.written, key, nil))
	}
	if next != nil && next.kind == tombstone {
		c.Writes = append(c.Writes, t.grave(next.written, key, []byte{}))
	}
	_, err := t.engine.Commit(ctx, c)
	return err
}

const (
	// graveHead is how much of a grave's key is the time.
	graveHead = 16
	// maxStampedKey is how long a key may be so that its grave's key is one as well.
	maxStampedKey = ackwise.MaxKeyBytes - graveHead
)

// grave lists a tombstone: its key begins with the time, so that the oldest come first.
func (t *Table) grave(written int64, key string, value []byte) queue.TableWrite {
	return queue.TableWrite{Table: t.name + gravesSuffix, Key: fmt.Sprintf("%0*x", graveHead,
		uint64(written)) + key, Value: value}
}

// Get reads a key.
func (t *Table) Get(ctx context.Context, key string) (idempotency.Entry, error) {
	v, err := t.read(ctx, key)
	if err != nil {
		return idempotency.Entry{}, fmt.Errorf("read table %s, key %.80q: %w", t.name, key, err)
	}
	return v.entry(), nil
}

// change writes what decide makes of what is there, and again where that changes meanwhile. decide
// returns write = false where nothing is to be written.
func (t *Table) change(ctx context.Context, key string,
	decide func(there value) (next *value, write bool, err error)) (wrote bool, err error) {
	for range maxTries {
		var there value
		if there, err = t.read(ctx, key); err != nil {
			break
		}
		var next *value
		if next, wrote, err = decide(there); err != nil || !wrote {
			break
		}
		if err = t.write(ctx, key, there, next); !errors.Is(err, queue.ErrConflict) {
			break
		}
		err = idempotency.ErrChanged // by others, again and again
	}
	if err != nil {
		return false, fmt.Errorf("write table %s, key %.80q: %w", t.name, key, err)
	}
	return wrote, nil
}

// Put sets a key, or removes it.
func (t *Table) Put(ctx context.Context, key string, data []byte) error {
	_, err := t.change(ctx, key, func(there value) (*value, bool, error) {
		return plainOf(there, data)
	})
	return err
}

// plainOf is what Put and Swap write over what is there.
func plainOf(there value, data []byte) (*value, bool, error) {
	switch {
	case there.kind > plain:
		return nil, false, idempotency.ErrStamped
	case data == nil:
		return nil, there.version != 0, nil
	}
	return &value{kind: plain, data: data}, true, nil
}

// Swap sets a key, or removes it, if its version still is old.
func (t *Table) Swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error) {
	version, err := t.swap(ctx, key, old, data)
	if err != nil {
		return 0, fmt.Errorf("swap in table %s, key %.80q: %w", t.name, key, err)
	}
	return version, nil
}

func (t *Table) swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	err := queue.ErrConflict
	switch there := (value{version: old >> 1}); {
	case old&1 != 0: // it had a stamp
	case data != nil:
		err = t.write(ctx, key, there, &value{kind: plain, data: data})
	default:
		err = t.write(ctx, key, there, nil)
	}
	if data == nil && err == nil || err != nil && !errors.Is(err, queue.ErrConflict) {
		return 0, err
	}
	now, readErr := t.read(ctx, key)
	switch {
	case readErr != nil:
		return 0, readErr
	case err != nil && now.kind > plain:
		return 0, idempotency.ErrStamped
	case err != nil:
		return 0, idempotency.ErrChanged
	}
	// A commit does not tell the versions that it gave. The engine's only grow: where the value is
	// another one by now, the one below its version is none that will be there again.
	switch {
	case now.kind == plain && bytes.Equal(now.data, data):
		return now.outer(), nil
	case now.version > 0:
		return (now.version - 1) << 1, nil
	}
	return old + 2, nil // it is removed by now
}

// Upsert sets a key if the write wins over what is there, see idempotency.Wins.
func (t *Table) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	bool, error) {
	if err := idempotency.ValidateStamp(stamp); err != nil {
		return false, err
	}
	if len(key) > maxStampedKey { // before it is written: it could not be deleted
		return false, fmt.Errorf("write table %s, key %.80q: it is %d bytes long, at most %d are "+
			"allowed: %w", t.name, key, len(key), maxStampedKey, ackwise.ErrTooLarge)
	}
	return t.change(ctx, key, func(there value) (*value, bool, error) {
		if there.kind == plain {
			return nil, false, idempotency.ErrStamped
		}
		if !idempotency.Wins(stamp, data, there.entry()) {
			return nil, false, nil
		}
		next := &value{kind: stamped, stamp: stamp, data: data}
		if data == nil {
			next.kind, next.written = tombstone, time.Now().UnixMilli()
		}
		return next, true, nil
	})
}

// Purge removes tombstones that were written more than age ago, oldest first.
func (t *Table) Purge(ctx context.Context, age time.Duration) (int, error) {
	before := time.Now().UnixMilli() - age.Milliseconds()
	purged, tries := 0, 0
	for {
		n, more, err := t.purge(ctx, before)
		purged += n
		switch {
		case errors.Is(err, queue.ErrConflict) && tries < maxTries:
			tries++ // one of them was written again meanwhile
		case err != nil:
			return purged, fmt.Errorf("purge table %s: %w", t.name, err)
		case !more:
			return purged, nil
		}
	}
}

// purge removes one batch of the tombstones that were written before a time, and reports whether
// there may be more.
func (t *Table) purge(ctx context.Context, before int64) (n int, more bool, err error) {
	if ctx.Err() != nil {
		return 0, false, context.Cause(ctx)
	}
	graves, err := t.engine.Keys(ctx, t.name+gravesSuffix, "", purgeBatch)
	if err != nil {
		return 0, false, err
	}
	var c queue.Commit
	limit := fmt.Sprintf("%0*x", graveHead, uint64(max(before, 0)))
	for _, grave := range graves {
		if len(grave) < graveHead || grave[:graveHead] >= limit {
			break
		}
		v, err := t.read(ctx, grave[graveHead:])
		if err != nil {
			return 0, false, err
		}
		c.Writes = append(c.Writes, queue.TableWrite{Table: t.name + gravesSuffix, Key: grave})
		if v.kind != tombstone {
			continue
		}
		c.Reads = append(c.Reads,
			queue.TableRead{Table: t.name, Key: grave[graveHead:], Version: v.version})
		c.Writes = append(c.Writes, queue.TableWrite{Table: t.name, Key: grave[graveHead:]})
		n++
	}
	if len(c.Writes) == 0 {
		return 0, false, nil
	}
	if _, err := t.engine.Commit(ctx, c); err != nil {
		return 0, false, err
	}
	return n, len(graves) == purgeBatch, nil
}
