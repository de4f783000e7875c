package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/adapters/aws/sqs"
	"github.com/ackwise/ackwise/adapters/nakadi"
	"github.com/ackwise/ackwise/adapters/webhook"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/endpoint"
	"github.com/ackwise/ackwise/internal/nearest"
)

// openSink opens the sink of an address that was read.
type openSink func(ctx context.Context) (ackwise.Sink, error)

// openLetters opens the sink of an address that was read as a store of dead letters. log is told
// what a person should know of it.
type openLetters func(ctx context.Context, log *slog.Logger) (ackwise.Sink, error)

// openStore opens the dedup store of an address that was read.
type openStore func(ctx context.Context, window time.Duration) (idempotency.Store, error)

// scheme is one kind of target.
type scheme struct {
	name, form string
	read       func(text string) (openSink, error)
}

// readLetters reads the address of a store of dead letters.
func readLetters(text string) (openLetters, error) {
	if !strings.HasPrefix(text, "sqs://") {
		open, err := readSink(text)
		return func(ctx context.Context, _ *slog.Logger) (ackwise.Sink, error) { return open(ctx) }, err
	}
	o, err := sqs.ParseSink(text)
	o.DeadLetters = true
	return func(ctx context.Context, log *slog.Logger) (ackwise.Sink, error) {
		o.Logger = log
		return sqs.OpenSink(ctx, o)
	}, err
}

// schemes are the targets that are in this binary.
func schemes() []scheme {
	hook := reader(webhook.ParseSink, webhook.OpenSink)
	return []scheme{
		{"sqs", "sqs://REGION/QUEUE", reader(sqs.ParseSink, sqs.OpenSink)},
		{"sns", "sns://REGION/TOPIC", reader(sns.ParseSink, sns.OpenSink)},
		{"nakadi", "nakadi://HOST/EVENT-TYPE?token=env:NAME", reader(nakadi.ParseSink, nakadi.OpenSink)},
		{"https", "https://HOST/PATH?secret=env:NAME", hook},
		{"http", "", hook}, // a loopback address only; others are refused when they are read
	}
}

// elsewhere says of the ackwise command's schemes that are no targets here what they are: the rest
// of a text about a scheme ([1]) and the targets ([2]).
func elsewhere() map[string]string {
	run := "; the targets are %[2]s. The command `ackwise run` has %[1]s://"
	store := ": it names a dedup store of `ackwise`, not a target; the targets are %[2]s"
	return map[string]string{"kafka": run, "queue": run, "file": run, "postgres": store, "redis": store,
		"dynamodb":         " as a target: it names a dedup store (ACKWISE_DEDUP); the targets are %[2]s",
		"dynamodb-streams": " as a target: nothing can be written to it; the targets are %[2]s"}
}

func reader[O any](parse func(string) (O, error),
	open func(context.Context, O) (ackwise.Sink, error)) func(string) (openSink, error) {
	return func(text string) (openSink, error) {
		o, err := parse(text)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) (ackwise.Sink, error) { return open(ctx, o) }, nil
	}
}

// readSink reads the address of a target.
func readSink(text string) (openSink, error) {
	var names, forms []string
	word, _, ok := strings.Cut(text, "://")
	for _, s := range schemes() {
		if ok && word == s.name {
			return s.read(text)
		}
		names = append(names, s.name)
		if s.form != "" {
			forms = append(forms, s.form)
		}
	}
	list := strings.Join(forms, ", ")
	if !ok || len(word) > 40 { // what is no address may be a secret
		return nil, fmt.Errorf("it is not an address; the targets are %s", list)
	}
	others := elsewhere()
	if what, ok := others[word]; ok {
		return nil, fmt.Errorf("%[1]s:// is not in this binary"+what, word, list)
	}
	said := word + ":// is not in this binary, nor any system that Ackwise knows"
	if near := nearest.Of(word, names); near != "" {
		return nil, fmt.Errorf("%s; did you mean %q? The targets are %s", said, near+"://", list)
	}
	if near := nearest.Of(word, slices.Sorted(maps.Keys(others))); near != "" {
		return nil, fmt.Errorf("%s; did you mean %q, which is not in it either? The targets are %s",
			said, near+"://", list)
	}
	return nil, fmt.Errorf("%s; the targets are %s", said, list)
}

const storeForm = "dynamodb://REGION/TABLE?name=NAME&endpoint=…"

// readStore reads the address of a dedup store.
func readStore(text string) (openStore, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w; it is %s", err, storeForm)
	}
	name, at := e.Text("name", ""), e.Text("endpoint", "")
	if e.Scheme != "dynamodb" {
		return nil, fmt.Errorf("%.40s:// is not in this binary; the dedup store is %s", e.Scheme, storeForm)
	}
	if e.Host == "" || len(e.Path) != 1 {
		e.Fault("it names no region, or not one table")
	}
	if err := ackwise.ValidateName("name", name); err != nil {
		e.Fault("%w", err)
	}
	if err := e.Done(storeForm); err != nil {
		return nil, err
	}
	return func(ctx context.Context, window time.Duration) (idempotency.Store, error) {
		store, err := ddbstore.OpenRegion(ctx, ddbstore.Region{Name: e.Host, Endpoint: at},
			ddbstore.Options{Table: e.Path[0], Name: name, Window: window})
		if err != nil { // not the nil store in an interface
			return nil, err
		}
		return store, nil
	}, nil
}
