package postgres

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
)

// rowColumns are what scanRow reads.
const rowColumns = `id, msg, topic, key, headers::text, body, time, written, handouts, failures,
	crashes, redrives, cause, suspect, error`

// outboxRow is a message as it stands in the table.
type outboxRow struct {
	ackwise.Message
	Counts  ackwise.Counts
	id      int64
	written time.Time
	cause   ackwise.Cause
	suspect bool
	reason  string
}

func scanRow(r pg.Rows) (outboxRow, error) {
	var (
		row     outboxRow
		key     []byte
		headers *string
		nanos   *int64
		cause   string
	)
	c := &row.Counts
	err := r.Scan(&row.id, &row.ID, &row.Topic, &key, &headers, &row.Body, &nanos, &row.written,
		&c.HandOuts, &c.Failures, &c.Crashes, &c.Redrives, &cause, &row.suspect, &row.reason)
	if err != nil {
		return row, err
	}
	row.Key = string(key)
	if nanos != nil {
		row.Time = time.Unix(0, *nanos).UTC()
	}
	if headers != nil {
		if err := json.Unmarshal([]byte(*headers), &row.Headers); err != nil {
			return row, fmt.Errorf("read the headers of row %d: %w", row.id, err)
		}
	}
	if err := row.cause.UnmarshalText([]byte(cause)); err != nil {
		return row, fmt.Errorf("read row %d: %w", row.id, err)
	}
	return row, nil
}

// delivery makes the hand-out of a row that was asked for at now.
func (row *outboxRow) delivery(lease time.Duration, now time.Time) *ackwise.Delivery {
	return &ackwise.Delivery{Message: row.Message, Attempt: row.Counts.HandOuts, Counts: row.Counts,
		Cause: row.cause, Token: tokenOf(row.id, row.Counts.HandOuts), Deadline: now.Add(lease),
		Position: ackwise.Position(fmt.Sprintf("%019d", row.id)), Suspect: row.suspect}
}

// A token is the row and the number of its hand-out, which only grows.
func tokenOf(id int64, handOut int) ackwise.LeaseToken {
	return ackwise.LeaseToken(fmt.Sprintf("%d.%d", id, handOut))
}

func parseToken(t ackwise.LeaseToken) (id, handOut int64, err error) {
	a, b, _ := strings.Cut(string(t), ".")
	id, err = strconv.ParseInt(a, 10, 64)
	if err == nil {
		handOut, err = strconv.ParseInt(b, 10, 64)
	}
	if err != nil || id < 1 || handOut < 1 {
		return 0, 0, fmt.Errorf("%.40q: %w", t, ackwise.ErrBadToken)
	}
	return id, handOut, nil
}
