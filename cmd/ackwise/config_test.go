package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/relay"
)

var update = flag.Bool("update", false, "write docs/CONFIG.md anew")

// pipelineOf is a file of one pipeline with these further lines.
func pipelineOf(more ...string) string {
	return "pipelines:\n  - name: p\n    " + strings.Join(more, "\n    ") + "\n"
}

// faulty is a file, and all that is said of it.
type faulty struct{ name, text, want string }

func faults() []faulty {
	return slices.Concat(faultsOfForm(), faultsOfPipelines(), faultsOfPatterns(),
		faultsOfStores())
}

const (
	lineSource = "from: file://in"
	lineSink   = "to: file://out"
)

func faultsOfForm() []faulty {
	return []faulty{
		{"empty", "", "f:1: the file is empty; it needs pipelines:"},
		{"only a comment", "# nothing\n", "f:1: the file is empty; it needs pipelines:"},
		{"no list", "pipelines:\n", "f:1: pipelines: expected a list, found nothing"},
		{"empty list", "pipelines: []\n",
			"f:1: there is no pipeline; pipelines: is a list of them"},
		{"not words", "7\n", "f:1: the file: expected words with values, found the number 7"},
		{"a list of numbers", "pipelines: [7]\n",
			"f:1: a pipeline: expected words with values, found the number 7"},
		{"syntax", "pipelines:\n\t- x\n",
			"f:2: not YAML: found character that cannot start any token"},
		{"bare -", pipelineOf("from: -"), "f:3: not YAML: block sequence entries are not allowed " +
			`in this context; a - that is a value is written "-"`},
		{"two documents", "pipelines: []\n---\n",
			"f:1: not YAML: expected single document, found multiple"},
		{"unknown words", "pipeline: 1\nxyzzy: 2\n", "f:1: unknown word \"pipeline\" in the file; " +
			"did you mean \"pipelines\"?\n" +
			"f:2: unknown word \"xyzzy\" in the file; the words are pipelines, redrive"},
		{"near words", pipelineOf("form: x", "max-failures: 3", "Backoff: {fist: 1s}",
			"backoff: {fist: 1s}"),
			"f:3: unknown word \"form\" in a pipeline; did you mean \"from\"?\n" +
				"f:4: unknown word \"max-failures\" in a pipeline; did you mean \"max_failures\"?\n" +
				"f:5: unknown word \"Backoff\" in a pipeline; did you mean \"backoff\"?\n" +
				"f:6: unknown word \"fist\" in backoff; did you mean \"first\"?"},
		{"wrong kinds", pipelineOf("from: 7", "exec: [a, b]", "create: yes", "concurrency: many",
			"max_failures: 1.5", "stop_grace: 30", "backoff: 5s", "breaker: {ratio: high}",
			"guarantee: maybe", "subscription: {on_dead: hould, start: yesterday}"),
			"f:3: from: expected a text (in quotes, if it looks like something else), " +
				"found the number 7\n" +
				"f:4: exec: expected a text (in quotes, if it looks like something else), found a list\n" +
				"f:5: create: expected true or false, found the text \"yes\"\n" +
				"f:6: concurrency: expected a whole number above 0, found the text \"many\"\n" +
				"f:7: max_failures: expected a whole number above 0 or unlimited, " +
				"found the number 1.5\n" +
				"f:8: stop_grace: expected a duration such as \"5s\" or none, found the number 30\n" +
				"f:9: backoff: expected words with values, found the text \"5s\"\n" +
				"f:10: breaker.ratio: expected a number above 0, found the text \"high\"\n" +
				"f:11: guarantee: expected at-least-once, at-most-once or exactly-once, " +
				"found the text \"maybe\"\n" +
				"f:12: subscription.on_dead: expected hold or skip, found the text \"hould\"; " +
				"did you mean \"hold\"?\n" +
				"f:12: subscription.start: expected beginning, now or a time such as " +
				"2026-01-31T12:00:00Z, found the text \"yesterday\""},
		{"zero and less", pipelineOf("concurrency: 0", "batch_size: -1", "stop_grace: -1s",
			"backoff: {factor: 0}", "max_handle: 0s"),
			"f:3: concurrency: expected a whole number above 0, found the number 0\n" +
				"f:4: batch_size: expected a whole number above 0, found the number -1\n" +
				"f:5: stop_grace: expected a duration such as \"5s\" or none, found the text \"-1s\"\n" +
				"f:6: backoff.factor: expected a number above 0, found the number 0\n" +
				"f:7: max_handle: expected a duration such as \"5s\", found the text \"0s\""},
		{"set twice", pipelineOf(lineSource, lineSink, lineSource),
			"f:5: from is set twice, first on line 3"},
		{"anchor", pipelineOf("backoff: &b {first: 1s}", "breaker: *b"),
			"f:3: anchors and aliases are not read here; write the value out\n" +
				"f:4: anchors and aliases are not read here; write the value out"},
		{"too large", pipelineOf(lineSource, lineSink, "max_failures: 99999999999999999999"),
			"f:5: max_failures: expected a whole number above 0 or unlimited, " +
				"found the number 99999999999999999999"},
	}
}

func faultsOfPipelines() []faulty {
	const lines, out = lineSource, lineSink
	return []faulty{
		{"nothing of it", "pipelines:\n  - {}\n", "f:2: invalid name: the name is empty\n" +
			"f:2: the pipeline has no from, where its messages come from\n" +
			"f:2: the pipeline has 0 of to, exec and pipe; it needs one"},
		{"two targets", pipelineOf(lines, out, "exec: cat"),
			"f:2: the pipeline has 2 of to, exec and pipe; it needs one"},
		{"unknown endpoints", pipelineOf("from: fil://in", "to: telegram://me:secret@broker/topic"),
			"f:3: from: unknown endpoint \"fil://…\"; did you mean \"file://\"? the endpoints " +
				"are FORMS\n" +
				"f:4: to: unknown endpoint \"telegram://…\"; the endpoints are FORMS"},
		{"endpoints that are not whole", pipelineOf("from: queue://d/t", "to: file://"),
			"f:3: from: \"queue://d/t\" is not whole; here it is queue://DIR/TOPIC/SUBSCRIPTION\n" +
				"f:4: to: \"file://\" names no file; it is file://PATH"},
		{"a bad name", pipelineOf("from: queue://d/t/bad name", out),
			"f:3: from: \"queue://d/t/bad name\": invalid subscription \"bad name\": only letters, " +
				"digits, '.', '_' and '-' are allowed in a name; here it is " +
				"queue://DIR/TOPIC/SUBSCRIPTION"},
		{"no dead letters", pipelineOf(lines, out), "f:2: file://in keeps no dead letters: say " +
			"where they go with dead: file://PATH, queue://DIR/TOPIC or another sink, or " +
			"no_dead_letters: true to try such messages again for ever"},
		{"two kinds of them", pipelineOf("from: queue://d/t/s", out, "dead: file://d"),
			"f:5: dead: the queue keeps the dead letters of queue://d/t/s itself; leave it out"},
		{"onto itself", pipelineOf(lines, "to: file://./in", "no_dead_letters: true"),
			"f:4: to: it is the file that is read"},
		{"exactly once", pipelineOf(lines, out, "guarantee: exactly-once"),
			"f:5: guarantee: exactly-once needs a handler whose own transaction settles the " +
				"delivery, which a Go program can have and a file of pipelines cannot; use " +
				"at-least-once with a handler that applies each message once"},
		{"words without effect", pipelineOf("from: \"-\"", "exec: cat", "no_dead_letters: true",
			"create: true", "subscription: {ordered: true}", "receiver: {name: x}",
			"lines: {follow: true}", "batch_size: 3"),
			"f:6: create has no effect: nothing here can be made\n" +
				"f:7: subscription has no effect: it is for from: queue:// with create: true\n" +
				"f:8: receiver has no effect: from is not queue://\n" +
				"f:9: lines.follow has no effect: from is not file://\n" +
				"f:10: batch_size has no effect: only to takes several messages at once"},
		{"hold", pipelineOf("from: queue://d/t/s", out, "create: true",
			"subscription: {on_dead: hold}"),
			"f:6: subscription.on_dead: hold needs ordered: true"},
		{"what the loop refuses", pipelineOf("from: queue://d/t/s", "exec: cat", "concurrency: 4",
			"max_in_flight: 1", "max_handle: 5s", "backoff:", "  first: 10s", "  cap: 1s"),
			"f:6: max_in_flight: 1: Concurrency × BatchSize = 4 handler calls' deliveries do not " +
				"fit\nf:7: max_handle: 5s: it is less than the source's lease (30s), which would " +
				"outlast it\nf:10: backoff.cap: 1s: it is less than First (10s)"},
		{"names and places that clash", pipelineOf(lines, out, "no_dead_letters: true") +
			strings.TrimPrefix(pipelineOf("from: file://./in", out, "no_dead_letters: true"),
				"pipelines:\n"),
			"f:6: the name \"p\" is taken by the pipeline on line 2\n" +
				"f:6: the position file WD/in.position is taken by the pipeline on line 2"},
	}
}

// forms are those of all endpoints.
func forms() string {
	var all []string
	for _, s := range schemes() {
		all = append(all, s.form)
	}
	return strings.Join(all, ", ")
}

func TestConfigFaults(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range faults() {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig("f", []byte(c.text))
			want := strings.ReplaceAll(strings.ReplaceAll(c.want, "WD", wd), "FORMS", forms())
			if err == nil || err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
			if strings.Contains(fmt.Sprint(err), "hush") {
				t.Errorf("a password is shown: %v", err)
			}
		})
	}
}

func TestConfigIsTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(path, make([]byte, maxConfigBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadConfig(path); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("got %v", err)
	}
}

// everyField are the fields of the options that a file can set, and a value for each kind.
func sampleOf(t *testing.T, f field) (text string, want any) {
	t.Helper()
	switch f.typ {
	case reflect.TypeFor[time.Duration]():
		return "17s", 17 * time.Second
	case reflect.TypeFor[queue.Start]():
		return "now", queue.Start{Now: true}
	case reflect.TypeFor[deliver.Guarantee]():
		return "at-most-once", deliver.AtMostOnce
	case reflect.TypeFor[pattern]():
		return "upsert", patternUpsert
	case reflect.TypeFor[dedupBy]():
		return "body", byBody
	case reflect.TypeFor[dedupSum]():
		return "none", sumNone
	case reflect.TypeFor[queue.OnDead]():
		return "hold", queue.Hold
	case reflect.TypeFor[relay.CloudEvents]():
		return "structured", relay.Structured
	case reflect.TypeFor[rate]():
		return "17/m", rate{17, time.Minute}
	case reflect.TypeFor[[]string]():
		return "[a, b]", []string{"a", "b"}
	case reflect.TypeFor[map[string]string]():
		return "{a: b, c: d}", map[string]string{"a": "b", "c": "d"}
	case reflect.TypeFor[file.Format]():
		return "json", file.JSON
	case reflect.TypeFor[file.OnBad]():
		return "skip", file.SkipBad
	case reflect.TypeFor[file.OnChange]():
		return "restart", file.RestartAtChange
	}
	switch f.typ.Kind() {
	case reflect.String:
		return "a text", "a text"
	case reflect.Bool:
		return "true", true
	case reflect.Int:
		return "17", 17
	case reflect.Int64:
		return "17", int64(17)
	case reflect.Float64:
		return "1.5", 1.5
	}
	t.Fatalf("%s is a %s, for which a file has no form", f.word, f.typ)
	return "", nil
}

// TestConfigReachesEveryField sets, one by one, every field of every options struct and finds it in
// the struct. A field that makes no sense in a file stands in unreachable, and must exist.
func TestConfigReachesEveryField(t *testing.T) {
	for typ, names := range unreachable() {
		for _, name := range names {
			if _, ok := typ.FieldByName(name); !ok {
				t.Errorf("%s has no field %s", typ, name)
			}
		}
	}
	leaves, structs, list := 0, map[reflect.Type]bool{}, "redrive"
	var visit func(typ reflect.Type, path string, index []int)
	visit = func(typ reflect.Type, path string, index []int) {
		structs[typ] = true
		for _, f := range fieldsOf(typ) {
			words := strings.TrimPrefix(path+"."+f.word, ".")
			at := slices.Concat(index, f.index)
			if hasWords(f.typ) {
				visit(f.typ, words, at)
				continue
			}
			leaves++
			text, want := sampleOf(t, f)
			d := &configReader{}
			c := d.read([]byte(nested(list, words, text)))
			if len(d.faults) > 0 {
				t.Errorf("%s: %v", words, d.faults)
				continue
			}
			one := reflect.ValueOf(*c).FieldByName(strings.ToUpper(list[:1]) + list[1:]).Index(0)
			if got := one.FieldByIndex(at).Interface(); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s sets %v, want %v", words, text, got, want)
			}
		}
	}
	visit(reflect.TypeFor[redriveConfig](), "", nil)
	leaves, list = 0, "pipelines"
	visit(reflect.TypeFor[pipelineConfig](), "", nil)
	for _, typ := range []reflect.Type{reflect.TypeFor[relay.Transform](),
		reflect.TypeFor[deliver.Backoff](),
		reflect.TypeFor[deliver.RetryBudget](), reflect.TypeFor[deliver.Breaker](),
		reflect.TypeFor[file.SourceOptions](), reflect.TypeFor[file.SinkOptions](),
		reflect.TypeFor[queue.TopicOptions](), reflect.TypeFor[queue.SubscriptionOptions](),
		reflect.TypeFor[queue.ReceiverOptions](), reflect.TypeFor[dedupConfig]()} {
		if !structs[typ] {
			t.Errorf("%s is not reached", typ)
		}
	}
	loop := reflect.TypeFor[deliver.Options]()
	if want := loop.NumField() - len(unreachable()[loop]); leaves < want {
		t.Errorf("%d fields are reached, the loop alone has %d", leaves, want)
	}
}

// hasWords reports whether a type is written as words with values.
func hasWords(typ reflect.Type) bool {
	_, special := specials()[typ]
	return typ.Kind() == reflect.Struct && !special
}

// nested is a file that sets one word of the first of a list.
func nested(list, words, text string) string {
	out, indent := list+":\n  - ", "    "
	parts := strings.Split(words, ".")
	for i, p := range parts {
		if i == len(parts)-1 {
			return out + p + ": " + text + "\n"
		}
		indent += "  "
		out += p + ":\n" + indent
	}
	return out
}

func TestConfigWordsForConstants(t *testing.T) {
	d := &configReader{}
	c := d.read([]byte(pipelineOf("max_failures: unlimited", "max_crashes: unlimited",
		"stop_grace: none", "revoke_grace: none", "cancel_grace: none",
		"topic: {dedup_window: none}")))
	if len(d.faults) > 0 {
		t.Fatal(d.faults)
	}
	p := c.Pipelines[0]
	if p.MaxFailures != deliver.Unlimited || p.MaxCrashes != deliver.Unlimited ||
		p.StopGrace != deliver.NoGrace || p.RevokeGrace != deliver.NoGrace ||
		p.CancelGrace != deliver.NoGrace || p.Topic.DedupWindow != queue.NoDedup {
		t.Errorf("got %+v", p)
	}
}

func TestWordFor(t *testing.T) {
	for name, want := range map[string]string{"Name": "name", "MaxFailures": "max_failures",
		"IDField": "id_field", "MaxDedupIDs": "max_dedup_ids", "OnDead": "on_dead",
		"NoDeadLetters": "no_dead_letters"} {
		if got := wordFor(name); got != want {
			t.Errorf("the word of %s is %s, want %s", name, got, want)
		}
	}
}

// TestConfigDoc checks that docs/CONFIG.md says of each word what the comment of its field says.
// Run it with -update after a change.
func TestConfigDoc(t *testing.T) {
	const path = "../../docs/CONFIG.md"
	text := configDoc(t)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != text {
		t.Errorf("%s is not what the options say; run go test ./cmd/ackwise -run ConfigDoc -update",
			path)
	}
}

// configDoc writes the tables from the comments of the fields, behind an introduction.
func configDoc(t *testing.T) string {
	t.Helper()
	comments := map[string]string{}
	for pkg, dir := range map[string]string{"main": ".", "deliver": "../../deliver",
		"queue": "../../queue", "file": "../../adapters/file", "relay": "../../relay"} {
		readComments(t, pkg, dir, comments)
	}
	for field, own := range ownDefaults() {
		says, library := comments[field], own[0]
		if !strings.Contains(says, library) {
			t.Errorf("%s does not say %q any more: %s", field, library, says)
		}
		comments[field] = strings.Replace(says, library, own[1], 1)
	}
	words := map[string]string{"StopAtBad": "stop", "SkipBad": "skip", "StopAtChange": "stop",
		"Body": "body", "NoDedup": "none", "NoGrace": "none", "Unlimited": "unlimited",
		"AtLeastOnce": "at-least-once", "Skip": "skip", "Hold": "hold", "Binary": "binary",
		"Structured": "structured"}
	var b strings.Builder
	intro, err := os.ReadFile("testdata/config-intro.txt")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(intro)
	told := map[reflect.Type]bool{}
	var table func(typ reflect.Type, path, title string)
	table = func(typ reflect.Type, path, title string) {
		fmt.Fprintf(&b, "\n## %s\n\n| word | value | meaning |\n| --- | --- | --- |\n", title)
		own := ownWords(typ, words)
		var inner []field
		for _, f := range fieldsOf(typ) {
			holder, name := fieldName(typ, f.index)
			text := comments[holder+"."+name]
			if text == "" {
				t.Errorf("%s.%s has no comment", holder, name)
			}
			if hasWords(f.typ) {
				inner = append(inner, f)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.word, kindOf(f, path), inWords(text, own))
		}
		for _, f := range inner {
			if told[f.typ] {
				continue // the tables of a pipeline
			}
			told[f.typ] = f.typ == reflect.TypeFor[relay.Transform]() ||
				f.typ == reflect.TypeFor[deliver.Backoff]()
			table(f.typ, strings.TrimPrefix(path+"."+f.word, "."),
				"`"+strings.TrimPrefix(path+"."+f.word, ".")+"`")
		}
	}
	table(reflect.TypeFor[pipelineConfig](), "", "A pipeline")
	table(reflect.TypeFor[redriveConfig](), "", "A redrive")
	return b.String()
}

// ownDefaults are defaults of the library that this command has others for (loopOptions and
// flow.options), and what it says instead.
func ownDefaults() map[string][2]string {
	return map[string][2]string{
		"deliver.Options.Concurrency": {"Default: 16.",
			"Default: 1 with To, the number of CPUs with Exec, 16 with Pipe."},
		"deliver.Options.MaxInFlight": {"where that is more.", "where that is more. With From " +
			"queue:// it is 1,024 or more with To, else Concurrency. Where BatchSize is 1,000 by " +
			"default it is 2,000."},
		"deliver.Options.BatchSize": {"Default: 100.", "Default: 100; 1,000 from a log to a sink " +
			"that takes any number of messages at once, where Concurrency is 1 and MaxInFlight is " +
			"left out."},
	}
}

// ownWords are the words for the names that a struct's comments use.
func ownWords(typ reflect.Type, constants map[string]string) map[string]string {
	own := maps.Clone(constants)
	for _, f := range fieldsOf(typ) {
		_, name := fieldName(typ, f.index)
		own[name] = f.word
	}
	return own
}

// inWords puts words in place of Go names, and cuts the name that a comment begins with.
func inWords(text string, words map[string]string) string {
	text = strings.ReplaceAll(text, "|", "\\|")
	return regexp.MustCompile(`\b(Options\.)?[A-Z][A-Za-z]+\b`).ReplaceAllStringFunc(text,
		func(name string) string {
			if w, ok := words[strings.TrimPrefix(name, "Options.")]; ok {
				return "`" + w + "`"
			}
			return name
		})
}

func fieldName(typ reflect.Type, index []int) (holder, name string) {
	for _, i := range index[:len(index)-1] {
		typ = typ.Field(i).Type
	}
	return typ.String(), typ.Field(index[len(index)-1]).Name
}

// kindOf says what is written as a field's value.
func kindOf(f field, path string) string {
	kind := map[reflect.Kind]string{reflect.String: "text", reflect.Bool: "true or false",
		reflect.Int: "whole number", reflect.Int64: "whole number", reflect.Float64: "number",
		reflect.Struct: "words, below", reflect.Slice: "list of texts",
		reflect.Map: "names with texts"}[f.typ.Kind()]
	if s, ok := specials()[f.typ]; ok {
		kind = s.expected
	}
	for word := range wordValues(strings.TrimPrefix(path+"."+f.word, ".")) {
		kind += " or " + word
	}
	return kind
}

// readComments reads the comments of the fields of a package's structs.
func readComments(t *testing.T, pkg, dir string, into map[string]string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		syntax, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for n := range ast.Preorder(syntax) {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					for _, name := range f.Names {
						into[pkg+"."+spec.Name.Name+"."+name.Name] = strings.Join(
							strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
					}
				}
			}
		}
	}
}

func FuzzConfig(f *testing.F) {
	for _, c := range faults() {
		f.Add(c.text)
	}
	paths, err := filepath.Glob("../../examples/pipelines/*.yaml")
	if err != nil || len(paths) == 0 {
		f.Fatal("no examples", err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseConfig("f", []byte(text))
		if (c == nil) == (err == nil) {
			t.Fatalf("got %v and %v", c, err)
		}
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !regexp.MustCompile(`^f:[1-9][0-9]*: `).MatchString(line) &&
					!strings.Contains(text, "\n") {
					t.Errorf("a fault without a line: %q", line)
				}
			}
			return
		}
		for i := range c.Pipelines {
			p := &c.Pipelines[i]
			if p.Name == "" || p.from.scheme.source == nil || p.loopOptions().Concurrency < 1 {
				t.Errorf("accepted a pipeline that cannot work: %+v", p)
			}
		}
	})
}
