package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/internal/process"
)

type publishCmd struct {
	dirFlag
	Create   bool          `help:"Make the directory and the topic where they are missing."`
	Topic    topicName     `arg:"" help:"The topic."`
	File     string        `arg:"" optional:"" default:"-" help:"A file of lines, - for standard input."`
	ID       string        `name:"id" xor:"id" help:"The ID of the one message."`
	IDField  string        `name:"id-field" xor:"id" placeholder:"NAME" help:"The JSON field of a line that is its ID (a string or a number)."`
	Key      string        `xor:"key" help:"The key of every message."`
	KeyField string        `xor:"key" placeholder:"NAME" help:"The JSON field of a line that is its key (a string or a number)."`
	Header   []string      `sep:"none" placeholder:"K=V" help:"A header of every message. May be repeated."`
	Delay    time.Duration `help:"Let the messages take their place so much later."`
	Batch    int           `default:"256" help:"Publish at most so many lines at once. No line waits for others."`
	OnBad    string        `enum:"skip,stop" default:"stop" help:"What a bad line does: stop (exit code 1) or skip (exit code 4)."`
	PrintIDs bool          `name:"print-ids" help:"Print only IDs, each as soon as its message is durable."`
	FullWait time.Duration `help:"How long to wait for room in a full topic. Default: as long as it takes."`
}

// publisher is where lines are published to.
type publisher interface {
	Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result
	Schedule(ctx context.Context, delay time.Duration, msgs []ackwise.Message) []ackwise.Result
}

// Validate checks what the flags alone can tell.
func (c *publishCmd) Validate() error {
	if c.Batch < 1 || c.Batch > 4096 {
		return fmt.Errorf("--batch=%d: it is from 1 to 4096", c.Batch)
	}
	if c.Delay < 0 || c.FullWait < 0 {
		return errors.New("--delay and --full-wait are not negative")
	}
	form, err := c.form(0)
	if err != nil || c.Topic == "" { // the parser asks for a missing topic itself
		return err
	}
	m := ackwise.Message{Topic: string(c.Topic), ID: c.ID, Key: c.Key, Headers: form.headers}
	return m.Validate()
}

func (c *publishCmd) form(maxBody int) (lineForm, error) {
	f := lineForm{topic: string(c.Topic), idField: c.IDField, keyField: c.KeyField, id: c.ID,
		key: c.Key, maxBody: maxBody}
	for _, h := range c.Header {
		name, value, ok := strings.Cut(h, "=")
		if !ok {
			return f, fmt.Errorf("--header %.80q is not NAME=VALUE", h)
		}
		f.headers = append(f.headers, ackwise.Header{Name: name, Value: []byte(value)})
	}
	return f, nil
}

// Run publishes.
func (c *publishCmd) Run(a *app) (err error) {
	in := a.in
	if c.File != "-" {
		f, err := os.Open(c.File)
		if err != nil {
			return fmt.Errorf("open input: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	d, err := a.open(a.ctx, c.Dir, c.Create)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	if err := ensureTopic(a.ctx, d, string(c.Topic), c.Create); err != nil {
		return err
	}
	maxBody := d.Features().MaxBodyBytes
	if maxBody == 0 {
		maxBody = 1 << 20
	}
	return c.publish(a, d, in, maxBody)
}

// closing closes c at the end of a function and keeps its first error.
func closing(c io.Closer, err *error) {
	if e := c.Close(); *err == nil {
		*err = e
	}
}

// publish publishes the lines of in, one batch after the other.
func (c *publishCmd) publish(a *app, to publisher, in io.Reader, maxBody int) error {
	form, err := c.form(maxBody)
	if err != nil {
		return err
	}
	p := &lineSender{c: c, a: a, to: to, form: form}
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	lines := make(chan process.InputLine, c.Batch)
	// It ends with the input, and is waited for then. After a fault or a signal it may be blocked in
	// a read that nothing can end: then it ends with the process.
	p.reading.Go(func() {
		defer close(lines)
		p.readErr = readLines(ctx, in, maxBody, lines)
	})
	shown := a.progress(func() string {
		return fmt.Sprintf("published %d, duplicates %d, skipped %d%s", p.accepted.Load(),
			p.duplicates.Load(), p.skipped.Load(), p.waitingText())
	})
	err = p.run(ctx, lines)
	shown.stop()
	return p.sum(err)
}

func readLines(ctx context.Context, in io.Reader, max int, to chan<- process.InputLine) error {
	r := process.NewLineReader(in, max)
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read input: %w", err)
		}
		select {
		case to <- line:
		case <-ctx.Done():
			return nil
		}
	}
}

// lineSender publishes lines in their order: one call at a time, and the next batch only when
// every line of the one before is accepted or refused for ever.
type lineSender struct {
	c       *publishCmd
	a       *app
	to      publisher
	form    lineForm
	reading sync.WaitGroup // the reader of the input
	readErr error          // of the reader, once it has ended

	accepted, duplicates, skipped atomic.Int64
	waiting                       atomic.Bool // for room
	next                          int         // the first line that is not settled
}

func (p *lineSender) waitingText() string {
	if p.waiting.Load() {
		return " (the topic is full: waiting for room)"
	}
	return ""
}

// sum is the command's end.
func (p *lineSender) sum(err error) error {
	n := p.accepted.Load()
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("interrupted: %s published; line %d and what follows were not, or "+
			"not known to be", count(int(n), "line"), max(p.next, 1))
	case err != nil:
		return err
	case p.skipped.Load() > 0:
		return partial(fmt.Errorf("%s published, %d skipped", count(int(n), "line"),
			p.skipped.Load()))
	}
	return nil
}

// numbered is a message with the number of its line.
type numbered struct {
	line int
	m    ackwise.Message
}

func (p *lineSender) run(ctx context.Context, lines <-chan process.InputLine) error {
	var held process.InputLine
	for {
		batch := batchOf(ctx, lines, p.c.Batch, &held)
		if len(batch) == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.reading.Wait()
			return p.readErr
		}
		p.next = batch[0].Number
		var msgs []numbered
		for _, line := range batch {
			m, err := p.form.message(line, p.a.now())
			if err == nil {
				msgs = append(msgs, numbered{line.Number, m})
				continue
			}
			// What stands before the bad line is published before it stops all.
			if err := p.send(ctx, msgs); err != nil {
				return err
			}
			msgs = nil
			p.next = line.Number
			if err := p.bad(line.Number, err); err != nil {
				return err
			}
		}
		if err := p.send(ctx, msgs); err != nil {
			return err
		}
		p.next = batch[len(batch)-1].Number + 1
	}
}

// bad reports a bad line. The error, if any, stops the command.
func (p *lineSender) bad(line int, err error) error {
	if p.c.OnBad == "stop" {
		return &ackwise.HintError{Err: fmt.Errorf("line %d: %w", line, err),
			Hint: fmt.Sprintf("The lines before it are published. Publish again from line %d, "+
				"or with --on-bad skip.", line)}
	}
	p.skipped.Add(1)
	_, werr := fmt.Fprintf(p.a.err, "line %d: %v (skipped)\n", line, err)
	return werr
}

const (
	pauseMin = 50 * time.Millisecond
	pauseMax = 2 * time.Second
	// patience is how long a publish that brings nothing on is repeated.
	patience = 10 * time.Second
)

// send publishes until every message is accepted or refused for ever.
func (p *lineSender) send(ctx context.Context, msgs []numbered) error {
	delay, stuck := pauseMin, time.Time{}
	defer p.waiting.Store(false)
	for len(msgs) > 0 {
		left, err := p.try(ctx, msgs)
		if err != nil || len(left.msgs) == 0 {
			return err
		}
		p.next = left.msgs[0].line
		if len(left.msgs) < len(msgs) {
			delay, stuck = pauseMin, time.Time{}
		} else if stuck.IsZero() {
			stuck = p.a.now()
		}
		msgs = left.msgs
		if left.err == nil {
			continue // only because others of its batch were refused
		}
		if err := p.stuckFor(ctx, left, stuck); err != nil {
			return err
		}
		if !pause.For(ctx, max(delay, left.after)) {
			return ctx.Err()
		}
		delay = min(2*delay, pauseMax)
	}
	return nil
}

// stuckFor says whether it is time to give up.
func (p *lineSender) stuckFor(ctx context.Context, left leftover, since time.Time) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	full := errors.Is(left.err, ackwise.ErrFull)
	if full && !p.waiting.Swap(true) && !p.a.terminal {
		_, _ = fmt.Fprintf(p.a.err, "line %d: %v; waiting for room\n", left.msgs[0].line, left.err)
	}
	bound := patience
	if full {
		bound = p.c.FullWait
	}
	if since.IsZero() || bound == 0 || p.a.now().Sub(since) < bound {
		return nil
	}
	return fmt.Errorf("publish line %d: %w", left.msgs[0].line, left.err)
}

// leftover is what has to be published again, in its order.
type leftover struct {
	msgs  []numbered
	err   error // why, of the first that says so
	after time.Duration
}

// try publishes once and carries the results out.
func (p *lineSender) try(ctx context.Context, msgs []numbered) (leftover, error) {
	plain := make([]ackwise.Message, len(msgs))
	for i, m := range msgs {
		plain[i] = m.m
	}
	var results []ackwise.Result
	if p.c.Delay > 0 {
		results = p.to.Schedule(ctx, p.c.Delay, plain)
	} else {
		results = p.to.Publish(ctx, plain)
	}
	var left leftover
	var refused error
	for i, r := range results {
		var err error
		switch r.Class {
		case ackwise.ResultAccepted:
			err = p.took(r)
		case ackwise.ResultRejected:
			if refused == nil {
				refused = p.refused(msgs[i].line, r.Err)
			}
		case ackwise.ResultRetryable, ackwise.ResultUnknown, ackwise.ResultNotAttempted:
			again := msgs[i]
			if r.ID != "" {
				again.m.ID = r.ID // so that it is the same message
			}
			left.msgs, left.after = append(left.msgs, again), max(left.after, r.After)
			if left.err == nil && r.Class != ackwise.ResultNotAttempted {
				left.err = r.Err
			}
		}
		if err != nil {
			return left, err
		}
	}
	return left, refused
}

func (p *lineSender) took(r ackwise.Result) error {
	p.accepted.Add(1)
	if r.Duplicate {
		p.duplicates.Add(1)
	}
	if !p.c.PrintIDs {
		return nil
	}
	if _, err := io.WriteString(p.a.out, r.ID+"\n"); err != nil {
		return fmt.Errorf("print ID: %w", err)
	}
	return nil
}

// refused is a message that is refused for ever: a bad line, unless the topic itself is gone.
func (p *lineSender) refused(line int, err error) error {
	var notFound *ackwise.NotFoundError
	if errors.As(err, &notFound) || errors.Is(err, ackwise.ErrClosed) {
		return fmt.Errorf("publish line %d: %w", line, err)
	}
	return p.bad(line, err)
}
