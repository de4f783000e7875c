package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
)

type lintCmd struct {
	File string `arg:"" help:"A YAML file of pipelines."`
	jsonFlag
}

// Help is printed under the usage.
func (c *lintCmd) Help() string {
	return "Reads a file of pipelines as run does, opens nothing, and says what is wrong or " +
		"missing, each with file and line. A pipeline whose pattern is empty does not say how its " +
		"effect bears a second delivery of a message: lint gives the advice of the page " +
		"docs/guides/choose-a-pattern.md, and what the pipeline's own settings say. Exit code 3 " +
		"where something was found, 0 where nothing was. --json prints a list of objects with " +
		"file, line, pipeline, check (file, pattern, dead, breaker or password), text, " +
		"advice (texts) and suggest (patterns)."
}

// lintFinding is one thing that lint found.
type lintFinding struct {
	File     string    `json:"file"`
	Line     int       `json:"line"`
	Pipeline string    `json:"pipeline,omitempty"`
	Check    string    `json:"check"` // file, pattern, dead (it expires), breaker or password
	Text     string    `json:"text"`
	Advice   []string  `json:"advice,omitempty"`
	Suggest  []pattern `json:"suggest,omitempty"` // the likeliest first
}

// Run lints a file.
func (c *lintCmd) Run(a *app) error {
	findings, err := lint(c.File)
	if err != nil {
		return err
	}
	if c.JSON {
		err = writeJSON(a.out, listed(findings))
	} else {
		err = writeLint(a, findings)
	}
	if err == nil && len(findings) > 0 {
		err = finding(fmt.Errorf("lint found %s in %s", count(len(findings), "place"), c.File))
	}
	return err
}

func lint(path string) ([]lintFinding, error) {
	var found []lintFinding
	cfg, err := loadConfig(path)
	if faulty, ok := errors.AsType[*configError](err); ok {
		for _, f := range faulty.faults {
			found = append(found, lintFinding{File: path, Line: f.line, Check: "file", Text: f.text})
		}
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range cfg.Pipelines {
		p := &cfg.Pipelines[i]
		if f, ok := p.lintDead(path); ok && !cfg.redrives(p.Dead) {
			found = append(found, f)
		}
		if f, ok := p.lintBreaker(path); ok {
			found = append(found, f)
		}
		if f, ok := p.lintPassword(path); ok {
			found = append(found, f)
		}
		if p.Pattern == "" {
			f := lintFinding{File: path, Line: p.line, Pipeline: p.Name, Check: "pattern",
				Text: fmt.Sprintf("the pipeline %q does not say how its effect bears a second "+
					"delivery: pattern is empty", p.Name)}
			f.Advice, f.Suggest = p.advice()
			found = append(found, f)
		}
	}
	return found, nil
}

// lintDead finds a place for dead letters that lets them go by itself.
func (p *pipelineConfig) lintDead(path string) (lintFinding, bool) {
	if p.dead == nil {
		return lintFinding{}, false
	}
	why, advice := "", "keep them in queue://, or in a queue of SQS with a redrive of this file"
	switch {
	case p.dead.is("sqs://"):
		why = "SQS, which deletes a message after the queue's retention, 14 days at the most, and " +
			"tells nobody"
		advice = "set the queue's retention to 14 days, watch the age of its oldest message, " +
			"and have ackwise redrive --once take them from there (a redrive of this file, with renew " +
			"for those that are not taken in time), or keep them in queue://"
	case p.dead.is("nakadi://"):
		why = "Nakadi, which deletes an event after its type's retention, 4 days at the most, and " +
			"tells nobody"
	case p.dead.is("sns://"):
		why = "SNS, which keeps nothing: where no queue has subscribed, or its filter does not match, " +
			"a dead letter is gone"
	default:
		return lintFinding{}, false
	}
	return lintFinding{File: path, Line: p.at("dead"), Pipeline: p.Name, Check: "dead",
		Text:   fmt.Sprintf("the pipeline %q keeps its dead letters in %s", p.Name, why),
		Advice: []string{advice}}, true
}

// lintBreaker finds a stream that loses what a breaker holds up, with a place that would keep it.
// Other sources keep what waits for days, or for ever.
func (p *pipelineConfig) lintBreaker(path string) (lintFinding, bool) {
	if p.dead == nil || !p.from.is("dynamodb-streams://") || p.has("breaker.off") ||
		p.MaxFailures == deliver.Unlimited {
		return lintFinding{}, false
	}
	return lintFinding{File: path, Line: p.at("from"), Pipeline: p.Name, Check: "breaker",
		Text: fmt.Sprintf("the pipeline %q reads a stream, which keeps a change for 24 hours, behind "+
			"a circuit breaker, which lets next to nothing become a dead letter in an outage of the "+
			"target: what waits longer is lost", p.Name),
		Advice: []string{"say breaker: {off: true}, so that an outage goes to dead: (a change then " +
			"comes back behind later ones of its item), or breaker: {off: false} where no outage " +
			"may last so long"},
	}, true
}

// redrives reports whether a redrive of the file takes letters from a place, whatever its options.
func (c *config) redrives(place string) bool {
	place, _, _ = strings.Cut(place, "?")
	return slices.ContainsFunc(c.Redrive, func(r redriveConfig) bool {
		from, _, _ := strings.Cut(r.From, "?")
		return from == place
	})
}

// choice is a line of the decision page.
type choice struct {
	pattern pattern
	effect  string
}

func choices() []choice {
	return []choice{
		{patternTransaction, "lives in the database that also takes the ack (counter, event-sourced)"},
		{patternWrite, "is a value that the message holds (cache, flag)"},
		{patternUpsert, "is the newest of many values, which may come in any order (cache)"},
		{patternCompare, "is what is missing of a wanted state that can be read (external API)"},
		{patternDedup, "is anything else (notification, counter, external API): repeats are kept away"},
		{patternNone, "may happen twice (logs, metrics)"},
	}
}

func writeLint(a *app, findings []lintFinding) error {
	patterns := false
	for _, f := range findings {
		if _, err := fmt.Fprintf(a.out, "%s:%d: %s\n", f.File, f.Line, printable(f.Text)); err != nil {
			return err
		}
		for _, line := range f.Advice {
			if _, err := fmt.Fprintln(a.out, "  "+printable(line)); err != nil {
				return err
			}
		}
		patterns = patterns || f.Check == "pattern"
	}
	switch {
	case len(findings) == 0:
		_, err := fmt.Fprintln(a.out, "nothing found")
		return err
	case !patterns:
		return nil
	}
	t := newTable("pattern", "where the effect")
	for _, c := range choices() {
		t.add(c.pattern, c.effect)
	}
	if _, err := fmt.Fprintln(a.out,
		"\nThe page docs/guides/choose-a-pattern.md says more:"); err != nil {
		return err
	}
	return t.write(a.out, "")
}

// advice says what the pipeline's own settings tell about its effect.
func (p *pipelineConfig) advice() (advice []string, suggest []pattern) {
	switch {
	case p.Guarantee == deliver.AtMostOnce:
		return []string{"guarantee: at-most-once handles no message twice (what fails is lost): " +
			"say pattern: none"}, []pattern{patternNone}
	case p.to != nil && p.to.is("queue://"):
		advice, suggest = p.adviceForTopic()
	case p.to != nil && p.to.remote != nil:
		advice = []string{fmt.Sprintf("to: %s gets a message again, under its ID, where its answer "+
			"was lost or this process ended before the ack: say pattern: none where those who read "+
			"there tell repeats by the ID, else dedup", p.To)}
		suggest = []pattern{patternNone, patternDedup}
	case p.to != nil:
		advice = []string{fmt.Sprintf("to: %s appends a line for each delivery, so a repeat is a "+
			"second line: say pattern: dedup, or none where that is right", p.To)}
		suggest = []pattern{patternDedup, patternNone}
	default:
		word := "exec"
		if p.Pipe != "" {
			word = "pipe"
		}
		advice = []string{fmt.Sprintf("%s: a handler that is killed between its effect and its ack "+
			"gets the message again: say which pattern it follows, or pattern: dedup to have "+
			"repeats kept away from it", word)}
		suggest = []pattern{patternDedup, patternWrite, patternUpsert, patternCompare,
			patternTransaction, patternNone}
	}
	if suggest[0] == patternDedup {
		advice = append(advice, p.adviceForDedup())
	}
	return advice, suggest
}

// adviceForTopic holds a topic's own dedup against the time for which messages may come again.
func (p *pipelineConfig) adviceForTopic() ([]string, []pattern) {
	window := p.Topic.DedupWindow
	switch window {
	case queue.NoDedup:
		return []string{fmt.Sprintf("to: %s keeps every repeat, as topic.dedup_window: none says: "+
				"say pattern: dedup, or give the topic a window", p.To)},
			[]pattern{patternDedup, patternNone}
	case 0:
		window = 5 * time.Minute // the engine's default
	}
	span, bounded := p.RetrySpan()
	if bounded && span <= window {
		return []string{fmt.Sprintf("to: %s keeps one message of an ID for %s, longer than the "+
			"pauses between this pipeline's attempts may take (%s): say pattern: none", p.To,
			window, span)}, []pattern{patternNone, patternDedup}
	}
	long := span.String()
	if !bounded {
		long = "for ever"
	}
	return []string{fmt.Sprintf("to: %s keeps one message of an ID for its window (topic."+
			"dedup_window, %s here), and this pipeline's attempts may go on longer (%s): give the topic "+
			"a longer window, or say pattern: dedup", p.To, window, long)},
		[]pattern{patternDedup, patternNone}
}

// adviceForDedup says what pattern dedup would need here.
func (p *pipelineConfig) adviceForDedup() string {
	text := "pattern: dedup would remember in the directory of from"
	if !p.from.is("queue://") {
		text = "pattern: dedup needs dedup.store here"
	}
	span, bounded := p.RetrySpan()
	if !bounded {
		return text + ", and dedup.again: this pipeline tries a message again for ever"
	}
	return text + fmt.Sprintf("; its window is to be longer than %s and than the age of the dead "+
		"letters that you redrive", span)
}
