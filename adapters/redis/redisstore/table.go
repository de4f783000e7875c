package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// Table is an idempotency.Table in Redis.
type Table struct {
	client                        redis.UniversalClient
	o                             TableOptions
	keys                          [][]string // by shard: rows, tombstones
	get, put, swap, upsert, purge script
	closed                        atomic.Bool
}

// purgeRun bounds the tombstones that one run of a script removes.
const purgeRun = 256

// OpenTable opens the table of a name. The client stays the caller's.
func OpenTable(ctx context.Context, client redis.UniversalClient, o TableOptions) (*Table, error) {
	o, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	t := &Table{client: client, o: o, get: newScript(getScript), put: newScript(plainScript),
		swap: newScript(plainScript), upsert: newScript(upsertScript), purge: newScript(purgeScript)}
	t.swap.once = true // a repeat might find its own write, or one on top of it, and say "changed"
	for shard := range o.Shards {
		p := prefix("table", o.Name, shard)
		t.keys = append(t.keys, []string{p + "rows", p + "graves"})
	}
	if err := t.open(ctx); err != nil {
		return nil, fmt.Errorf("open table %s: %w", o.Name, err)
	}
	return t, nil
}

func (t *Table) open(ctx context.Context) error {
	if err := checkClient(t.client); err != nil {
		return err
	}
	if err := checkServer(ctx, t.client, t.o.Persist); err != nil {
		return err
	}
	shards := strconv.Itoa(t.o.Shards)
	kept, err := agree(ctx, t.client, prefix("table", t.o.Name, 0)+"config", "shards", shards)
	if err != nil {
		return err
	}
	if kept[0] != shards {
		return &ackwise.HintError{Err: fmt.Errorf("it has %s shards, not %s", kept[0], shards),
			Hint: "Open it with the same number everywhere, or choose another name."}
	}
	return nil
}

// Get reads a key.
func (t *Table) Get(ctx context.Context, key string) (idempotency.Entry, error) {
	reply, err := t.run(ctx, "read", t.get, key)
	if err != nil || len(reply) == 0 {
		return idempotency.Entry{}, err
	}
	version, ok1 := at[int64](reply, 0)
	stamp, ok2 := at[string](reply, 1)
	kind, ok3 := at[string](reply, 2)
	data, ok4 := at[string](reply, 3)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return idempotency.Entry{}, t.fault("read", key, strange(reply))
	}
	e := idempotency.Entry{Version: uint64(version), Deleted: kind == "-"}
	if !e.Deleted {
		e.Data = []byte(data)
	}
	if stamp != "" {
		if e.Stamp, err = ackwise.ParseStamp(stamp); err != nil {
			return idempotency.Entry{}, t.fault("read", key, err)
		}
	}
	return e, nil
}

// Put sets a key, whatever it holds; nil data removes it.
func (t *Table) Put(ctx context.Context, key string, data []byte) error {
	_, err := t.write(ctx, "put", t.put, writing{key: key, old: "any", data: data})
	return err
}

// Swap sets a key if its version still is old, and returns the new one. It is sent to the server
// once: where the answer is lost that is an error, and whether it wrote is unknown.
func (t *Table) Swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error) {
	return t.write(ctx, "swap", t.swap,
		writing{key: key, old: strconv.FormatUint(old, 10), data: data})
}

// Upsert sets a key if the write wins over what is there, see idempotency.Wins.
func (t *Table) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	bool, error) {
	if err := idempotency.ValidateStamp(stamp); err != nil {
		return false, t.fault("upsert", key, err)
	}
	version, err := t.write(ctx, "upsert", t.upsert,
		writing{key: key, old: stamp.String(), data: data})
	return version != 0, err
}

// writing is what a write wants.
type writing struct {
	key  string
	old  string // the version that is expected, or the stamp
	data []byte
}

// write runs a script that writes. It returns the new version, 0 where nothing is there after it.
func (t *Table) write(ctx context.Context, verb string, sc script, w writing) (uint64, error) {
	kind := "="
	if w.data == nil {
		kind = "-"
	}
	reply, err := t.run(ctx, verb, sc, w.key, t.o.MaxKeys/t.o.Shards, newVersion(), w.old, kind,
		string(w.data))
	if err != nil {
		return 0, err
	}
	word, _ := at[string](reply, 0)
	number, _ := at[int64](reply, 1)
	switch word {
	case "wrote":
		return uint64(number), nil
	case "older":
		return 0, nil
	case "changed":
		err = idempotency.ErrChanged
	case "stamped":
		err = idempotency.ErrStamped
	case "full":
		err = fmt.Errorf("its shard holds %d keys: %w", number, ackwise.ErrFull)
	default:
		err = strange(reply)
	}
	return 0, t.fault(verb, w.key, err)
}

// newVersion draws a version: 53 bits, which a script's numbers have.
func newVersion() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return binary.BigEndian.Uint64(b[:])>>11 | 1
}

// run runs a script on the shard of a key, which is its first argument.
func (t *Table) run(ctx context.Context, verb string, sc script, key string, args ...any) (
	[]any, error) {
	if err := enter(ctx, &t.closed, "table "+t.o.Name); err != nil {
		return nil, err
	}
	keys := t.keys[shardOf(key, t.o.Shards)]
	replies, err := sc.run(ctx, t.client, []call{{keys, append([]any{key}, args...)}})
	if err != nil {
		return nil, t.fault(verb, key, err)
	}
	list, ok := replies[0].([]any)
	if !ok {
		return nil, t.fault(verb, key, strange(replies[0]))
	}
	return list, nil
}

func (t *Table) fault(verb, key string, err error) error {
	return fmt.Errorf("%s key %.80q of table %s: %w", verb, key, t.o.Name, err)
}

// Purge removes tombstones that were written more than age ago by the server's clock.
func (t *Table) Purge(ctx context.Context, age time.Duration) (int, error) {
	removed := 0
	for _, keys := range t.keys {
		for more := true; more; {
			if err := enter(ctx, &t.closed, "table "+t.o.Name); err != nil {
				return removed, err
			}
			one := call{keys, []any{age.Microseconds(), purgeRun}}
			replies, err := t.purge.run(ctx, t.client, []call{one})
			if err != nil {
				return removed, fmt.Errorf("purge table %s: %w", t.o.Name, err)
			}
			n, ok := replies[0].(int64)
			if !ok {
				return removed, fmt.Errorf("purge table %s: %w", t.o.Name, strange(replies[0]))
			}
			removed += int(n)
			more = n == purgeRun
		}
	}
	return removed, nil
}

// Close ends the table in this process. It does not close the client.
func (t *Table) Close() error {
	t.closed.Store(true)
	return nil
}
