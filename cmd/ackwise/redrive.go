package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/queue"
)

// deadChoice is which dead letters a command changes: never all by accident.
type deadChoice struct {
	deadFilter
	IDs    []string `arg:"" optional:"" name:"id" help:"Only these message IDs."`
	All    bool     `help:"All of them."`
	DryRun bool     `help:"Show what would be done, and do nothing."`
}

func (c *deadChoice) check() error {
	some := len(c.IDs) > 0 || !c.empty()
	switch {
	case !some && !c.All:
		return errors.New("name IDs, give a filter (--key, --error, --cause, --before), or --all")
	case some && c.All:
		return errors.New("--all stands alone, without IDs and filters")
	}
	return nil
}

type redriveCmd struct {
	Dir string `placeholder:"DIR" help:"The data directory."`
	jsonFlag
	Pipeline pipeline `arg:"" optional:"" name:"topic/subscription" help:"Whose dead letters."`
	Once     string   `placeholder:"FILE.yaml" help:"Run the redrives of a file: until accepted or their deadline."`
	deadChoice
	Rate rate `placeholder:"N/s" help:"At most so many a second (also N/m, N/h). Default: all at once."`
	Redo bool `help:"Order the effect again: consumers that deduplicate apply it once more."`
}

// Help is printed under the usage.
func (c *redriveCmd) Help() string {
	return "Without --once: dead letters of a directory go back to their subscription, all that are " +
		"chosen, at once or at a rate. With --once FILE.yaml: each redrive of the file takes dead " +
		"letters from a queue of another system or from a directory to any sink, until they are " +
		"accepted or its deadline is over, and prints one line of JSON. A letter leaves its store " +
		"after its target has accepted it. Exit code 0: empty, or all accepted; 4: some are left " +
		"for the next run; 1: it could not work. Runs that overlap do no harm."
}

// Validate checks what the flags alone can tell.
func (c *redriveCmd) Validate() error {
	if c.Once != "" {
		// The directory may be set by the environment, which is for the other form.
		if c.Pipeline != (pipeline{}) || c.All || len(c.IDs) > 0 || !c.empty() || c.Redo ||
			c.Rate != (rate{}) || c.JSON {
			return errors.New("--once stands alone or with --dry-run: the file says the rest")
		}
		return nil
	}
	switch {
	case c.Dir == "":
		return errors.New("missing flags: --dir=DIR (or --once=FILE.yaml)")
	case c.Pipeline == (pipeline{}):
		return errors.New("expected \"<topic/subscription>\" (or --once=FILE.yaml)")
	}
	return c.check()
}

// Run redrives.
func (c *redriveCmd) Run(a *app) (err error) {
	if c.Once != "" {
		return c.once(a)
	}
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return c.redrive(a, d)
}

func (c *redriveCmd) redrive(a *app, d deadStore) error {
	return c.change(a, d, c.Pipeline, c.changeOf("redriven", c.Rate,
		func(ctx context.Context, f queue.DeadFilter) (int, error) {
			return d.Redrive(ctx, c.Pipeline.topic, c.Pipeline.sub, f, c.Redo)
		}, c.JSON))
}

type deadDropCmd struct {
	dirFlag
	jsonFlag
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose dead letters."`
	deadChoice
	Reason string `required:"" help:"Why. It is kept and counted."`
}

// Validate checks what the flags alone can tell.
func (c *deadDropCmd) Validate() error {
	if c.Reason == "" {
		return errors.New("--reason is empty")
	}
	return c.check()
}

// Run drops dead letters.
func (c *deadDropCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return c.drop(a, d)
}

func (c *deadDropCmd) drop(a *app, d deadStore) error {
	return c.change(a, d, c.Pipeline, c.changeOf("dropped", rate{},
		func(ctx context.Context, f queue.DeadFilter) (int, error) {
			return d.DropDead(ctx, c.Pipeline.topic, c.Pipeline.sub, f, c.Reason)
		}, c.JSON))
}

// change is what is done to dead letters.
type change struct {
	word  string // what was done: "redriven"
	rate  rate
	apply func(ctx context.Context, f queue.DeadFilter) (int, error)
	json  bool
}

func (c *deadChoice) changeOf(word string, r rate,
	apply func(context.Context, queue.DeadFilter) (int, error), json bool) change {
	return change{word: word, rate: r, apply: apply, json: json}
}

// changed is the result as JSON.
type changed struct {
	Chosen  int      `json:"chosen"`  // dead letters that were chosen
	Changed int      `json:"changed"` // of them, redriven or dropped
	DryRun  bool     `json:"dry_run"`
	Missing []string `json:"missing"` // IDs that are no dead letters
	IDs     []string `json:"ids"`     // in a dry run, the first of them
}

// maxShown is how many IDs a dry run shows.
const maxShown = 20

// change carries out a change on the chosen dead letters that are there now: one that dies again
// meanwhile is left for the next time.
func (c *deadChoice) change(a *app, d deadStore, p pipeline, ch change) error {
	f := c.filter(a.now())
	f.IDs = c.IDs
	if f.Before.IsZero() {
		f.Before = a.now()
	}
	out := changed{DryRun: c.DryRun, Missing: []string{}, IDs: []string{}}
	if err := c.choose(a.ctx, d, p, f, &out); err != nil {
		return err
	}
	var err error
	if !c.DryRun {
		err = ch.applyAll(a, f, &out)
	}
	if werr := ch.write(a, c.DryRun, &out); err == nil {
		err = werr
	}
	switch {
	case err != nil && out.Changed > 0:
		return partial(fmt.Errorf("%d of %d %s: %w", out.Changed, out.Chosen, ch.word, err))
	case err != nil:
		return err
	case len(out.Missing) > 0 && out.Chosen == 0:
		return noDeadLetter(a.ctx, d, p, out.Missing[0])
	case len(out.Missing) > 0:
		return partial(fmt.Errorf("no dead letter %q (%d of %d IDs are none)", out.Missing[0],
			len(out.Missing), len(c.IDs)))
	}
	return nil
}

// choose counts the dead letters that are chosen, and finds IDs that are none.
func (c *deadChoice) choose(ctx context.Context, d deadStore, p pipeline, f queue.DeadFilter,
	out *changed) error {
	there := make(map[string]bool)
	err := eachDead(ctx, d, p, f, func(l queue.DeadLetter) error {
		out.Chosen++
		if len(out.IDs) < maxShown {
			out.IDs = append(out.IDs, l.Message.ID)
		}
		if len(c.IDs) > 0 {
			there[l.Message.ID] = true
		}
		return nil
	})
	for _, id := range c.IDs {
		if !there[id] {
			out.Missing = append(out.Missing, id)
		}
	}
	return err
}

func (ch *change) applyAll(a *app, f queue.DeadFilter, out *changed) error {
	if out.Chosen == 0 {
		return nil
	}
	shown := a.progress(func() string { return fmt.Sprintf("%s (at %s)", ch.word, ch.rate) })
	defer shown.stop()
	chunk, delay := ch.rate.chunks()
	for {
		f.Max = chunk
		n, err := ch.apply(a.ctx, f)
		out.Changed += n
		if err != nil || n == 0 || out.Changed >= out.Chosen {
			return err
		}
		if !pause.For(a.ctx, delay) {
			return a.ctx.Err()
		}
	}
}

func (ch *change) write(a *app, dry bool, out *changed) error {
	if ch.json {
		return writeJSON(a.out, out)
	}
	if !dry {
		_, err := fmt.Fprintf(a.out, "%s %s\n", count(out.Changed, "dead letter"), ch.word)
		return err
	}
	if _, err := fmt.Fprintf(a.out, "%s would be %s\n", count(out.Chosen, "dead letter"),
		ch.word); err != nil {
		return err
	}
	for _, id := range out.IDs {
		if _, err := fmt.Fprintln(a.out, "  "+printable(id)); err != nil {
			return err
		}
	}
	return nil
}

// rate is N/s on the command line; the zero value is no limit.
type rate struct {
	n   int
	per time.Duration
}

// UnmarshalText reads N/s, N/m or N/h; N alone is N/s.
func (r *rate) UnmarshalText(text []byte) error {
	var n int
	unit := "s"
	if got, err := fmt.Sscanf(string(text), "%d/%s", &n, &unit); got < 1 || got == 1 && err == nil {
		return fmt.Errorf("%.40q is not a rate such as 10/s", text)
	}
	per, ok := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if !ok || n < 1 {
		return fmt.Errorf("%.40q is not a rate such as 10/s", text)
	}
	*r = rate{n, per}
	return nil
}

func (r rate) String() string {
	if r.n == 0 {
		return "full speed"
	}
	return fmt.Sprintf("%d in %s", r.n, r.per)
}

// chunks is how many to change at once, and the pause after each.
func (r rate) chunks() (n int, pause time.Duration) {
	if r.n == 0 {
		return deadPage, 0
	}
	each := r.per / time.Duration(r.n)
	const tick = 100 * time.Millisecond
	if each >= tick {
		return 1, each
	}
	n = max(int(tick*time.Duration(r.n)/r.per), 1)
	return n, each * time.Duration(n)
}
