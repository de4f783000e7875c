package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
)

// OutboxOptions configure an Outbox.
type OutboxOptions struct {
	// Name tells outboxes in one database apart. Required.
	Name string
	// NoNotify leaves out the notification that wakes sources at the commit: while many commit,
	// Postgres makes notifying transactions commit one by one. Sources poll then. Default: false.
	NoNotify bool
}

// Outbox writes messages in the transactions of the changes that they tell of. T is pgx.Tx or
// *sql.Tx.
type Outbox[T any] struct {
	o  OutboxOptions
	db DB[T]
}

// NewOutbox makes an outbox in a database that Migrate has prepared.
func NewOutbox[T any](db DB[T], o OutboxOptions) (*Outbox[T], error) {
	faults := []error{ackwise.ValidateName("outbox", o.Name)}
	if !db.Valid() {
		faults = append(faults, errors.New("the database is none that PGX or SQL made"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("make outbox: %w", err)
	}
	return &Outbox[T]{o: o, db: db}, nil
}

// Publish writes messages in the caller's transaction, in their order, and returns their IDs: a
// message without one gets one. They are there if, and only if, the transaction commits.
//
// The order of a key over several transactions is the order in which they write. Where two that run
// at once may write messages of one key, have each take a row of your own for update first: without
// that nothing orders them.
func (b *Outbox[T]) Publish(ctx context.Context, tx T, msgs ...ackwise.Message) ([]string, error) {
	if len(msgs) == 0 {
		return nil, nil
	}
	ids := make([]string, len(msgs))
	r := rows{}
	for i, m := range msgs {
		if err := m.Validate(); err != nil {
			return nil, fmt.Errorf("write to outbox %s: message %d of %d: %w", b.o.Name, i+1,
				len(msgs), err)
		}
		if ids[i] = m.ID; m.ID == "" {
			ids[i] = ackwise.NewID(time.Now())
		}
		if err := r.add(ids[i], m); err != nil {
			return nil, fmt.Errorf("write to outbox %s: message %.80q: %w", b.o.Name, ids[i], err)
		}
	}
	conn := b.db.Wrap(tx)
	if _, err := conn.Exec(ctx, `INSERT INTO ackwise_outbox
		(outbox, msg, topic, key, headers, body, time)
		SELECT $1, a.msg, a.topic, a.key, convert_from(a.headers, 'UTF8')::jsonb, a.body,
			nullif(a.time, $8)
		FROM unnest($2::text::text[], $3::text::text[], $4::text::bytea[], $5::text::bytea[],
			$6::text::bytea[], $7::text::bigint[]) WITH ORDINALITY
			AS a(msg, topic, key, headers, body, time, ord) ORDER BY a.ord`,
		b.o.Name, pg.Array(r.ids), pg.Array(r.topics), pg.Array(r.keys), pg.Array(r.headers),
		pg.Array(r.bodies), pg.Array(r.times), noTime); err != nil {
		return nil, fmt.Errorf("write to outbox %s: %w", b.o.Name, err)
	}
	if !b.o.NoNotify {
		if _, err := conn.Exec(ctx, `SELECT pg_notify($1, '')`, channel(b.o.Name)); err != nil {
			return nil, fmt.Errorf("notify the readers of outbox %s: %w", b.o.Name, err)
		}
	}
	return ids, nil
}

// channel is where an outbox notifies. Postgres takes names of 63 bytes.
func channel(name string) string {
	const most = 40
	return "ackwise_outbox_" + name[:min(len(name), most)]
}

// noTime stands for a message without a time, which no message with one has.
const noTime int64 = math.MinInt64

// rows are messages by column.
type rows struct {
	ids, topics           []string
	keys, headers, bodies [][]byte
	times                 []int64
}

func (r *rows) add(id string, m ackwise.Message) error {
	var headers []byte
	if len(m.Headers) > 0 {
		var err error
		if headers, err = json.Marshal(m.Headers); err != nil {
			return err
		}
	}
	nanos := noTime
	if !m.Time.IsZero() {
		nanos = m.Time.UnixNano()
	}
	r.ids, r.topics = append(r.ids, id), append(r.topics, m.Topic)
	r.keys, r.headers = append(r.keys, []byte(m.Key)), append(r.headers, headers)
	r.bodies, r.times = append(r.bodies, m.Body), append(r.times, nanos)
	return nil
}

// DeadLetter is a message of an outbox whose budget was spent.
type DeadLetter struct {
	ackwise.Message
	Row      int64          // names it for Redrive
	Counts   ackwise.Counts // as they were when it died
	Reason   string         // the last error
	Written  time.Time      // when it was written to the outbox
	Redrives int            // times it was brought back before
}

// Dead returns at most limit dead letters behind the row after, the oldest first.
func (b *Outbox[T]) Dead(ctx context.Context, after int64, limit int) ([]DeadLetter, error) {
	var letters []DeadLetter
	err := pg.Each(ctx, b.db, func(r pg.Rows) error {
		row, err := scanRow(r)
		if err != nil {
			return err
		}
		letters = append(letters, DeadLetter{Message: row.Message, Row: row.id, Counts: row.Counts,
			Reason: row.reason, Written: row.written, Redrives: row.Counts.Redrives})
		return nil
	}, `SELECT `+rowColumns+` FROM ackwise_outbox
		WHERE outbox = $1 AND state = 4 AND id > $2 ORDER BY id LIMIT $3`, b.o.Name, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list dead letters of outbox %s: %w", b.o.Name, err)
	}
	return letters, nil
}

// Redrive hands dead letters out again, under their IDs, with fresh budgets, behind what waits of
// their keys now, and returns how many there were.
func (b *Outbox[T]) Redrive(ctx context.Context, letters ...int64) (int, error) {
	n, err := b.db.Exec(ctx, `UPDATE ackwise_outbox o SET state = 0, due = '-infinity', id = n.fresh,
		failures = 0, crashes = 0, redrives = redrives + 1, cause = 'redriven', ended = ''
		FROM (SELECT id, nextval(pg_get_serial_sequence('ackwise_outbox', 'id')) AS fresh
			FROM (SELECT id FROM ackwise_outbox WHERE outbox = $1 AND state = 4
				AND id = ANY ($2::text::bigint[]) ORDER BY id) d) n
		WHERE o.id = n.id AND o.state = 4`, b.o.Name, pg.Array(letters))
	if err != nil {
		return 0, fmt.Errorf("redrive dead letters of outbox %s: %w", b.o.Name, err)
	}
	_, err = b.db.Exec(ctx, `SELECT pg_notify($1, '')`, channel(b.o.Name))
	if err != nil {
		return int(n), fmt.Errorf("notify the readers of outbox %s: %w", b.o.Name, err)
	}
	return int(n), nil
}
