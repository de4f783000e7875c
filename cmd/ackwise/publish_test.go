package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/internal/process"
)

// bodies are the bodies of printed deliveries.
func bodies(t *testing.T, printed string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(printed) {
		l, err := process.ParseLine([]byte(line))
		if err != nil || l.Delivery == nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, string(l.Delivery.Body))
	}
	return all
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q\nwant %q", what, got, want)
	}
}

func TestPublishKeepsTheOrderOfLines(t *testing.T) {
	dir := t.TempDir() + "/d"
	var in strings.Builder
	var want []string
	for i := range 2000 {
		want = append(want, fmt.Sprintf("line %d", i))
		in.WriteString(want[i] + "\n")
	}
	ids := lines(must(t, in.String(), "publish", "--dir", dir, "--create", "t", "--print-ids",
		"--batch", "7"))
	out := must(t, "", "consume", "--dir", dir, "--create", "t/s", "--until-empty")
	equal(t, "bodies", bodies(t, out), want)
	for i, line := range lines(out) {
		if !strings.Contains(line, `"id":"`+ids[i]+`"`) {
			t.Fatalf("ID %d is %s, the delivery %s", i, ids[i], line)
		}
	}
}

func TestPublishFields(t *testing.T) {
	dir := dirOf(t)
	in := `{"n":1.50,"k":"a"}` + "\n" + `{"n":"x","k":2}` + "\n"
	ids := lines(must(t, in, "publish", "--dir", dir, "t", "--id-field", "n", "--key-field", "k",
		"--header", "h=v=1", "--header", "h=,", "--print-ids"))
	equal(t, "IDs", ids, []string{"1.50", "x"})
	out := must(t, "", "consume", "--dir", dir, "t/s", "--until-empty")
	for i, want := range []string{`{"id":"1.50","key":"a","headers":[{"name":"h","value":"v=1"},` +
		`{"name":"h","value":","}],"body":"{\"n\":1.50,\"k\":\"a\"}",`, `{"id":"x","key":"2",`} {
		if !strings.HasPrefix(lines(out)[i], want) {
			t.Errorf("delivery %s, want %s", lines(out)[i], want)
		}
	}
}

func TestPublishOneMessage(t *testing.T) {
	dir := dirOf(t)
	file := t.TempDir() + "/in"
	if err := os.WriteFile(file, []byte("the body"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "", "publish", "--dir", dir, "--id", "one", "--key", "k", "t", file)
	r := run(t, "a\nb\n", "publish", "--dir", dir, "--id", "two", "t")
	r.want(t, 1, "line 2: --id names one message")
	equal(t, "bodies", bodies(t, must(t, "", "consume", "--dir", dir, "t/s", "--until-empty")),
		[]string{"the body", "a"})
	run(t, "", "publish", "--dir", dir, "t", file+"-none").want(t, 1, "no such file")
}

func TestPublishBadLines(t *testing.T) {
	for _, c := range []struct{ name, line, fault string }{
		{"malformed JSON", `{"i":`, "line 2: the line is not a JSON object"},
		{"no JSON object", `[1]`, "line 2: the line is not a JSON object"},
		{"null", `null`, "line 2: the line is not a JSON object"},
		{"a missing field", `{"di":"x"}`, `line 2: no field "i"`},
		{"a field of another kind", `{"i":{}}`, `line 2: the field "i" is {}; it must be a string`},
		{"a null field", `{"i":null}`, `line 2: the field "i" is null`},
		{"an empty ID", `{"i":""}`, `line 2: the field "i" is empty`},
		{"an ID with a control character", `{"i":"a\nb"}`, "line 2: invalid id"},
		{"an ID that is too long", `{"i":"` + strings.Repeat("x", 300) + `"}`, "line 2: invalid id"},
		{"a body over the limit", `{"i":"` + strings.Repeat("x", 1<<20) + `"}`,
			"line 2: the line is too large"},
		{"the same ID with another body", `{"i":"first", "more":1}`,
			`line 2: message "first": the same ID was accepted before with another content`},
		{"an empty line", ``, "line 2: the line is not a JSON object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := `{"i":"first"}` + "\n" + c.line + "\n" + `{"i":"third"}` + "\n"
			dir := t.TempDir() + "/d"
			args := []string{"publish", "--dir", dir, "--create", "t", "--id-field", "i", "--print-ids"}
			r := run(t, in, append(args, "--on-bad", "skip")...)
			r.want(t, 4, c.fault, "(skipped)", "2 lines published, 1 skipped")
			equal(t, "IDs", lines(r.out), []string{"first", "third"})
			dir += "2"
			args[2] = dir
			r = run(t, in, append(args, "--batch", "1")...)
			r.want(t, 1, c.fault, "hint: The lines before it are published")
			equal(t, "IDs", lines(r.out), []string{"first"})
		})
	}
}

func TestPublishAgain(t *testing.T) {
	dir := dirOf(t)
	in := `{"i":"a"}` + "\n" + `{"i":"b"}` + "\n"
	for range 2 {
		ids := must(t, in, "publish", "--dir", dir, "t", "--id-field", "i", "--print-ids")
		equal(t, "IDs, a duplicate's too", lines(ids), []string{"a", "b"})
	}
	if b := auditOf(t, dir); b.Accepted != 2 {
		t.Errorf("accepted %d, want 2", b.Accepted)
	}
}

func TestPublishDelay(t *testing.T) {
	dir := dirOf(t)
	must(t, "later\n", "publish", "--dir", dir, "t", "--delay", "300ms")
	must(t, "much later\n", "publish", "--dir", dir, "t", "--delay", "1h")
	if b := auditOf(t, dir); b.Delayed != 2 && b.Delayed+b.Ready != 2 {
		t.Errorf("delayed %d, want 2", b.Delayed)
	}
	out := must(t, "", "consume", "--dir", dir, "t/s", "--max", "1")
	equal(t, "bodies", bodies(t, out), []string{"later"})
	peek := must(t, "", "peek", "--dir", dir, "t/s", "--state", "delayed")
	if !strings.Contains(peek, "much later") || !strings.Contains(peek, "59m") {
		t.Errorf("peek shows\n%s", peek)
	}
}

// TestPublishWaitsForNoBatch: a line is durable while the input is still open.
func TestPublishWaitsForNoBatch(t *testing.T) {
	c := command(t, "publish", "--dir", t.TempDir()+"/d", "--create", "t", "--print-ids",
		"--id-field", "i", "--batch", "1000")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errOut strings.Builder
	c.Stderr = &errOut
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	for i := range 3 {
		fmt.Fprintf(in, "{\"i\":%d}\n", i)
		if id, err := r.ReadString('\n'); id != fmt.Sprintln(i) {
			t.Fatalf("ID %q, %v; want %d", id, err, i)
		}
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	if c.ProcessState.ExitCode() != 1 ||
		!strings.Contains(errOut.String(), "interrupted: 3 lines published") {
		t.Errorf("after SIGTERM: %s, %s", c.ProcessState, errOut.String())
	}
}

func TestPublishIntoAClosedPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	c := command(t, "publish", "--dir", t.TempDir()+"/d", "--create", "t", "--print-ids")
	c.Stdin, c.Stdout = strings.NewReader("a\nb\n"), w
	var errOut strings.Builder
	c.Stderr = &errOut
	_ = c.Run()
	if c.ProcessState.ExitCode() != 1 || !strings.Contains(errOut.String(), "broken pipe") {
		t.Errorf("%s, %s", c.ProcessState, errOut.String())
	}
}

func TestUnknownPlaces(t *testing.T) {
	dir := t.TempDir() + "/d"
	must(t, "x\n", "publish", "--dir", dir, "--create", "orders")
	must(t, "", "consume", "--dir", dir, "--create", "orders/mail", "--until-empty")
	run(t, "x\n", "publish", "--dir", dir, "oders").want(t, 1,
		`no topic "oders"; did you mean "orders"?`)
	run(t, "x\n", "publish", "--dir", dir, "shipping").want(t, 1, `no topic "shipping"`, "hint:")
	for _, cmd := range []string{"consume", "peek", "dead list", "dead groups", "dead export", "keys"} {
		args := append(strings.Fields(cmd), "--dir", dir)
		run(t, "", append(args, "oders/mail")...).want(t, 1, `did you mean "orders"?`)
		run(t, "", append(args, "orders/mial")...).want(t, 1, `did you mean "mail"?`)
	}
	run(t, "", "redrive", "--dir", dir, "orders/mial", "--all").want(t, 1, `did you mean "mail"?`)
	for _, cmd := range []string{"audit", "verify", "publish t", "consume t/s", "peek t/s", "keys t/s"} {
		args := append(strings.Fields(cmd), "--dir", dir+"-none")
		run(t, "", args...).want(t, 1, "d-none")
	}
	if _, err := os.Stat(dir + "-none"); err == nil {
		t.Error("a directory was made without --create")
	}
}
