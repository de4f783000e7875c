package main

import (
	"strings"
	"testing"
)

// TestTargetsThatAreNot: a scheme that is no target here is told as what it is elsewhere: a target
// of the ackwise command, its source, a dedup store, or nothing at all.
func TestTargetsThatAreNot(t *testing.T) {
	const run = "`ackwise run` has"
	for text, c := range map[string]struct{ want, not string }{
		"kafka://h/t":            {"kafka:// is not in this binary; the targets are sqs://", ""},
		"kafka://h:9092/t":       {run + " kafka://", ""},
		"queue://d/t":            {run + " queue://", ""},
		"file:///x":              {run + " file://", ""},
		"dynamodb-streams://r/t": {"nothing can be written to it", run},
		"dynamodb://r/t":         {"dynamodb:// is not in this binary as a target: it names a dedup store", run},
		"postgres://h/d":         {"postgres:// is not in this binary: it names a dedup store", run},
		"redis://h/d":            {"redis:// is not in this binary: it names a dedup store", run},
		"nats://h/x":             {"nats:// is not in this binary, nor any system that Ackwise knows; the targets", run},
		"amqp://h/x":             {"amqp:// is not in this binary, nor any system that Ackwise knows", run},
		"sqss://eu-central-1/q":  {`did you mean "sqs://"?`, run},
		"kafkas://h/t":           {`did you mean "kafka://", which is not in it either?`, ""},
	} {
		_, err := readSink(text)
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			c.not != "" && strings.Contains(err.Error(), c.not) {
			t.Errorf("%s: %v, want %q", text, err, c.want)
		}
	}
}
