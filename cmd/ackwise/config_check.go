package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/relay"
)

// check finds what is wrong with words that each for itself are right.
func (c *config) check(d *configReader) {
	c.checkRedrives(d)
	names, places := map[string]int{}, map[string]int{}
	once := func(seen map[string]int, name string, line int, what string) {
		if first, twice := seen[name]; twice {
			d.fault(line, "%s is taken by the pipeline on line %d", what, first)
			return
		}
		seen[name] = line
	}
	for i := range c.Pipelines {
		p := &c.Pipelines[i]
		before := len(d.faults)
		p.check(d)
		bad := len(d.faults) > before
		if p.Name != "" {
			once(names, p.Name, p.at("name"), fmt.Sprintf("the name %q", p.Name))
		}
		if !bad && p.Pattern == patternDedup && !p.store.is("memory:") {
			once(places, p.store.key(), p.atDedup("store"), "the dedup store "+p.store.key())
		}
		switch {
		case bad:
		case p.from.is("-"):
			once(places, "-", p.at("from"), "standard input")
		case p.from.is("file://"):
			once(places, p.position(), p.at("lines.position"),
				"the position file "+p.position())
		}
	}
}

// position is where a source of lines remembers its position.
func (p *pipelineConfig) position() string {
	if p.Lines.Position == "" {
		return p.from.path + ".position"
	}
	if path, err := filepath.Abs(p.Lines.Position); err == nil {
		return path
	}
	return p.Lines.Position
}

func (p *pipelineConfig) check(d *configReader) {
	if err := ackwise.ValidateName("name", p.Name); err != nil {
		d.fault(p.at("name"), "%v", err)
	}
	before := len(d.faults)
	p.checkEndpoints(d)
	if len(d.faults) > before {
		return
	}
	p.checkDead(d)
	p.checkSections(d)
	p.checkTransform(d)
	if len(d.faults) == before {
		p.checkLoop(d)
	}
	if len(d.faults) == before {
		p.checkPattern(d)
	}
}

// readEndpoints reads the endpoints that are given.
func (p *pipelineConfig) readEndpoints(d *configReader) {
	read := func(word, text string, from bool) *endpoint {
		e, err := parseEndpoint(text, from)
		if err != nil {
			for line := range strings.Lines(err.Error()) { // one fault each
				d.fault(p.at(word), "%s: %s", word, strings.TrimSuffix(line, "\n"))
			}
			return nil
		}
		return &e
	}
	if p.From != "" {
		if e := read("from", p.From, true); e != nil {
			p.from = *e
		}
	}
	if p.To != "" {
		p.to = read("to", p.To, false)
	}
	if p.Dead != "" {
		if p.dead = read("dead", p.Dead, false); p.dead != nil {
			p.dead.dead = true
		}
	}
}

// checkEndpoints reads the endpoints, and finds which are missing.
func (p *pipelineConfig) checkEndpoints(d *configReader) {
	if p.From == "" {
		d.fault(p.line, "the pipeline has no from, where its messages come from")
	}
	p.readEndpoints(d)
	targets := 0
	for _, text := range []string{p.To, p.Exec, p.Pipe} {
		if text != "" {
			targets++
		}
	}
	if targets != 1 {
		d.fault(p.line, "the pipeline has %d of to, exec and pipe; it needs one", targets)
	}
	topics := map[string]string{"to": p.Transform.Topic}
	for word, e := range map[string]*endpoint{"to": p.to, "dead": p.dead} {
		switch {
		case e == nil:
		case e.path != "" && e.path == p.from.path:
			d.fault(p.at(word), "%s: it is the file that is read", word)
		case samePlace(p.from, *e, topics[word]):
			d.fault(p.at(word), "%s: it is what from reads: every message would come again, for ever",
				word)
		}
	}
}

// checkDead sees to it that dead letters have one place to go.
func (p *pipelineConfig) checkDead(d *configReader) {
	switch {
	case p.Guarantee == deliver.ExactlyOnce:
		d.fault(p.at("guarantee"), "guarantee: exactly-once needs a handler whose own "+
			"transaction settles the delivery, which a Go program can have and a file of "+
			"pipelines cannot; use at-least-once with a handler that applies each message once")
	case p.from.is("queue://") && p.dead != nil:
		d.fault(p.at("dead"), "dead: the queue keeps the dead letters of %s itself; leave it out",
			p.From)
	case p.dead != nil && p.NoDeadLetters:
		d.fault(p.at("no_dead_letters"), "no_dead_letters: dead says where they go")
	case p.dead != nil && eachToItsOwn(p.from, *p.dead):
		d.fault(p.at("dead"), "dead: it names no topic, so that a dead letter goes where its message "+
			"came from")
	case p.dead != nil && p.dead.is("-"):
		d.fault(p.at("dead"), "dead: standard output keeps nothing; it is file://PATH or "+
			"queue://DIR/TOPIC")
	case !p.from.is("queue://") && p.dead == nil && !p.NoDeadLetters &&
		p.Guarantee != deliver.AtMostOnce:
		d.fault(p.line, "%s keeps no dead letters: say where they go with dead: file://PATH, "+
			"queue://DIR/TOPIC or another sink, or no_dead_letters: true to try such messages "+
			"again for ever", p.From)
	}
}

// checkSections refuses words that have no effect.
func (p *pipelineConfig) checkSections(d *configReader) {
	queueAt := func(e *endpoint) bool { return e != nil && e.is("queue://") }
	linesAt := func(e *endpoint) bool { return e != nil && (e.is("file://") || e.is("-")) }
	creates := func(e *endpoint) bool {
		return queueAt(e) || e != nil && e.remote != nil && e.remote.creates
	}
	for _, s := range []struct {
		word string
		used bool
		why  string
	}{
		{"lines", linesAt(&p.from), "from is not file:// or -"},
		{"lines.position", p.from.is("file://"), "from is not file://"},
		{"lines.follow", p.from.is("file://"), "from is not file://"},
		{"lines.on_change", p.from.is("file://"), "from is not file://"},
		{"output", linesAt(p.to), "to is not file:// or -"},
		{"subscription", queueAt(&p.from) && p.Create, "it is for from: queue:// with create: true"},
		{"topic", (queueAt(&p.from) || queueAt(p.to)) && p.Create,
			"it is for queue:// with create: true"},
		{"receiver", queueAt(&p.from), "from is not queue://"},
		{"create", creates(&p.from) || creates(p.to) || creates(p.dead) ||
			strings.HasPrefix(p.Dedup.Store, "queue://") ||
			strings.HasPrefix(p.Dedup.Store, "dynamodb://"), "nothing here can be made"},
		{"batch_size", p.to != nil, "only to takes several messages at once"},
		{"linger", p.to != nil, "only to takes several messages at once"},
		{"transform", p.to != nil, "it is for to"},
		{"transform.topic", !queueAt(p.to), "to names the topic"},
		{"dedup", p.Pattern == patternDedup, "pattern is not dedup"},
		{"dedup.sum", p.Dedup.By != byBody, "with by: body two bodies never differ"},
	} {
		if p.has(s.word) && !s.used {
			d.fault(p.at(s.word), "%s has no effect: %s", s.word, s.why)
		}
	}
	if p.Lines.Format == file.JSON && p.Lines.IDField+p.Lines.KeyField != "" {
		d.fault(p.at("lines.format"), "lines.format: with json a line says its ID and key itself; "+
			"leave id_field and key_field out")
	}
	if p.Subscription.OnDead == queue.Hold && !p.Subscription.Ordered {
		d.fault(p.at("subscription.on_dead"), "subscription.on_dead: hold needs ordered: true")
	}
}

// checkLoop lets the loop itself say what it will refuse.
func (p *pipelineConfig) checkLoop(d *configReader) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is fetched
	o := p.loopOptions()
	if p.dead != nil {
		o.DeadLetters = deliver.DeadLetterFunc(
			func(context.Context, *ackwise.Delivery, string) error { return nil })
	}
	var err error
	if p.to != nil {
		err = deliver.RunBatch(ctx, probe{p}, ackwise.BatchHandlerFunc(
			func(context.Context, []*ackwise.Delivery) []error { return nil }), o)
	} else {
		err = deliver.Run(ctx, probe{p}, ackwise.HandlerFunc(
			func(context.Context, *ackwise.Delivery) error { return nil }), o)
	}
	faultsIn(d, &p.spot, "", err)
}

// checkTransform finds what is wrong with what changes on the way.
func (p *pipelineConfig) checkTransform(d *configReader) {
	faultsIn(d, &p.spot, "transform.", p.Transform.Validate())
	picks := p.Transform.KeyField + p.Transform.KeyHeader
	if picks != "" && p.Concurrency > 1 {
		d.fault(p.at("concurrency"), "concurrency: with a new key (transform.key_field or "+
			"key_header) it is 1: two messages of the new key may have different old ones, and "+
			"would be published side by side; a batch is published at once all the same")
	}
}

// transform is Transform for the system that to names.
func (p *pipelineConfig) transform() relay.Transform {
	t := p.Transform
	if p.to.is("kafka://") {
		t.HeaderPrefix = "ce_"
	}
	return t
}

// faultsIn notes invalid options at their words' lines.
func faultsIn(d *configReader, s *spot, prefix string, err error) {
	for _, one := range leaves(err) {
		var invalid *ackwise.InvalidError
		if !errors.As(one, &invalid) {
			d.fault(s.line, "%v", one)
			continue
		}
		words := strings.Split(invalid.Field, ".")
		for i := range words {
			words[i] = wordFor(words[i])
		}
		word := prefix + strings.Join(words, ".")
		d.fault(s.at(word), "%s: %s: %s", word, invalid.Value, invalid.Reason)
	}
}

// leaves returns the errors that others wrap or join.
func leaves(err error) []error {
	switch e := err.(type) { //nolint:errorlint // it takes the tree apart, level by level
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		var out []error
		for _, one := range e.Unwrap() {
			out = append(out, leaves(one)...)
		}
		return out
	case interface{ Unwrap() error }:
		return leaves(e.Unwrap())
	}
	return []error{err}
}

// probe is a source with the features that a pipeline's source will have. It has nothing.
type probe struct{ p *pipelineConfig }

// Features returns what the loop's options are held against.
func (s probe) Features() ackwise.Features {
	f := ackwise.Features{Order: ackwise.OrderKey, Extend: true, MaxNackDelay: 24 * time.Hour,
		Counts: true, Causes: true}
	if s.p.from.is("queue://") {
		f.Dead, f.Lease = true, 30*time.Second
		for _, lease := range []time.Duration{s.p.Subscription.Lease, s.p.Receiver.Lease} {
			if lease > 0 {
				f.Lease = lease
			}
		}
	}
	return f
}

// Receive waits for ctx.
func (probe) Receive(ctx context.Context, _ int) ([]*ackwise.Delivery, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// Settle is not called: nothing was handed out.
func (probe) Settle(_ context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	return make([]ackwise.SettleResult, len(ss))
}

// Close does nothing.
func (probe) Close() error { return nil }

// loopOptions are the loop's options with this command's own defaults: to is published to in
// batches, one after the other, which keeps the order; a process runs on each CPU.
func (p *pipelineConfig) loopOptions() deliver.Options {
	o := p.Options
	o.Pipeline = p.Name
	if o.Concurrency == 0 {
		switch {
		case p.To != "":
			o.Concurrency = 1
		case p.Exec != "":
			o.Concurrency = runtime.NumCPU()
		default:
			o.Concurrency = 16
		}
	}
	return o
}
