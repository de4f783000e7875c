package postgres

import (
	"slices"
	"strings"
)

// table is what the program uses of a table.
type table struct {
	name    string
	columns []string
}

// tables lists every column that the program, or a function in the database, reads or writes.
func tables() []table {
	list := []struct{ name, columns string }{
		{"ackwise_store", "name rule window_ms"},
		{"ackwise_bucket", "id name opened closed"},
		{"ackwise_done", "bucket key sum fence result done"},
		{"ackwise_count", "bucket shard keys last"},
		{"ackwise_claim", "name key sum fence deadline"},
		{"ackwise_position", "pipeline part position moved"},
		{"ackwise_table", "name key data version stamp deleted written"},
		{"ackwise_outbox", "id outbox msg topic key headers body time written state due session lease " +
			"handouts failures crashes redrives cause suspect ended error"},
	}
	all := make([]table, len(list))
	for i, t := range list {
		all[i] = table{name: t.name, columns: strings.Fields(t.columns)}
	}
	return all
}

// lacks returns what is missing, given the columns that are there; nil = nothing.
func (t table) lacks(there []string) *ColumnsError {
	if len(there) == 0 {
		return &ColumnsError{Table: t.name}
	}
	var missing []string
	for _, c := range t.columns {
		if !slices.Contains(there, c) {
			missing = append(missing, c)
		}
	}
	if missing == nil {
		return nil
	}
	return &ColumnsError{Table: t.name, Missing: missing}
}
