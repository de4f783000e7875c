package main

import (
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/relay"
)

// redriveConfig is one redrive of a file: dead letters that go from where they are kept to where
// they are to be accepted.
type redriveConfig struct {
	// Name is the redrive's name in its summary and in logs, unique among them. Required.
	Name string
	// From is where dead letters are kept: a queue, topic or stream of another system that holds
	// them, such as sqs://REGION/QUEUE, or queue://DIR/TOPIC/SUBSCRIPTION, the dead letters of that
	// subscription. Required.
	From string
	// To is the sink that is to accept them. With From queue:// it may be left out: then they go
	// back to their own subscription.
	To string
	// Rate is how many letters are sent, at most, such as 10/s (also /m, /h). Default: no limit.
	Rate rate
	// Deadline is how long a run may take. What is not accepted by then stays where it is. At most
	// 11 h. Default: 10 min.
	Deadline time.Duration
	// Quiet is for how long another system has to bring nothing until it counts as empty.
	// Default: 5 s.
	Quiet time.Duration
	// Renew is how long before a queue of SQS deletes a letter by itself a run copies what it leaves
	// there: sent first, deleted after, so that it has the whole retention again. It has to be longer
	// than the time between two runs, and shorter than the retention. For From sqs://. Default: 0,
	// nothing is copied.
	Renew time.Duration
	// Backoff spaces the attempts of a letter, which go on until the deadline.
	Backoff deliver.Backoff
	// Transform is what changes in a letter on its way to To. Its headers as a dead letter are taken
	// away in any case, but for how often it was redriven.
	Transform relay.Transform
	// Create makes what To names where it is missing. Default: false, it is an error.
	Create bool

	own pipelineConfig // the same as a pipeline, for what opens endpoints
	spot
}

const (
	defaultDeadline = 10 * time.Minute
	maxDeadline     = 11 * time.Hour // SQS takes a letter back after 12 h
)

// checkRedrives finds what is wrong with the redrives of a file.
func (c *config) checkRedrives(d *configReader) {
	names := map[string]int{}
	for i := range c.Redrive {
		r := &c.Redrive[i]
		r.check(d)
		if first, twice := names[r.Name]; twice {
			d.fault(r.at("name"), "the name %q is taken by the redrive on line %d", r.Name, first)
		}
		names[r.Name] = r.at("name")
	}
}

func (c *redriveConfig) check(d *configReader) {
	if err := ackwise.ValidateName("name", c.Name); err != nil {
		d.fault(c.at("name"), "%v", err)
	}
	before := len(d.faults)
	if c.From == "" {
		d.fault(c.line, "the redrive has no from, where its dead letters are")
		return
	}
	p := &c.own
	*p = pipelineConfig{Name: c.Name, From: c.From, To: c.To, Create: c.Create,
		Transform: c.Transform, spot: c.spot}
	p.readEndpoints(d)
	if len(d.faults) > before {
		return
	}
	queued := p.from.is("queue://")
	switch {
	case !queued && p.from.remote == nil:
		d.fault(c.at("from"), "from: %s keeps no dead letters that can be taken one by one; it is "+
			"queue://DIR/TOPIC/SUBSCRIPTION or another system's", c.From)
	case c.To == "" && !queued:
		d.fault(c.line, "the redrive has no to, which only from: queue:// can do without")
	case c.To == "" && (c.has("transform") || c.has("create")):
		d.fault(c.line, "transform and create are for to; without it letters go back as they are")
	case p.to != nil && p.to.is("-"):
		d.fault(c.at("to"), "to: standard output keeps nothing, and takes the summary")
	case p.to != nil && samePlace(p.from, *p.to, c.Transform.Topic):
		d.fault(c.at("to"), "to: it is where the letters come from")
	case queued && c.has("quiet"):
		d.fault(c.at("quiet"), "quiet has no effect: from says itself when it is empty")
	case c.has("renew") && !p.from.is("sqs://"):
		d.fault(c.at("renew"), "renew has no effect: from is not sqs://")
	case c.Deadline > maxDeadline:
		d.fault(c.at("deadline"), "deadline: it is at most %s", maxDeadline)
	}
	faultsIn(d, &c.spot, "transform.", c.Transform.Validate())
	if len(d.faults) == before {
		p.Options = c.loop()
		p.checkLoop(d)
	}
}

// loop are the options of a redrive's loop: a letter is tried until the deadline, in this process,
// and is never dead again.
func (c *redriveConfig) loop() deliver.Options {
	return deliver.Options{Pipeline: c.Name, Concurrency: 1, MaxInFlight: 256, BatchSize: 25,
		Backoff: c.Backoff, NoDeadLetters: true, StopGrace: 10 * time.Second,
		MaxHandle: max(time.Hour, c.deadline()+time.Hour)}
}

func (c *redriveConfig) deadline() time.Duration {
	if c.Deadline == 0 {
		return defaultDeadline
	}
	return c.Deadline
}

// toDir is the directory that letters go to, "" = none.
func (p *pipelineConfig) toDir() string {
	if p.to == nil {
		return ""
	}
	return p.to.dir
}

// target is where letters go, for people.
func (c *redriveConfig) target() string {
	if c.To == "" {
		return c.From
	}
	return c.To
}

// describe says what would run.
func (c *redriveConfig) describe() string {
	return fmt.Sprintf("%s: dead letters of %s -> %s (at %s, until accepted or for %s)", c.Name,
		c.From, printable(c.target()), c.Rate, c.deadline())
}
