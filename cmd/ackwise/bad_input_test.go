package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/relay"
)

// badAddress is a file that names another system wrongly, and what is said of it.
type badAddress struct {
	name string
	more []string
	line int
	part string
}

func badAddresses() []badAddress {
	const hook = "to: https://example.com/hook"
	return []badAddress{
		{"a scheme", []string{"from: kafak://h/t?group=g", hook}, 3, `did you mean "kafka://"?`},
		{"a source's option", []string{"from: kafka://h/t?gruop=g", hook}, 3,
			`did you mean "group"?`},
		{"a sink's option", []string{`from: "-"`, "to: kafka://h/t?ack=all"}, 4, `no option "ack"`},
		{"of sqs", []string{"from: sqs://eu-central-1/q?laese=5s", hook}, 3, `did you mean "lease"?`},
		{"of sns", []string{`from: "-"`, "to: sns://eu-central-1/t?endpiont=http://h"}, 4,
			`did you mean "endpoint"?`},
		{"of dynamodb-streams", []string{"from: dynamodb-streams://eu-central-1/t?gruop=g", hook}, 3,
			`did you mean "group"?`},
		{"of nakadi", []string{"from: nakadi://h?subscripton=s", hook}, 3,
			`did you mean "subscription"?`},
		{"of https", []string{`from: "-"`, "to: https://example.com/?secert=env:A"}, 4,
			`did you mean "secret"?`},
		{"of the dead letters", []string{`from: "-"`, hook, "dead: sqs://eu-central-1/q?crate=true"},
			5, `did you mean "create"?`},
		{"no queue", []string{"from: sqs://eu-central-1", hook}, 3, "queue"},
		{"no region", []string{"from: sqs://nowhere/q", hook}, 3, "region"},
		{"no source", []string{"from: sns://eu-central-1/t", hook}, 3, "no source"},
		{"no sink", []string{`from: "-"`, "to: dynamodb-streams://eu-central-1/t?group=g"}, 4,
			"no sink"},
		{"not encrypted", []string{`from: "-"`, "to: http://example.com/"}, 4, "allow_http"},
		{"a secret in an option", []string{"from: kafka://h/t?group=g&password=canary-1", hook}, 3,
			"env:NAME or file:PATH"},
		{"a secret before the host", []string{`from: "-"`, "to: https://me:canary-1@example.com/"}, 4,
			"before the host"},
		{"a secret behind an unknown scheme", []string{"from: amqp://me:canary-1@h/q", hook}, 3,
			"unknown endpoint"},
		{"exactly-once", []string{"from: kafka://h/t?group=g", "to: kafka://h/u",
			"guarantee: exactly-once"}, 5, "use at-least-once with a handler that applies"},
		{"the queue's own dead letters", []string{"from: queue://d/t/s", hook, "dead: sqs://eu-central-1/q"},
			5, "keeps the dead letters"},
		{"nothing to create", []string{`from: "-"`, hook, "create: true"}, 5, "nothing here can be made"},
		{"an envelope without a source", []string{`from: "-"`, hook,
			"transform: {cloud_events: binary, event_type: t}"}, 5, "transform.event_source"},
		{"an unknown envelope", []string{`from: "-"`, hook, "transform: {cloud_events: binery}"}, 5,
			`did you mean "binary"?`},
		{"a new key and several calls", []string{`from: "-"`, hook, "concurrency: 2",
			"transform: {key_field: id}"}, 5, "with a new key"},
		{"a transform of a process", []string{`from: "-"`, "exec: cat",
			"transform: {topic: t}"}, 5, "transform has no effect"},
		{"a topic that to names", []string{`from: "-"`, "to: queue://d/t", "transform: {topic: u}"},
			5, "to names the topic"},
		{"back to where it came from", []string{"from: sqs://eu-central-1/q",
			"to: sqs://eu-central-1/q?create=true"}, 4, "to: it is what from reads"},
		{"dead letters back to where they came from", []string{
			"from: kafka://h/a?group=g", hook, "dead: kafka://h/a"}, 5, "dead: it is what from reads"},
		{"back to its event type", []string{"from: nakadi://h?event_types=a,b&application=x",
			"to: nakadi://h/b"}, 4, "to: it is what from reads"},
		{"each to its own event type", []string{"from: nakadi://h?event_types=a&application=x",
			"to: nakadi://h"}, 4, "to: it is what from reads"},
		{"each to its own topic", []string{"from: kafka://h/a,b?group=g", "to: kafka://h"}, 4,
			"to: it is what from reads"},
		{"to a topic that is read", []string{"from: kafka://h/a,b?group=g", "to: kafka://h",
			"transform: {topic: b}"}, 4, "to: it is what from reads"},
		{"dead letters without an event type", []string{"from: nakadi://h?subscription=x", hook,
			"dead: nakadi://h"}, 5, "dead: it names no topic"},
		{"linger of a process", []string{`from: "-"`, "exec: cat", "linger: 1s"}, 5, "linger has no effect"},
	}
}

// TestBadAddresses tries what can be wrong with a file that names other systems: lint and run
// refuse it alike, with the line, before anything is opened.
func TestBadAddresses(t *testing.T) {
	for _, c := range badAddresses() {
		t.Run(c.name, func(t *testing.T) {
			more := append(c.more, "pattern: none")
			if !strings.Contains(strings.Join(more, " "), "dead: ") {
				more = append(more, "no_dead_letters: true")
			}
			path := writeFile(t, "f.yaml", pipelineOf(more...))
			found, err := lint(path)
			if err != nil || !slices.ContainsFunc(found, func(f lintFinding) bool {
				return f.Line == c.line && strings.Contains(f.Text, c.part)
			}) {
				t.Errorf("lint: %+v, %v, want line %d %q", found, err, c.line, c.part)
			}
			got := run(t, "", "run", path)
			got.want(t, 1, c.part, fmt.Sprintf("%s:%d:", path, c.line))
			if text := fmt.Sprint(got, found); strings.Contains(text, "canary-1") {
				t.Errorf("a secret is shown:\n%s", text)
			}
		})
	}
}

func TestBadRedrives(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"renewed elsewhere", "{name: a, from: \"kafka://h/t?group=g\", to: \"https://h/\", renew: 1h}",
			"f:2: renew has no effect: from is not sqs://"},
		{"nothing of it", "{}", "f:2: invalid name: the name is empty\n" +
			"f:2: the redrive has no from, where its dead letters are"},
		{"a file", "{name: a, from: file://x, to: file://y}", "f:2: from: file://x keeps no dead " +
			"letters that can be taken one by one; it is queue://DIR/TOPIC/SUBSCRIPTION or another " +
			"system's"},
		{"no target", "{name: a, from: \"sqs://eu-central-1/q\"}",
			"f:2: the redrive has no to, which only from: queue:// can do without"},
		{"back, and changed", "{name: a, from: queue://d/t/s, transform: {topic: x}}",
			"f:2: transform and create are for to; without it letters go back as they are"},
		{"onto itself", "{name: a, from: sqs://eu-central-1/q, to: sqs://eu-central-1/q}",
			"f:2: to: it is where the letters come from"},
		{"standard output", "{name: a, from: queue://d/t/s, to: \"-\"}",
			"f:2: to: standard output keeps nothing, and takes the summary"},
		{"quiet", "{name: a, from: queue://d/t/s, quiet: 1s}",
			"f:2: quiet has no effect: from says itself when it is empty"},
		{"too long", "{name: a, from: queue://d/t/s, deadline: 12h}",
			"f:2: deadline: it is at most 11h0m0s"},
		{"rate", "{name: a, from: queue://d/t/s, rate: fast}",
			"f:2: rate: expected a rate such as 10/s, found the text \"fast\""},
		{"backoff", "{name: a, from: queue://d/t/s, backoff: {first: 9s, cap: 1s}}",
			"f:2: backoff.cap: 1s: it is less than First (9s)"},
		{"a word", "{name: a, form: queue://d/t/s}",
			"f:2: unknown word \"form\" in a redrive; did you mean \"from\"?"},
		{"an address", "{name: a, from: sqs://eu-central-1/q?laese=1s, to: file://x}",
			"f:2: from: read the address of a queue: there is no option \"laese\"; did you mean " +
				"\"lease\"?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig("f", []byte("redrive:\n  - "+c.text+"\n"))
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
	_, err := parseConfig("f", []byte("redrive:\n  - {name: a, from: queue://d/t/s}\n"+
		"  - {name: a, from: queue://d/t/u}\n"))
	if err == nil || err.Error() != "f:3: the name \"a\" is taken by the redrive on line 2" {
		t.Errorf("got %v", err)
	}
}

// TestMissingThings runs pipelines whose systems lack something: each is named, and nothing made.
func TestMissingThings(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "there"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	at := broker.ListenAddrs()[0]
	home := t.TempDir()
	for _, c := range []struct {
		name, to string
		parts    []string
	}{
		{"topic", "kafka://" + at + "/ther", []string{"ther"}},
		{"broker", "kafka://127.0.0.1:1/there", []string{"127.0.0.1:1"}},
		{"TLS", "kafka://" + at + "/there?tls=true&dial-timeout=1s", []string{at, "TLS", "hint:"}},
		{"credentials", "sqs://eu-central-1/q?endpoint=http://127.0.0.1:1",
			[]string{"AWS_ACCESS_KEY_ID"}},
		{"a secret", "https://example.com/?secret=env:ACKWISE_TEST_NONE", []string{"ACKWISE_TEST_NONE"}},
		{"a directory", "queue://" + home + "/none/t", []string{home}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, "f.yaml", pipelineOf(`from: "-"`, "to: "+c.to,
				"no_dead_letters: true"))
			cmd := command(t, "run", "--until-empty", path)
			cmd.Stdin = strings.NewReader("one\n")
			cmd.Env = append(slices.DeleteFunc(cmd.Env, func(s string) bool {
				return strings.HasPrefix(s, "AWS_")
			}), "HOME="+home, "AWS_EC2_METADATA_DISABLED=true")
			finish(t, cmd).want(t, 1, append(c.parts, `pipeline "p"`)...)
		})
	}
	path := writeFile(t, "f.yaml", pipelineOf(`from: "-"`, "to: kafka://"+at+"/ther",
		"no_dead_letters: true", "create: true"))
	if r := run(t, "one\n", "run", "--until-empty", path); r.code != 0 {
		t.Errorf("with create: true it is made: exit code %d\n%s", r.code, r.err)
	}
}

// TestPoisonBecomesADeadLetter relays what its target will never take: each becomes one dead
// letter, with the reason and its whole body.
func TestPoisonBecomesADeadLetter(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	receiver := newTarget(t, func(string, int) int { return http.StatusUnprocessableEntity })
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()
	big := strings.Repeat("x", 1<<20-100)
	for _, c := range []struct {
		name, to, line, part string
		more                 []string
	}{
		{"too large", "kafka://" + broker.ListenAddrs()[0] + "/t", `{"id":"1","body":"` + big + `"}`,
			"max.message.bytes", nil},
		{"a header that HTTP cannot carry", receiver.URL + "?headers=h",
			`{"id":"1","headers":[{"name":"h","value":"a\nb"}],"body":"b"}`, `"h"`, nil},
		{"what the receiver refuses", receiver.URL, `{"id":"1","body":"b"}`, "422", nil},
		{"no key where one is to be", receiver.URL, `{"id":"1","body":"{}"}`, "no field customer",
			[]string{"transform: {key_field: customer}"}},
		{"TLS", tls.URL, `{"id":"1","body":"b"}`, "certificate", []string{"max_failures: 2",
			"backoff: {first: 1ms}"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dead := filepath.Join(t.TempDir(), "dead")
			path := writeFile(t, "f.yaml", pipelineOf(append([]string{`from: "-"`, "to: " + c.to,
				"dead: file://" + dead, "lines: {format: json}"}, c.more...)...))
			run(t, c.line+"\n", "run", "--until-empty", path).want(t, 4, "1 dead letter made")
			text, err := os.ReadFile(dead)
			if err != nil || strings.Count(string(text), "\n") != 1 {
				t.Fatalf("dead letters: %.300s, %v", text, err)
			}
			l := decode[struct {
				ID, Body string
				Headers  []struct{ Name, Value string }
			}](t, string(text))
			why := ""
			for _, h := range l.Headers {
				if h.Name == ackwise.HeaderError {
					why = h.Value
				}
			}
			in := decode[struct{ Body string }](t, c.line)
			if l.ID != "1" || l.Body != in.Body || !strings.Contains(why, c.part) {
				t.Errorf("ID %q, %d bytes, because of %q, want %q", l.ID, len(l.Body), why, c.part)
			}
		})
	}
}

// TestRunTransforms relays with all that a transform can do, through the command.
func TestRunTransforms(t *testing.T) {
	g := newTarget(t, nil)
	path := writeFile(t, "f.yaml", pipelineOf(`from: "-"`,
		"to: "+g.URL+"?headers=x-*&key_header=x-key",
		"no_dead_letters: true", "linger: 10ms", "lines: {id_field: id}", "transform:",
		"  key_field: customer.id", "  set_headers: {x-from: shop}", "  remove_headers: [\"y-*\"]",
		"  cloud_events: binary", "  event_source: /shop", "  event_type: order"))
	must(t, `{"id":"o-1","customer":{"id":7}}`+"\n", "run", "--until-empty", path)
	h := g.heads["o-1"]
	for name, want := range map[string]string{"x-key": "7", "x-from": "shop", "ce-id": "o-1",
		"ce-source": "/shop", "ce-type": "order", "ce-specversion": "1.0", "ce-partitionkey": "7"} {
		if got := h.Get(name); got != want {
			t.Errorf("the header %s is %q, want %q", name, got, want)
		}
	}
	p := pipelineConfig{Transform: relay.Transform{CloudEvents: relay.Binary}}
	e, err := parseEndpoint("kafka://h/t", false)
	p.to = &e
	if got := p.transform().HeaderPrefix; err != nil || got != "ce_" {
		t.Errorf("for Kafka attributes begin with %q, %v", got, err)
	}
}
