package postgres

import (
	"slices"
	"strings"
)

// NamedColumns lists the tables and columns of tables, for the test that compares them with what
// the migrations make.
func NamedColumns() []string {
	var all []string
	for _, t := range tables() {
		all = append(all, t.name+" "+strings.Join(t.columns, " "))
	}
	slices.Sort(all)
	return all
}
