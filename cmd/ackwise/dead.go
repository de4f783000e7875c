package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

type deadCmd struct {
	List   deadListCmd   `cmd:"" help:"List dead letters, oldest first."`
	Show   deadShowCmd   `cmd:"" help:"Show one dead letter with its history."`
	Groups deadGroupsCmd `cmd:"" help:"Group dead letters by error, with numbers and IDs masked."`
	Drop   deadDropCmd   `cmd:"" help:"Drop dead letters, with a reason."`
	Export deadExportCmd `cmd:"" help:"Write dead letters as lines of JSON, with history."`
}

// deadStore is where dead letters are.
type deadStore interface {
	DeadLetters(ctx context.Context, topic, sub string, f queue.DeadFilter) ([]queue.DeadLetter, error)
	DropDead(ctx context.Context, topic, sub string, f queue.DeadFilter, reason string) (int, error)
	Redrive(ctx context.Context, topic, sub string, f queue.DeadFilter, redo bool) (int, error)
}

// deadFilter chooses dead letters; all that is given must match.
type deadFilter struct {
	Key    string      `help:"Only those of this key."`
	Error  string      `placeholder:"TEXT" help:"Only those whose last error holds this text."`
	Cause  causeWord   `help:"Only those whose last hand-out had this cause."`
	Before timeOrSince `placeholder:"TIME" help:"Only those that died before this time (RFC 3339, or a duration ago such as 2h)."`
}

// causeWord is a cause on the command line; the zero value is any.
type causeWord struct{ ackwise.Cause }

// UnmarshalText reads a cause's word.
func (c *causeWord) UnmarshalText(text []byte) error {
	if err := c.Cause.UnmarshalText(text); err != nil || c.Cause == ackwise.CauseUnknown {
		var words []string
		for _, cause := range ackwise.Causes()[1:] {
			words = append(words, cause.String())
		}
		return find("cause", string(text), words)
	}
	return nil
}

// timeOrSince is a time on the command line, or how long ago.
type timeOrSince struct{ at func(now time.Time) time.Time }

// UnmarshalText reads a time (RFC 3339) or a duration.
func (t *timeOrSince) UnmarshalText(text []byte) error {
	if at, err := time.Parse(time.RFC3339, string(text)); err == nil {
		t.at = func(time.Time) time.Time { return at }
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%.40q is neither a time such as 2026-01-31T12:00:00Z nor a duration "+
			"such as 2h", text)
	}
	t.at = func(now time.Time) time.Time { return now.Add(-d) }
	return nil
}

func (f *deadFilter) filter(now time.Time) queue.DeadFilter {
	q := queue.DeadFilter{Key: f.Key, Error: f.Error, Cause: f.Cause.Cause}
	if f.Before.at != nil {
		q.Before = f.Before.at(now)
	}
	return q
}

func (f *deadFilter) empty() bool {
	return f.Key == "" && f.Error == "" && f.Cause.Cause == 0 && f.Before.at == nil
}

// deadPage is how many dead letters are asked for at once.
const deadPage = 1000

// eachDead calls fn for every dead letter that f chooses, oldest first, without holding all of them
// in memory.
func eachDead(ctx context.Context, d deadStore, p pipeline, f queue.DeadFilter,
	fn func(queue.DeadLetter) error) error {
	seen := make(map[string]bool) // those of the last time that was reached
	page := deadPage
	for {
		f.Max = page
		letters, err := d.DeadLetters(ctx, p.topic, p.sub, f)
		if err != nil {
			return err
		}
		fresh := false
		for _, l := range letters {
			if seen[l.Message.ID] {
				continue
			}
			fresh = true
			if !l.Time.Equal(f.After) {
				clear(seen)
				f.After = l.Time
			}
			seen[l.Message.ID] = true
			if err := fn(l); err != nil {
				return err
			}
		}
		switch {
		case len(letters) < page:
			return nil
		case !fresh:
			page *= 2 // more than a page died at the same time
		}
	}
}

type deadListCmd struct {
	dirFlag
	jsonFlag
	deadFilter
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose dead letters."`
	Max      int      `default:"100" help:"At most so many."`
}

// errEnough ends eachDead early.
var errEnough = errors.New("enough")

// Run lists dead letters.
func (c *deadListCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return c.list(a, d)
}

func (c *deadListCmd) list(a *app, d deadStore) error {
	letters := []queue.DeadLetter{}
	more := false
	err := eachDead(a.ctx, d, c.Pipeline, c.filter(a.now()), func(l queue.DeadLetter) error {
		if len(letters) == c.Max {
			more = true
			return errEnough
		}
		letters = append(letters, l)
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if c.JSON {
		return writeJSON(a.out, letters)
	}
	t := newTable("ID", "KEY", ">DEAD FOR", ">ATTEMPTS", "CAUSE", ">PARKED", "ERROR")
	for _, l := range letters {
		t.add(l.Message.ID, dash(short(l.Message.Key, 24)), ago(a.now(), l.Time),
			l.Counts.HandOuts, l.Cause, l.Parked, dash(short(l.Error, 80)))
	}
	if err := t.write(a.out, "no dead letters"); err != nil || !more {
		return err
	}
	_, err = fmt.Fprintf(a.out, "(the first %d; more with --max)\n", c.Max)
	return err
}

type deadShowCmd struct {
	dirFlag
	jsonFlag
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose dead letter."`
	ID       string   `arg:"" name:"id" help:"Its message ID."`
}

// Run shows one dead letter.
func (c *deadShowCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return c.show(a, d)
}

func (c *deadShowCmd) show(a *app, d deadStore) error {
	letters, err := d.DeadLetters(a.ctx, c.Pipeline.topic, c.Pipeline.sub,
		queue.DeadFilter{IDs: []string{c.ID}})
	if err != nil {
		return err
	}
	if len(letters) == 0 {
		return noDeadLetter(a.ctx, d, c.Pipeline, c.ID)
	}
	l := letters[0]
	if c.JSON {
		return writeJSON(a.out, l)
	}
	if err := writeMessage(a.out, l.Message, l.Counts); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(a.out, "dead      %s (%s ago), cause %s, epoch %d, "+
		"%d parked behind it\nerror     %s\n", l.Time.UTC().Format(time.RFC3339),
		ago(a.now(), l.Time), l.Cause, l.Epoch, l.Parked, dash(printable(l.Error))); err != nil {
		return err
	}
	return writeHistory(a, l.History)
}

// noDeadLetter is the error for an ID that is no dead letter, with the nearest that is.
func noDeadLetter(ctx context.Context, d deadStore, p pipeline, id string) error {
	letters, err := d.DeadLetters(ctx, p.topic, p.sub, queue.DeadFilter{Max: deadPage})
	if err != nil {
		return err
	}
	ids := make([]string, len(letters))
	for i, l := range letters {
		ids[i] = l.Message.ID
	}
	return find("dead letter", id, ids)
}

type deadExportCmd struct {
	dirFlag
	deadFilter
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose dead letters."`
}

// Run writes dead letters as JSON lines.
func (c *deadExportCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return exportDead(a.ctx, d, c.Pipeline, c.filter(a.now()), a.out)
}

func exportDead(ctx context.Context, d deadStore, p pipeline, f queue.DeadFilter,
	w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return eachDead(ctx, d, p, f, func(l queue.DeadLetter) error {
		if err := e.Encode(l); err != nil {
			return fmt.Errorf("write dead letter %q: %w", l.Message.ID, err)
		}
		return nil
	})
}
