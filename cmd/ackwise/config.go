package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/relay"
)

// config is a file of pipelines.
type config struct {
	// Pipelines run side by side, with ackwise run.
	Pipelines []pipelineConfig
	// Redrive is what ackwise redrive --once brings back, side by side.
	Redrive []redriveConfig
}

// pipelineConfig is one pipeline of a file. Its words are the fields' names, in small letters with
// underscores; those of deliver.Options stand beside its own.
type pipelineConfig struct {
	// Name is the pipeline's name in logs and errors, unique in the file. Required.
	Name string
	// From is the endpoint that messages come from: one of the table above. Required.
	From string
	// To is the endpoint that messages go to: one of the table above. One of To, Exec and Pipe is
	// required.
	To string
	// Exec is a command that sh -c runs once for each message: the body on standard input, the
	// rest in ACKWISE_… variables; exit code 0 is done.
	Exec string
	// Pipe is a command that sh -c keeps running: it gets one line of JSON a delivery and answers
	// one line each.
	Pipe string
	// Dead is the endpoint that dead letters go to where From keeps none itself: file://PATH, one
	// line of JSON each, or any sink of the table above but standard output. Such a source needs
	// Dead or NoDeadLetters.
	Dead string
	// Pattern says how the effect bears a second delivery of its message. With dedup it need not:
	// the handler or sink gets a message once, within the window. The other words say what the
	// handler does itself, and change nothing here: write (it sets a value), upsert (the newest
	// value wins), compare (it writes what is missing), transaction (effect and a mark of the
	// message in one), none (it may happen twice). Default: nothing is said.
	Pattern pattern
	// Dedup configures Pattern dedup.
	Dedup dedupConfig
	// Create makes the directories, topics and subscriptions of queue:// endpoints, what other
	// systems' endpoints name, and the table of a dynamodb:// store, where they are missing, and
	// leaves existing ones alone. Default: false, a missing one is an error.
	Create bool
	// Lines says how lines are read. Only with From file:// and -.
	Lines file.SourceOptions
	// Output says how lines are written. Only with To file:// and -.
	Output file.SinkOptions
	// Topic configures the topic of To that Create makes.
	Topic queue.TopicOptions
	// Subscription configures the subscription of From that Create makes.
	Subscription queue.SubscriptionOptions
	// Receiver configures the consumer's session on From queue://.
	Receiver queue.ReceiverOptions
	// Transform is what changes in a message on its way to To.
	Transform relay.Transform

	deliver.Options

	from     endpoint
	to, dead *endpoint // nil = not set
	store    storeURL  // of pattern dedup

	spot
}

// spot is where a thing of a list stands in its file.
type spot struct {
	line  int            // where it begins
	lines map[string]int // where each word stands, such as "backoff.cap"
}

func (s *spot) place(line int) map[string]int {
	s.line, s.lines = line, map[string]int{}
	return s.lines
}

// at is the line of a word, or of what it stands in.
func (s *spot) at(word string) int {
	for {
		if line, ok := s.lines[word]; ok {
			return line
		}
		i := strings.LastIndexByte(word, '.')
		if i < 0 {
			return s.line
		}
		word = word[:i]
	}
}

func (s *spot) has(word string) bool {
	_, ok := s.lines[word]
	return ok
}

// unreachable are the fields that make no sense in a file, by type.
func unreachable() map[reflect.Type][]string {
	return map[reflect.Type][]string{
		reflect.TypeFor[deliver.Options](): {"Pipeline", "Rand", "DeadLetters", "Margin", "Logger",
			"Observe"},
		reflect.TypeFor[file.SourceOptions]():    {"Once", "Topic", "Pipeline", "Bad", "Report"},
		reflect.TypeFor[queue.ReceiverOptions](): {"MaxInFlight", "Session", "Foreign", "Process"},
		reflect.TypeFor[relay.Transform]():       {"HeaderPrefix"},
	}
}

// field is a field of an options struct that a file can set.
type field struct {
	word  string
	index []int
	typ   reflect.Type
}

// fieldsOf returns what a file can set of a struct, in the order of its declaration.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case !f.IsExported() || slices.Contains(unreachable()[t], f.Name):
		case f.Anonymous:
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
		default:
			out = append(out, field{word: wordFor(f.Name), index: []int{i}, typ: f.Type})
		}
	}
	return out
}

// wordFor is the word of a Go field: MaxDedupIDs is max_dedup_ids.
func wordFor(name string) string {
	name = strings.ReplaceAll(name, "IDs", "Ids")
	isUpper := func(i int) bool { return 'A' <= name[i] && name[i] <= 'Z' }
	var b strings.Builder
	for i := range len(name) {
		begins := i > 0 && isUpper(i) &&
			(!isUpper(i-1) || i+1 < len(name) && !isUpper(i+1))
		if begins {
			b.WriteByte('_')
		}
		b.WriteByte(name[i])
	}
	return strings.ToLower(b.String())
}

// special are the types that are written as words, or have words beside their numbers.
type special struct {
	expected string // what is written, as in "expected …"
	parse    func(text string) (any, error)
}

// wordsOf makes a special of a closed list of words.
func wordsOf[T fmt.Stringer](values ...T) special {
	words := map[string]any{}
	for _, v := range values {
		words[v.String()] = v
	}
	list := slices.Sorted(maps.Keys(words))
	return special{expected: strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1],
		parse: func(text string) (any, error) {
			if v, ok := words[text]; ok {
				return v, nil
			}
			return nil, find("word", text, list)
		}}
}

func specials() map[reflect.Type]special {
	return map[reflect.Type]special{
		reflect.TypeFor[time.Duration](): {`a duration such as "5s"`,
			func(text string) (any, error) { return parseDuration(text) }},
		reflect.TypeFor[queue.Start](): {"beginning, now or a time such as 2026-01-31T12:00:00Z",
			func(text string) (any, error) {
				var s start
				err := s.UnmarshalText([]byte(text))
				return s.Start, err
			}},
		reflect.TypeFor[deliver.Guarantee](): wordsOf(deliver.AtLeastOnce, deliver.AtMostOnce,
			deliver.ExactlyOnce),
		reflect.TypeFor[pattern]():      wordsOf(patterns()...),
		reflect.TypeFor[dedupBy]():      wordsOf(byID, byBody),
		reflect.TypeFor[dedupSum]():     wordsOf(sumBody, sumNone),
		reflect.TypeFor[queue.OnDead](): wordsOf(queue.Skip, queue.Hold),
		reflect.TypeFor[rate](): {"a rate such as 10/s", func(text string) (any, error) {
			var r rate
			err := r.UnmarshalText([]byte(text))
			return r, err
		}},
		reflect.TypeFor[relay.CloudEvents](): wordsOf(relay.Binary, relay.Structured),
		reflect.TypeFor[file.Format]():       wordsOf(file.Body, file.JSON),
		reflect.TypeFor[file.OnBad]():        wordsOf(file.StopAtBad, file.SkipBad),
		reflect.TypeFor[file.OnChange]():     wordsOf(file.StopAtChange, file.RestartAtChange),
	}
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, errors.New("it is none")
	case d <= 0:
		return 0, errors.New("it is not above 0; leave it out for the default")
	}
	return d, nil
}

// wordValues are words that stand for a constant of one field.
func wordValues(path string) map[string]int64 {
	switch path {
	case "max_failures", "max_crashes", "max_hand_outs":
		return map[string]int64{"unlimited": math.MaxInt}
	case "revoke_grace", "stop_grace", "cancel_grace":
		return map[string]int64{"none": int64(deliver.NoGrace)}
	case "topic.dedup_window":
		return map[string]int64{"none": int64(queue.NoDedup)}
	}
	return nil
}
