package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ackwise/ackwise"
)

// UpsertTable describes a Postgres table of yours that is written by idempotency.Upsert's rule.
type UpsertTable struct {
	Name    string   // "table" or "schema.table"; none of the two may hold a dot of its own
	Key     []string // the columns of its primary key, or of a unique index
	Stamp   string   // the column of the stamp
	Columns []string // the other columns that are written
	// Deleted is the boolean column that marks tombstones. Empty = rows are never deleted. The
	// other Columns then need to be nullable or to have defaults: a deletion may come first.
	Deleted string
	// PlainStamp says that Stamp is of a type with an order of its own, such as bigint or
	// timestamptz. False = it is text, as Stamp.String writes it, and compared byte by byte.
	PlainStamp bool
}

// UpsertSQL writes the two statements of the last write that wins, for a Postgres table. The
// parameters of set are the values of Key, Stamp and Columns in their order, those of del the
// values of Key and Stamp; del is empty where Deleted is. Each changes one row, or none where what
// is there wins.
//
// The later stamp wins, and any stamp over a row that has none. Of two writes with equal stamps a
// deletion wins over a value, and of two values the greater one by the bytes of its columns in
// their order (Postgres's *<, which has a place for nulls), so that every order of arrival ends
// alike. It is not the order in which idempotency.Wins compares two values: do not write the
// same data to this table and to an idempotency.Table and expect them to agree on ties.
func UpsertSQL(t UpsertTable) (set, del string, err error) {
	if err := t.validate(); err != nil {
		return "", "", fmt.Errorf("write upsert: %w", err)
	}
	later, equal := t.order()
	alive := "old." + quote(t.Deleted) + " IS NOT TRUE"
	written := slices.Concat([]string{t.Stamp}, t.Columns)
	var updates []string
	for _, c := range written {
		updates = append(updates, fmt.Sprintf("%s = EXCLUDED.%[1]s", quote(c)))
	}
	won := later
	if len(t.Columns) > 0 { // else two rows with one stamp are the same
		won += "\n  OR " + equal
		if t.Deleted != "" {
			won += " AND " + alive
		}
		won += fmt.Sprintf("\n    AND ROW(%s)::record *< ROW(%s)::record", of("old", t.Columns),
			of("EXCLUDED", t.Columns))
	}
	if t.Deleted != "" {
		updates = append(updates, quote(t.Deleted)+" = false")
	}
	set = t.statement(slices.Concat(t.Key, written), "false", updates, won)
	if t.Deleted == "" {
		return set, "", nil
	}
	updates = []string{quote(t.Stamp) + " = EXCLUDED." + quote(t.Stamp), quote(t.Deleted) + " = true"}
	for _, c := range t.Columns {
		updates = append(updates, quote(c)+" = DEFAULT")
	}
	won = later + "\n  OR " + equal + " AND " + alive
	del = t.statement(slices.Concat(t.Key, []string{t.Stamp}), "true", updates, won)
	return set, del, nil
}

// statement writes an insert of columns by parameters, with what Deleted gets, and what happens
// where the key is there.
func (t UpsertTable) statement(columns []string, deleted string, updates []string,
	won string) string {
	values := make([]string, len(columns))
	for i := range columns {
		values[i] = fmt.Sprintf("$%d", i+1)
	}
	if t.Deleted != "" {
		columns, values = append(columns, t.Deleted), append(values, deleted)
	}
	return fmt.Sprintf("INSERT INTO %s AS old (%s)\nVALUES (%s)\nON CONFLICT (%s) DO UPDATE\n"+
		"SET %s\nWHERE %s", quote(strings.Split(t.Name, ".")...), list(columns),
		strings.Join(values, ", "), list(t.Key), strings.Join(updates, ", "), won)
}

// order writes when the new stamp is later than the old one, and when it is equal.
func (t UpsertTable) order() (later, equal string) {
	collate := ` COLLATE "C"` // other collations do not compare byte by byte
	if t.PlainStamp {
		collate = ""
	}
	stamp := quote(t.Stamp)
	later = fmt.Sprintf("old.%s IS NULL OR old.%[1]s%s < EXCLUDED.%[1]s%[2]s", stamp, collate)
	return later, fmt.Sprintf("old.%s%s = EXCLUDED.%[1]s%[2]s", stamp, collate)
}

// validate returns everything that is wrong.
func (t UpsertTable) validate() error {
	var faults []error
	check := func(field string, names ...string) {
		for _, n := range names {
			if reason := identifierFault(n); reason != "" {
				faults = append(faults, &ackwise.InvalidError{Field: field, Value: n, Reason: reason})
			}
		}
	}
	parts := strings.Split(t.Name, ".")
	if len(parts) > 2 {
		faults = append(faults, &ackwise.InvalidError{Field: "Name", Value: t.Name,
			Reason: "a table and at most its schema are expected"})
	}
	check("Name", parts...)
	check("Key", t.Key...)
	check("Stamp", t.Stamp)
	check("Columns", t.Columns...)
	if t.Deleted != "" {
		check("Deleted", t.Deleted)
	}
	if len(t.Key) == 0 {
		faults = append(faults, &ackwise.InvalidError{Field: "Key", Reason: "it names no column"})
	}
	seen := make(map[string]bool)
	for _, c := range slices.Concat([]string{t.Stamp, t.Deleted}, t.Key, t.Columns) {
		if seen[c] && c != "" {
			faults = append(faults, &ackwise.InvalidError{Field: "columns", Value: c,
				Reason: "it is named twice"})
		}
		seen[c] = true
	}
	return errors.Join(faults...)
}

// identifierFault says why Postgres could not have a name as it is written.
func identifierFault(name string) string {
	const most = 63
	switch {
	case name == "":
		return "the name is empty"
	case len(name) > most:
		return fmt.Sprintf("the name is longer than %d bytes, and Postgres would cut it", most)
	case strings.ContainsRune(name, 0):
		return "the name holds a zero byte"
	}
	return ""
}

// quote quotes the parts of one name.
func quote(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, p := range parts {
		quoted[i] = `"` + strings.ReplaceAll(p, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ".")
}

func list(columns []string) string {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = quote(c)
	}
	return strings.Join(quoted, ", ")
}

// of lists the columns of one of the two rows.
func of(row string, columns []string) string {
	quoted := make([]string, len(columns))
	for i, c := range columns {
		quoted[i] = row + "." + quote(c)
	}
	return strings.Join(quoted, ", ")
}
