package main

import (
	"fmt"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

type peekCmd struct {
	dirFlag
	jsonFlag
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose messages."`
	Max      int      `default:"10" help:"At most so many."`
	State    string   `enum:"ready,delayed,in-flight,parked,dead," default:"" help:"Only those in this state: ready, delayed, in-flight, parked, dead."`
	ID       string   `name:"id" help:"Only this message, with its history."`
	After    string   `placeholder:"POSITION" help:"Only those behind this position."`
}

// Validate checks what the flags alone can tell.
func (c *peekCmd) Validate() error {
	if c.Max < 1 || c.Max > 10_000 {
		return fmt.Errorf("--max=%d: it is from 1 to 10000", c.Max)
	}
	return nil
}

// Run shows messages.
func (c *peekCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	seen, err := d.Peek(a.ctx, c.Pipeline.topic, c.Pipeline.sub, queue.PeekOptions{Max: c.Max,
		State: queue.State(c.State), ID: c.ID, After: ackwise.Position(c.After)})
	if err != nil {
		return err
	}
	return c.write(a, seen)
}

func (c *peekCmd) write(a *app, seen []queue.Peeked) error {
	if c.JSON {
		return writeJSON(a.out, listed(seen))
	}
	if c.ID != "" && len(seen) > 0 {
		m := seen[0]
		if _, err := fmt.Fprintf(a.out, "state     %s\nposition  %s\n", m.State, m.Position); err != nil {
			return err
		}
		if err := writeMessage(a.out, m.Message, m.Counts); err != nil {
			return err
		}
		return writeHistory(a, m.History)
	}
	t := newTable("ID", "STATE", "KEY", ">AGE", ">DUE", ">ATTEMPTS", "CAUSE", "CONSUMER", "BODY")
	now := a.now()
	for _, m := range seen {
		due := "-"
		if !m.Due.IsZero() {
			due = human(m.Due.Sub(now))
		}
		t.add(m.Message.ID, m.State, dash(short(m.Message.Key, 24)), ago(now, m.Accepted), due,
			m.Counts.HandOuts, m.Cause, dash(short(m.Consumer, 24)), bodyText(m.Message.Body, 48))
	}
	return t.write(a.out, "no such messages")
}

// listed makes an empty listing [] rather than null.
func listed[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}
