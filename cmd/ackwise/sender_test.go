package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/queue"
)

// flaky is a publisher whose first calls go wrong as its plan says, one word a message: ok,
// unknown, full, down, rejected, skipped (not attempted).
type flaky struct {
	plan   [][]string
	calls  int
	log    []string // what was accepted, in its order
	ids    []string // with which IDs
	called []time.Time
}

func (f *flaky) Schedule(ctx context.Context, _ time.Duration,
	ms []ackwise.Message) []ackwise.Result {
	return f.Publish(ctx, ms)
}

func (f *flaky) Publish(_ context.Context, ms []ackwise.Message) []ackwise.Result {
	var plan []string
	if f.calls < len(f.plan) {
		plan = f.plan[f.calls]
	}
	f.calls++
	f.called = append(f.called, time.Now())
	results := make([]ackwise.Result, len(ms))
	for i, m := range ms {
		word := "ok"
		if len(plan) > 0 {
			word = plan[min(i, len(plan)-1)]
		}
		id := m.ID
		if id == "" {
			id = "id-" + string(m.Body)
		}
		results[i] = map[string]ackwise.Result{
			"ok":       {Class: ackwise.ResultAccepted},
			"unknown":  {Class: ackwise.ResultUnknown, Err: errors.New("cut off")},
			"full":     {Class: ackwise.ResultRetryable, Err: fmt.Errorf("topic: %w", ackwise.ErrFull)},
			"down":     {Class: ackwise.ResultRetryable, Err: errors.New("no owner")},
			"rejected": {Class: ackwise.ResultRejected, Err: ackwise.ErrIDConflict},
			"skipped":  {Class: ackwise.ResultNotAttempted, Err: errors.New("another was refused")},
		}[word]
		results[i].ID = id
		if word == "ok" {
			f.log, f.ids = append(f.log, string(m.Body)), append(f.ids, m.ID)
		}
	}
	return results
}

// senderCase is what a sender does with a flaky publisher.
type senderCase struct {
	name    string
	plan    [][]string
	flags   publishCmd
	log     string // accepted, in this order
	calls   int
	code    int
	errText string
	took    time.Duration
}

func TestSenderRepeatsInOrder(t *testing.T) {
	for _, c := range []senderCase{
		{"what is unknown is sent again under its ID before anything else",
			[][]string{{"ok", "unknown"}, {"unknown"}}, publishCmd{Batch: 2}, "a b c d", 4, 0, "", 150 * time.Millisecond},
		{"only what was not attempted is sent again at once",
			[][]string{{"rejected", "skipped"}}, publishCmd{Batch: 2, OnBad: "skip"}, "b c d", 3, 4,
			"line 1: ", 0},
		{"a refused line stops all", [][]string{{"ok"}, {"rejected"}},
			publishCmd{Batch: 1, OnBad: "stop"}, "a", 2, 1, "line 2: ", 0},
		{"a full topic is waited out, and said",
			[][]string{{"full"}, {"full"}, {"full"}}, publishCmd{Batch: 4}, "a b c d", 4, 0,
			"line 1: topic: full; waiting for room", 350 * time.Millisecond},
		{"a full topic is waited for no longer than told",
			[][]string{{"ok", "full"}, {"full"}, {"full"}, {"full"}, {"full"}},
			publishCmd{Batch: 4, FullWait: 200 * time.Millisecond}, "a", 4, 1, "publish line 2: topic: full",
			350 * time.Millisecond},
		{"what brings nothing on for long is an error", slicesOf("down", 20), publishCmd{Batch: 4}, "",
			11, 1, "publish line 1: no owner", 11150 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.run(t) })
		})
	}
}

// run publishes the lines a, b, c, d.
func (c *senderCase) run(t *testing.T) {
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	var errOut strings.Builder
	a := &app{ctx: t.Context(), out: out, err: &errOut, now: time.Now}
	f := &flaky{plan: c.plan}
	c.flags.Topic, c.flags.PrintIDs = "t", true
	begin := time.Now()
	form, err := c.flags.form(100)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan process.InputLine, 4) // all are there, so that batches are full
	for i, body := range []string{"a", "b", "c", "d"} {
		lines <- process.InputLine{Number: i + 1, Text: []byte(body)}
	}
	close(lines)
	p := &lineSender{c: &c.flags, a: a, to: f, form: form}
	code := a.report(p.sum(p.run(t.Context(), lines)))
	if got := strings.Join(f.log, " "); got != c.log || f.calls != c.calls || code != c.code {
		t.Errorf("accepted %q in %d calls, exit code %d; want %q, %d, %d\n%s", got, f.calls,
			code, c.log, c.calls, c.code, errOut.String())
	}
	if !strings.Contains(errOut.String(), c.errText) {
		t.Errorf("standard error %q, want %q", errOut.String(), c.errText)
	}
	if took := time.Since(begin); took != c.took {
		t.Errorf("took %s, want %s", took, c.took)
	}
	var want strings.Builder
	for _, body := range f.log {
		want.WriteString("id-" + body + "\n")
	}
	if got, _ := os.ReadFile(out.Name()); string(got) != want.String() {
		t.Errorf("printed %q, want %q", got, want.String())
	}
	if c.plan[0][len(c.plan[0])-1] == "unknown" && f.ids[1] != "id-b" {
		t.Errorf("the repeat has ID %q, want the one that the first call gave", f.ids[1])
	}
}

func slicesOf(word string, n int) [][]string {
	all := make([][]string, n)
	for i := range all {
		all[i] = []string{word}
	}
	return all
}

func TestFingerprint(t *testing.T) {
	for text, want := range map[string]string{
		"timeout after 30s":                              "timeout after <n>s",
		"dial 10.0.0.1:5432":                             "dial <n>",
		"no order 0xDEADBEEF1":                           "no order <hex>",
		"user 01a20ec6-0f40-71ac-81b1-92b00c2099fa gone": "user <id> gone",
		"commit 3f2a9c1b failed":                         "commit <hex> failed",
		"a face in the cafe, added":                      "a face in the cafe, added",
		"":                                               "",
	} {
		if got := fingerprint(text); got != want {
			t.Errorf("fingerprint(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestTableShowsHostileTextHarmlessly(t *testing.T) {
	var b strings.Builder
	tb := newTable("A", ">N")
	tb.add("x\x1b[2J\ny", 5)
	tb.add("ä", 12345)
	if err := tb.write(&b, ""); err != nil {
		t.Fatal(err)
	}
	want := "A                N\nx\\x1b[2J\\ny      5\nä            12345\n"
	if b.String() != want {
		t.Errorf("table\n%q, want\n%q", b.String(), want)
	}
	for d, want := range map[time.Duration]string{0: "0ms", 1500 * time.Millisecond: "1s",
		-90 * time.Second: "-1m", 49 * time.Hour: "2d"} {
		if got := human(d); got != want {
			t.Errorf("human(%s) = %s, want %s", d, got, want)
		}
	}
}

// undying is a store whose dead letters die again as soon as they are redriven.
type undying struct {
	letters []queue.DeadLetter
	redrove int
}

func (u *undying) DeadLetters(_ context.Context, _, _ string, f queue.DeadFilter) (
	[]queue.DeadLetter, error) {
	var chosen []queue.DeadLetter
	for _, l := range u.letters {
		if l.Time.Before(f.Before) && !l.Time.Before(f.After) && len(chosen) < f.Max {
			chosen = append(chosen, l)
		}
	}
	return chosen, nil
}

func (u *undying) Redrive(ctx context.Context, _, _ string, f queue.DeadFilter, _ bool) (
	int, error) {
	chosen, _ := u.DeadLetters(ctx, "", "", f)
	for _, c := range chosen {
		for i := range u.letters {
			if u.letters[i].Message.ID == c.Message.ID {
				u.letters[i].Time = time.Now().Add(time.Millisecond)
				u.letters[i].Counts.Redrives++
			}
		}
	}
	u.redrove += len(chosen)
	return len(chosen), nil
}

func (u *undying) DropDead(context.Context, string, string, queue.DeadFilter, string) (int, error) {
	return 0, errors.New("not asked for")
}

// TestRedriveLeavesWhatDiesAgain: each letter is redriven once, also where it dies again meanwhile.
// More than a page died at the same time.
func TestRedriveLeavesWhatDiesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := os.Create(t.TempDir() + "/out")
		if err != nil {
			t.Fatal(err)
		}
		u := &undying{}
		for i := range 2500 {
			u.letters = append(u.letters, queue.DeadLetter{Time: time.Now().Add(-time.Hour),
				Message: ackwise.Message{ID: fmt.Sprint(i)}})
		}
		a := &app{ctx: t.Context(), out: out, err: out, now: time.Now}
		c := redriveCmd{deadChoice: deadChoice{All: true}, Rate: rate{1000, time.Second}}
		begin := time.Now()
		if err := c.redrive(a, u); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 2400*time.Millisecond {
			t.Errorf("2500 at 1000/s took %s", took)
		}
		for _, l := range u.letters {
			if l.Counts.Redrives != 1 {
				t.Fatalf("%s was redriven %d times", l.Message.ID, l.Counts.Redrives)
			}
		}
		if got, _ := os.ReadFile(out.Name()); string(got) != "2500 dead letters redriven\n" {
			t.Errorf("printed %s", got)
		}
	})
}
