package postgres_test

import (
	"strings"
	"testing"

	"github.com/ackwise/ackwise/adapters/postgres"
)

func TestUpsertSQLQuotesNames(t *testing.T) {
	set, del, err := postgres.UpsertSQL(postgres.UpsertTable{Name: `my "ops".Planes`,
		Key: []string{`ta"il`}, Stamp: "as of", Columns: []string{"drop table"}, Deleted: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{set, del} {
		for _, want := range []string{`"my ""ops"""."Planes"`, `"ta""il"`, `"as of"`, `"drop table"`,
			`"gone"`} {
			if !strings.Contains(text, want) {
				t.Errorf("%s is not in\n%s", want, text)
			}
		}
	}
}

func TestUpsertSQLRefuses(t *testing.T) {
	good := postgres.UpsertTable{Name: "planes", Key: []string{"tail"}, Stamp: "at",
		Columns: []string{"airport"}}
	for want, change := range map[string]func(*postgres.UpsertTable){
		`invalid Name: the name is empty`: func(u *postgres.UpsertTable) { u.Name = "" },
		`invalid Name "a.b.c": a table and at most its schema`: func(u *postgres.UpsertTable) {
			u.Name = "a.b.c"
		},
		`invalid Key: it names no column`:  func(u *postgres.UpsertTable) { u.Key = nil },
		`invalid Stamp: the name is empty`: func(u *postgres.UpsertTable) { u.Stamp = "" },
		`invalid columns "tail": it is named twice`: func(u *postgres.UpsertTable) {
			u.Columns = []string{"tail"}
		},
		`longer than 63 bytes`: func(u *postgres.UpsertTable) {
			u.Deleted = strings.Repeat("x", 64)
		},
		`holds a zero byte`: func(u *postgres.UpsertTable) { u.Columns = []string{"a\x00"} },
	} {
		u := good
		change(&u)
		if _, _, err := postgres.UpsertSQL(u); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %s", err, want)
		}
	}
}
