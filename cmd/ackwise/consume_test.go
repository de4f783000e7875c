package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/queue"
)

// publish publishes lines with IDs: "ID KEY".
func publish(t *testing.T, dir string, messages ...string) {
	t.Helper()
	var in strings.Builder
	for _, m := range messages {
		id, key, _ := strings.Cut(m, " ")
		fmt.Fprintf(&in, `{"i":%q,"k":%q}`+"\n", id, key)
	}
	must(t, in.String(), "publish", "--dir", dir, "t", "--id-field", "i", "--key-field", "k")
}

// seen reads what handlers wrote to a file.
func seen(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return lines(string(b))
}

func numbers(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(prefix, i)
	}
	return all
}

func TestConsumeExecBudgets(t *testing.T) {
	dir, log := dirOf(t), t.TempDir()+"/log"
	good := numbers("good", 40)
	publish(t, dir, append([]string{"killer", "failing"}, good...)...)
	t.Setenv("LOG", log)
	handler := `echo "$ACKWISE_ID $ACKWISE_ATTEMPT $ACKWISE_CAUSE" >> "$LOG"
case $ACKWISE_ID in
killer) kill -9 $$ ;;
failing) echo "no way $ACKWISE_ATTEMPT" >&2; exit 3 ;;
esac`
	out := must(t, "", "consume", "--dir", dir, "t/s", "--exec", handler, "--until-empty",
		"--print-acks", "--backoff", "1ms", "--max-failures", "3", "--max-crashes", "2",
		"--concurrency", "3")
	acks := lines(out)
	slices.Sort(acks)
	slices.Sort(good)
	equal(t, "printed acks", acks, good)
	byID := make(map[string][]string)
	for _, line := range seen(t, log) {
		id, rest, _ := strings.Cut(line, " ")
		byID[id] = append(byID[id], rest)
	}
	equal(t, "killer", byID["killer"], []string{"1 first", "2 consumer-lost"})
	equal(t, "failing", byID["failing"], []string{"1 first", "2 failed", "3 failed"})
	for _, id := range good {
		equal(t, id, byID[id], []string{"1 first"})
	}
	dead := decode[[]queue.DeadLetter](t, must(t, "", "dead", "list", "--dir", dir, "t/s", "--json"))
	if len(dead) != 2 {
		t.Fatalf("%d dead letters, want 2", len(dead))
	}
	for _, l := range dead {
		want := map[string]string{"failing": "exit status 3: no way 3"}[l.Message.ID]
		if l.Message.ID == "killer" && l.Counts.Crashes != 2 || !strings.Contains(l.Error, want) {
			t.Errorf("dead letter %s: %+v, error %q", l.Message.ID, l.Counts, l.Error)
		}
	}
	if b := auditOf(t, dir); !b.Balanced || b.Acked != 40 || b.Dead != 2 || b.Crashes != 2 {
		t.Errorf("books %+v", b)
	}
}

// pipeHandler is a handler process of the protocol in sed: each delivery is answered with done.
const pipeHandler = `exec sed -u -n 's/.*"token":"\([^"]*\)","deadline".*/{"token":"\1","outcome":"done"}/p'`

func TestConsumePipe(t *testing.T) {
	dir := dirOf(t)
	want := numbers("m", 100)
	publish(t, dir, want...)
	acks := lines(must(t, "", "consume", "--dir", dir, "t/s", "--pipe", pipeHandler, "--until-empty",
		"--print-acks"))
	slices.Sort(acks)
	slices.Sort(want)
	equal(t, "printed acks", acks, want)
}

// TestConsumePipePoison: one message that ends its process among others becomes a dead letter after
// its crash budget, and no other does.
func TestConsumePipePoison(t *testing.T) {
	dir := dirOf(t)
	good := numbers("m", 200)
	publish(t, dir, slices.Insert(slices.Clone(good), 100, "poison")...)
	handler := `while read -r line; do
case $line in
*'"id":"poison"'*) exit 5 ;;
*'"id"'*) token=${line#*'"token":"'}; echo "{\"token\":\"${token%%\"*}\",\"outcome\":\"done\"}" ;;
esac; done`
	r := run(t, "", "consume", "--dir", dir, "t/s", "--pipe", handler, "--until-empty", "--print-acks",
		"--max-crashes", "3")
	r.want(t, 0, "the handler process ended (exit status 5); it is started again in")
	acks := lines(r.out)
	slices.Sort(acks)
	slices.Sort(good)
	equal(t, "printed acks", slices.Compact(acks), good)
	dead := decode[[]queue.DeadLetter](t, must(t, "", "dead", "list", "--dir", dir, "t/s", "--json"))
	if len(dead) != 1 || dead[0].Message.ID != "poison" || dead[0].Counts.Crashes != 3 {
		t.Errorf("dead letters %+v, want the poison with 3 crashes", dead)
	}
}

func TestConsumePipeThatCannotStart(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "a", "b")
	r := run(t, "", "consume", "--dir", dir, "t/s", "--pipe", "/no/such/handler", "--until-empty")
	r.want(t, 1, "before it was given a delivery: exit status 127", "/no/such/handler")
	if b := auditOf(t, dir); b.Ready+b.Delayed != 2 || b.Dead != 0 {
		t.Errorf("books %+v, want both there", b)
	}
}

func TestConsumePipeNonsense(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "a")
	r := run(t, "", "consume", "--dir", dir, "t/s", "--until-empty", "--print-acks", "--pipe",
		`echo hello; echo '{"token":"x","outcome":"done"}'; `+pipeHandler)
	r.want(t, 0, `line 1 of its standard output: not an answer of the handler protocol: "hello"`,
		`line 2 of its standard output: unknown token "x"`)
	equal(t, "printed acks", lines(r.out), []string{"a"})
}

// TestConsumePipeThatNeverAnswers: the work is given up at its bound and charged, and what others
// hold goes on.
func TestConsumePipeThatNeverAnswers(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "a")
	must(t, "", "consume", "--dir", dir, "t/s", "--until-empty", "--pipe", "cat > /dev/null",
		"--lease", "200ms", "--max-handle", "300ms", "--max-failures", "2", "--backoff", "1ms")
	dead := must(t, "", "dead", "list", "--dir", dir, "t/s")
	if !strings.Contains(dead, "the handler process did not answer in time") {
		t.Errorf("dead list prints\n%s", dead)
	}
}

func TestConsumeMaxAndPrinting(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, numbers("m", 10)...)
	out := must(t, "", "consume", "--dir", dir, "t/s", "--max", "3")
	if n := len(bodies(t, out)); n != 3 {
		t.Errorf("%d deliveries, want 3", n)
	}
	l, err := process.ParseLine([]byte(lines(out)[0]))
	if err != nil || l.Pipeline != "t/s" || l.Delivery.ID != "m0" || l.Delivery.Attempt != 1 {
		t.Errorf("the first line is %+v, %v", l, err)
	}
	if b := auditOf(t, dir); b.Acked != 3 || b.Ready != 7 {
		t.Errorf("acked %d, ready %d; want 3 and 7", b.Acked, b.Ready)
	}
	out = must(t, "", "consume", "--dir", dir, "t/s", "--print-acks", "--until-empty", "--sync-acks")
	if n := len(lines(out)); n != 14 {
		t.Errorf("%d lines, want 7 deliveries and 7 IDs", n)
	}
}

func TestConsumeAtMostOnce(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "a", "b")
	out := must(t, "", "consume", "--dir", dir, "t/s", "--guarantee", "at-most-once", "--exec",
		"exit 1", "--until-empty", "--print-acks")
	if n := len(lines(out)); n != 2 {
		t.Errorf("%d acks, want 2", n)
	}
	if b := auditOf(t, dir); b.Acked != 2 || b.Dead != 0 || b.Failures != 0 {
		t.Errorf("books %+v", b)
	}
}

func TestConsumeFrom(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "old")
	consume := func(sub string, flags ...string) []string {
		args := []string{"consume", "--dir", dir, "--create", "t/" + sub, "--until-empty"}
		out := must(t, "", append(args, flags...)...)
		if out == "" {
			return nil
		}
		return bodies(t, out)
	}
	equal(t, "from now", consume("now", "--from", "now"), nil)
	equal(t, "from a time to come", consume("later", "--from",
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), nil)
	equal(t, "from the beginning", consume("all"), []string{`{"i":"old","k":""}`})
	publish(t, dir, "new")
	equal(t, "from now, again", consume("now", "--from", "now"), []string{`{"i":"new","k":""}`})
}

func TestConsumeOrderedHold(t *testing.T) {
	dir, log := dirOf(t, "--ordered", "--on-dead", "hold"), t.TempDir()+"/log"
	t.Setenv("LOG", log)
	publish(t, dir, "a1 a", "b1 b", "a2 a", "b2 b", "a3 a")
	failing := `echo "$ACKWISE_ID" >> "$LOG"; [ "$ACKWISE_ID" != a1 ]`
	working := `echo "$ACKWISE_ID" >> "$LOG"`
	consume := func(cmd string) {
		must(t, "", "consume", "--dir", dir, "t/s", "--exec", cmd, "--until-empty", "--backoff", "1ms",
			"--max-failures", "2", "--concurrency", "4")
	}
	order := func(key string) (ids []string) {
		for _, id := range seen(t, log) {
			if strings.HasPrefix(id, key) {
				ids = append(ids, id)
			}
		}
		return ids
	}
	consume(failing)
	equal(t, "key a", order("a"), []string{"a1", "a1"})
	equal(t, "key b", order("b"), []string{"b1", "b2"})
	out := must(t, "", "keys", "--dir", dir, "t/s")
	if f := strings.Fields(lines(out)[1]); !slices.Equal(append(f[:3:3], f[4:6]...),
		[]string{"a", "parked", "2", "2", "a1"}) {
		t.Errorf("keys prints\n%s", out)
	}
	keys := decode[[]queue.ParkedKey](t, must(t, "", "keys", "--dir", dir, "t/s", "--json"))
	if len(keys) != 1 || keys[0].Key != "a" || keys[0].Depth != 2 || keys[0].Error != "exit status 1" {
		t.Errorf("keys %+v", keys)
	}
	run(t, "", "keys", "release", "--dir", dir, "t/s", "b").want(t, 1, `no parked key "b"`)
	out = must(t, "", "keys", "release", "--dir", dir, "t/s", "a", "--dry-run")
	if want := "dead letter a1 would be redriven; 2 messages parked behind it\n"; out != want {
		t.Errorf("dry run prints %q, want %q", out, want)
	}
	must(t, "", "keys", "release", "--dir", dir, "t/s", "a")
	run(t, "", "keys", "skip", "--dir", dir, "t/s", "a").want(t, 1)
	consume(failing) // dies again: still nothing of the key goes on
	equal(t, "key a, redriven", order("a"), []string{"a1", "a1", "a1", "a1"})
	must(t, "", "keys", "skip", "--dir", dir, "t/s", "a", "--reason", "broken for good")
	consume(working)
	equal(t, "key a, skipped", order("a"), []string{"a1", "a1", "a1", "a1", "a2", "a3"})
	b := auditOf(t, dir)
	if !b.Balanced || b.Acked != 4 || b.DroppedFor["broken for good"] != 1 {
		t.Errorf("books %+v", b)
	}
	run(t, "", "consume", "--dir", dir, "t/s", "--ordered", "--on-dead", "skip").
		want(t, 1, "exists with --on-dead hold")
	run(t, "", "consume", "--dir", dirOf(t), "t/s", "--ordered").
		want(t, 1, "exists and is not ordered", "hint:")
}

// TestConsumeStopsSoftly: SIGTERM and SIGINT end it with 0, whatever the handler.
func TestConsumeStopsSoftly(t *testing.T) {
	for _, handler := range [][]string{nil, {"--exec", "cat >/dev/null"}, {"--pipe", pipeHandler},
		{"--pipe", `trap "" TERM; touch "$UP"; while :; do sleep 1; done`}} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			dir, up := dirOf(t), filepath.Join(t.TempDir(), "up")
			t.Setenv("UP", up)
			c := command(t, append([]string{"consume", "--dir", dir, "t/s", "--print-acks"}, handler...)...)
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var errOut strings.Builder
			c.Stderr = &errOut
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			deaf := len(handler) > 0 && strings.Contains(handler[1], "trap")
			if !deaf {
				publish(t, dir, "a")
				if line, err := bufio.NewReader(out).ReadString('\n'); !strings.Contains(line, "a") {
					t.Fatalf("%q: %q, %v", handler, line, err)
				}
			} else {
				waitFor(t, "its handler is up", func() bool { _, err := os.Stat(up); return err == nil })
			}
			begin := time.Now()
			if err := c.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil || time.Since(begin) > 30*time.Second {
				t.Errorf("%q: %v after %s, %v\n%s", handler, signal, time.Since(begin), err, errOut.String())
			}
		}
	}
}

func TestConsumeIntoAClosedPipe(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "a", "b")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	c := command(t, "consume", "--dir", dir, "t/s")
	var errOut strings.Builder
	c.Stdout, c.Stderr = w, &errOut
	_ = c.Run()
	if c.ProcessState.ExitCode() != 1 || !strings.Contains(errOut.String(), "write standard output") {
		t.Errorf("%s, %s", c.ProcessState, errOut.String())
	}
	if b := auditOf(t, dir); b.Ready != 2 || b.Failures != 0 {
		t.Errorf("books %+v, want both ready and uncharged", b)
	}
}

// TestConsumeStopLetsAProcessFinish: a process that is told to stop may still answer what it has,
// and that is settled.
func TestConsumeStopLetsAProcessFinish(t *testing.T) {
	dir := dirOf(t)
	publish(t, dir, "a")
	c := command(t, "consume", "--dir", dir, "t/s", "--print-acks", "--pipe", `read -r line
echo "has it" >&2
read -r stop
[ "$stop" = '{"stop":true}' ] || exit 1
token=${line#*'"token":"'}; echo "{\"token\":\"${token%%\"*}\",\"outcome\":\"done\"}"`)
	var out strings.Builder
	c.Stdout = &out
	errOut, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(errOut)
	if line, err := r.ReadString('\n'); line != "has it\n" {
		t.Fatalf("%q, %v", line, err)
	}
	begin := time.Now()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(r)
	if err := c.Wait(); err != nil || out.String() != "a\n" || time.Since(begin) > 10*time.Second {
		t.Errorf("%v after %s, printed %q\n%s", err, time.Since(begin), out.String(), rest)
	}
	if b := auditOf(t, dir); b.Acked != 1 {
		t.Errorf("books %+v", b)
	}
}
