package postgres

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

func TestStatementsAreSplitOutsideOfBodies(t *testing.T) {
	got := statements("CREATE TABLE a (b int); -- one; of two\nCREATE FUNCTION f() AS $$\nBEGIN;\n" +
		"END;\n$$;\nSELECT\n  1;\n-- the end\n")
	if len(got) != 4 || !strings.HasPrefix(got[1], "CREATE FUNCTION") ||
		!strings.HasSuffix(got[1], "$$;\n") || got[2] != "SELECT\n  1;\n" {
		t.Errorf("split into %q", got)
	}
	for _, m := range Migrations() {
		for _, s := range statements(m.SQL) {
			if strings.Count(s, "$$")%2 != 0 {
				t.Errorf("migration %d: a statement ends within a body:\n%s", m.Version, s)
			}
		}
	}
}

func TestTableLacks(t *testing.T) {
	table := table{name: "t", columns: []string{"a", "b", "c"}}
	if e := table.lacks([]string{"c", "a", "b", "more"}); e != nil {
		t.Error(e)
	}
	if e := table.lacks([]string{"b"}); e == nil || e.Error() != "the table t has no column a, c" {
		t.Error(e)
	}
	if e := table.lacks(nil); e == nil || e.Error() != "the table t is missing" {
		t.Error(e)
	}
}

func TestVersionErrorNamesBothVersions(t *testing.T) {
	for want, e := range map[string]VersionError{
		"the database has no tables of ackwise, version 3 is needed":                             {0, 3},
		"the database is at version 1 of ackwise's tables, older than this program's version 3":  {1, 3},
		"the database is at version 12 of ackwise's tables, newer than this program's version 3": {12, 3},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTokens(t *testing.T) {
	id, handOut, err := parseToken(tokenOf(1<<40, 7))
	if err != nil || id != 1<<40 || handOut != 7 {
		t.Errorf("parsed %d, %d, %v", id, handOut, err)
	}
	for _, bad := range []ackwise.LeaseToken{"", ".", "1", "1.", "0.1", "1.0", "1.1.1", "x.1"} {
		if _, _, err := parseToken(bad); !errors.Is(err, ackwise.ErrBadToken) {
			t.Errorf("the token %q: %v", bad, err)
		}
	}
}

func TestSettlementsAreMadeFit(t *testing.T) {
	var c settlements
	add := func(e ackwise.Settlement) error {
		e.Token = tokenOf(1, 1)
		return c.add(0, e, time.Minute)
	}
	err := errors.Join(add(ackwise.Settlement{Outcome: ackwise.OutcomeExtend}),
		add(ackwise.Settlement{Outcome: ackwise.OutcomeNack, Delay: -time.Second,
			Reason: "a\x00b\xff"}),
		add(ackwise.Settlement{Outcome: ackwise.OutcomeNack, Delay: 1 << 62}))
	if err != nil || c.delays[0] != 60_000 || c.delays[1] != 0 || c.reasons[1] != "a?b?" ||
		c.delays[2] != maxNackDelay.Milliseconds() {
		t.Errorf("%v, %+v", err, c)
	}
	if add(ackwise.Settlement{Outcome: ackwise.OutcomeDrop}) == nil {
		t.Error("a drop without a reason was taken")
	}
	if add(ackwise.Settlement{Outcome: 99}) == nil {
		t.Error("an outcome that is none was taken")
	}
}

func TestInboxTurnsDown(t *testing.T) {
	b := &BatchInbox[int]{o: InboxOptions{Name: "in", Again: time.Hour}.withDefaults()}
	for _, c := range []struct {
		answer idempotency.Answer
		want   ackwise.Outcome
	}{
		{idempotency.Answer{Status: idempotency.Done}, ackwise.OutcomeAck},
		{idempotency.Answer{Status: idempotency.Busy}, ackwise.OutcomeSnooze},
		{idempotency.Answer{Status: idempotency.Conflict}, ackwise.OutcomeDead},
		{idempotency.Answer{Err: ackwise.ErrFull}, ackwise.OutcomeSnooze},
		{idempotency.Answer{Err: idempotency.Ask{}.Validate()}, ackwise.OutcomeDead},
	} {
		if v := ackwise.OutcomeOf(b.turnedDown("k", c.answer)); v.Outcome != c.want {
			t.Errorf("%+v: %s, want %s", c.answer, v.Outcome, c.want)
		}
	}
}

func TestOptionsTellEveryFault(t *testing.T) {
	err := InboxOptions{MaxKeys: -1, BusyDelay: -1}.withDefaults().validate()
	for _, want := range []string{"name is empty", "MaxKeys", "BusyDelay", "Again"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("inbox: %v does not tell %q", err, want)
		}
	}
	err = OutboxSourceOptions{Lease: 1, Poll: -1, MaxBatch: -1}.withDefaults().validate()
	for _, want := range []string{"name is empty", "Lease", "Poll", "MaxBatch"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("outbox source: %v does not tell %q", err, want)
		}
	}
	if o := (InboxOptions{Again: 30 * 24 * time.Hour}).withDefaults(); o.Window != o.Again {
		t.Errorf("the default window %s is shorter than Again", o.Window)
	}
	if len(channel(strings.Repeat("x", 80))) > 63 {
		t.Error("Postgres takes no channel of this length")
	}
}
