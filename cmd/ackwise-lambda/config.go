package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/nearest"
	"github.com/ackwise/ackwise/relay"
)

// config is what the environment says.
type config struct {
	to        openSink
	dead      openLetters
	dedup     openStore
	window    time.Duration
	lease     time.Duration
	whole     bool
	level     slog.Level
	deliver   deliver.Options
	transform relay.Transform
}

// variable is one variable of the environment.
type variable struct {
	name, unset, help string
	set               func(c *config, value string) error
}

const prefix = "ACKWISE_"

// variables are all that there are, in the order of the help.
func variables() []variable {
	return append(append(endpointVariables(), loopVariables()...), transformVariables()...)
}

func endpointVariables() []variable {
	return []variable{
		{"TO", "", "where messages go: sqs://, sns://, nakadi:// or https://. Required",
			func(c *config, v string) (err error) { c.to, err = readSink(v); return err }},
		{"DEAD", "", "where dead letters go, such as sqs://REGION/QUEUE. Without it what would become " +
			"one is answered as failed, and comes again",
			func(c *config, v string) (err error) { c.dead, err = readLetters(v); return err }},
		{"DEDUP", "", storeForm + ": remembers what was done. Without it what comes again is sent again",
			func(c *config, v string) (err error) { c.dedup, err = readStore(v); return err }},
		{"DEDUP_WINDOW", "24h", "how long the dedup store remembers, at least as long as a message may " +
			"come again", func(c *config, v string) error { return duration(&c.window, v, time.Minute) }},
		{"DEDUP_LEASE", "10s", "how long what a process that died had in hand is held up by its claims",
			func(c *config, v string) error { return duration(&c.lease, v, time.Second) }},
		{"ANSWER", "partial", "partial: the failed messages are named, for a mapping with " +
			"ReportBatchItemFailures; whole: an error where any failed, for one without",
			func(c *config, v string) error {
				c.whole = v == "whole"
				return word(v, "partial", "whole")
			}},
	}
}

func loopVariables() []variable {
	return []variable{
		{"PIPELINE", "", "the name in logs and on dead letters. Default: the function's",
			func(c *config, v string) error { c.deliver.Pipeline = v; return nil }},
		{"MAX_FAILURES", "5", "failures of a message before it is dead, or unlimited",
			func(c *config, v string) error { return budget(&c.deliver.MaxFailures, v) }},
		{"MAX_HANDOUTS", "30", "hand-outs of a queue's message before it is dead, or unlimited",
			func(c *config, v string) error { return budget(&c.deliver.MaxHandOuts, v) }},
		{"BACKOFF_FIRST", "200ms", "the longest pause before the second attempt; it doubles with each",
			func(c *config, v string) error {
				return duration(&c.deliver.Backoff.First, v, time.Millisecond)
			}},
		{"BACKOFF_CAP", "10s", "the longest pause", func(c *config, v string) error {
			return duration(&c.deliver.Backoff.Cap, v, time.Millisecond)
		}},
		{"BREAKER", "on", "on, or off: no circuit breaker, so that in an outage of the target messages " +
			"become dead letters as fast as ACKWISE_MAX_FAILURES and the pauses say",
			func(c *config, v string) error {
				c.deliver.Breaker.Off = v == "off"
				return word(v, "on", "off")
			}},
		{"MARGIN", "", "how long before the deadline work stops, so that the answer is heard. Default: " +
			"2s, or a quarter of the time left where that is less; twice that for SNS",
			func(c *config, v string) error { return duration(&c.deliver.Margin, v, time.Millisecond) }},
		{"CONCURRENCY", "1", "batches that are sent at once, each of other keys",
			func(c *config, v string) error { return number(&c.deliver.Concurrency, v, 1000) }},
		{"BATCH_SIZE", "100", "the most messages of one batch",
			func(c *config, v string) error { return number(&c.deliver.BatchSize, v, 10_000) }},
		{"LOG", "warn", "debug, info, warn or error: what is logged, as lines of JSON",
			func(c *config, v string) error {
				if err := word(v, "debug", "info", "warn", "error"); err != nil {
					return err
				}
				return c.level.UnmarshalText([]byte(v))
			}},
	}
}

func transformVariables() []variable {
	text := func(name, help string, field func(t *relay.Transform) *string) variable {
		return variable{"TRANSFORM_" + name, "", help, func(c *config, v string) error {
			*field(&c.transform) = v
			return nil
		}}
	}
	return []variable{
		text("TOPIC", "the topic, where ACKWISE_TO names none",
			func(t *relay.Transform) *string { return &t.Topic }),
		text("KEY_HEADER", "the header whose value becomes the key",
			func(t *relay.Transform) *string { return &t.KeyHeader }),
		text("KEY_FIELD", "the field of a JSON body whose value becomes the key, such as customer.id",
			func(t *relay.Transform) *string { return &t.KeyField }),
		{"TRANSFORM_SET_HEADERS", "", "NAME=VALUE,…: headers that every message gets",
			func(c *config, v string) error { return headers(&c.transform, v) }},
		{"TRANSFORM_REMOVE_HEADERS", "", "NAME,…: headers that go no further; * ends one for many",
			func(c *config, v string) error {
				c.transform.RemoveHeaders = strings.Split(v, ",")
				return nil
			}},
		{"TRANSFORM_CLOUD_EVENTS", "", "binary or structured: the envelope of CloudEvents",
			func(c *config, v string) error {
				c.transform.CloudEvents = map[string]relay.CloudEvents{"binary": relay.Binary,
					"structured": relay.Structured}[v]
				return word(v, "binary", "structured")
			}},
		text("EVENT_SOURCE", "the attribute source of CloudEvents, such as /orders",
			func(t *relay.Transform) *string { return &t.EventSource }),
		text("EVENT_TYPE", "the attribute type of CloudEvents, such as com.example.order.changed",
			func(t *relay.Transform) *string { return &t.EventType }),
		text("CONTENT_TYPE", "the attribute datacontenttype of CloudEvents",
			func(t *relay.Transform) *string { return &t.ContentType }),
	}
}

// readConfig reads the environment, and returns all that is wrong with it.
func readConfig(environ []string) (*config, error) {
	given, function := map[string]string{}, ""
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if rest, ours := strings.CutPrefix(name, prefix); ours && value != "" {
			given[rest] = value
		}
		if name == "AWS_LAMBDA_FUNCTION_NAME" {
			function = value
		}
	}
	c := &config{deliver: deliver.Options{Pipeline: function}}
	var faults []error
	if given["TO"] == "" {
		faults = append(faults, errors.New("ACKWISE_TO is not set: it says where messages go"))
	}
	var names []string
	for _, v := range variables() {
		value := given[v.name]
		delete(given, v.name)
		names = append(names, prefix+v.name)
		if value == "" {
			value = v.unset
		}
		if value == "" {
			continue
		}
		if err := v.set(c, value); err != nil {
			faults = append(faults, fmt.Errorf("%s%s: %w", prefix, v.name, err))
		}
	}
	for name := range given {
		faults = append(faults, unknown(prefix+name, names))
	}
	return c, errors.Join(append(faults, c.check()...)...)
}

// check finds what is wrong between variables.
func (c *config) check() (faults []error) {
	if err := c.transform.Validate(); err != nil {
		faults = append(faults, fmt.Errorf("ACKWISE_TRANSFORM_…: %w", err))
	}
	if c.transform.KeyField+c.transform.KeyHeader != "" && c.deliver.Concurrency > 1 {
		faults = append(faults, errors.New("ACKWISE_CONCURRENCY: with a new key "+
			"(ACKWISE_TRANSFORM_KEY_…) it is 1, else the order of the new keys is lost"))
	}
	if c.deliver.Backoff.Cap < c.deliver.Backoff.First {
		faults = append(faults, fmt.Errorf(
			"ACKWISE_BACKOFF_CAP: %s is less than ACKWISE_BACKOFF_FIRST, %s",
			c.deliver.Backoff.Cap, c.deliver.Backoff.First))
	}
	return faults
}

func unknown(name string, names []string) error {
	if near := nearest.Of(name, names); near != "" {
		return fmt.Errorf("there is no variable %.60s; did you mean %s?", name, near)
	}
	return fmt.Errorf("there is no variable %.60s; --help lists them", name)
}

func duration(d *time.Duration, text string, least time.Duration) error {
	v, err := time.ParseDuration(text)
	if err != nil || v < least {
		return fmt.Errorf("%.40q is not a duration of at least %s, such as 30s", text, least)
	}
	*d = v
	return nil
}

func number(n *int, text string, most int) error {
	v, err := strconv.Atoi(text)
	if err != nil || v < 1 || v > most {
		return fmt.Errorf("%.40q is not a whole number from 1 to %d", text, most)
	}
	*n = v
	return nil
}

func budget(n *int, text string) error {
	if text == "unlimited" {
		*n = deliver.Unlimited
		return nil
	}
	if number(n, text, 1_000_000) != nil {
		return fmt.Errorf("%.40q is neither a whole number from 1 nor unlimited", text)
	}
	return nil
}

func word(text string, words ...string) error {
	if slices.Contains(words, text) {
		return nil
	}
	if near := nearest.Of(text, words); near != "" {
		return fmt.Errorf("%.40q: did you mean %q?", text, near)
	}
	return fmt.Errorf("%.40q is not one of %s", text, strings.Join(words, ", "))
}

func headers(t *relay.Transform, text string) error {
	t.SetHeaders = map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return &ackwise.InvalidError{Field: "header", Value: pair, Reason: "it is not NAME=VALUE"}
		}
		t.SetHeaders[name] = value
	}
	return nil
}

// help lists the variables.
func help() string {
	var b strings.Builder
	b.WriteString("ackwise-lambda relays what SQS, DynamoDB Streams and SNS bring to AWS Lambda.\n\n" +
		"  bootstrap           in AWS Lambda: handles events\n" +
		"  bootstrap --check   reads the variables: 0 = they are right, 3 = it says what is wrong\n" +
		"  bootstrap --help    this text\n\nVariables:")
	for _, v := range variables() {
		fmt.Fprintf(&b, "\n  %s%s\n      %s", prefix, v.name, v.help)
		if v.unset != "" {
			fmt.Fprintf(&b, ". Default: %s", v.unset)
		}
	}
	return b.String()
}
