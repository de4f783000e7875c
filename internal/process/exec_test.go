package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func execOf(t *testing.T, command string, o Options) *ExecHandler {
	t.Helper()
	o.Grace = 100 * time.Millisecond
	h, err := Exec(command, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestExecEnds(t *testing.T) {
	for _, c := range []struct {
		name, command, want string // want: "" = done
		lost                bool
	}{
		{"exit code 0 is done", `cat >/dev/null`, "", false},
		{"a body that nobody reads is no failure", `exit 0`, "", false},
		{"another exit code is a failure with the last line of standard error",
			`echo first >&2; echo "the reason" >&2; exit 3`, "exit status 3: the reason", false},
		{"a last line without a line feed counts", `printf why >&2; exit 4`, "exit status 4: why", false},
		{"an exit code is no signal", `exit 137`, "exit status 137", false},
		{"a command that is not there is a failure", `/no/such/command`, "exit status 127", false},
		{"death by a signal is a loss", `echo oops >&2; kill -9 $$`, "signal 9 (killed): oops", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := execOf(t, c.command, Options{})
			err := h.Handle(t.Context(), message("1", strings.Repeat("x", 1<<20)))
			var lost *LostError
			switch {
			case (err == nil) != (c.want == ""), err != nil && !strings.Contains(err.Error(), c.want):
				t.Errorf("Handle = %v, want %q", err, c.want)
			case errors.As(err, &lost) != c.lost:
				t.Errorf("Handle = %v; lost must be %v", err, c.lost)
			}
		})
	}
}

func TestExecGivesBodyAndEnvironment(t *testing.T) {
	t.Setenv("ACKWISE_KEY", "an outer handler's")
	t.Setenv("ACKWISE_HEADER_9", "an outer handler's")
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	d := message("m 1", "the\nbody")
	d.Headers = []ackwise.Header{{Name: "h", Value: []byte("v")}, {Name: "z", Value: []byte{0}}}
	h := execOf(t, `cat; echo; env | grep ^ACKWISE_ | grep -v ^ACKWISE_FAULTS= | sort`,
		Options{Stdout: out, Pipeline: "t/s"})
	if err := h.Handle(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"the", "body", "ACKWISE_ATTEMPT=1", "ACKWISE_CAUSE=first",
		"ACKWISE_DEDUP_KEY=m 1", "ACKWISE_HEADERS=2", "ACKWISE_HEADER_1=v", "ACKWISE_HEADER_1_NAME=h",
		"ACKWISE_HEADER_2_64=AA==", "ACKWISE_HEADER_2_NAME=z", "ACKWISE_ID=m 1",
		"ACKWISE_PIPELINE=t/s", "ACKWISE_REDELIVERED=false", "ACKWISE_TOKEN=token-m 1",
		"ACKWISE_TOPIC=t", ""}
	if lines := strings.Split(string(got), "\n"); !slices.Equal(lines, want) {
		t.Errorf("got %q\nwant %q", lines, want)
	}
}

func TestExecEndsWithItsLease(t *testing.T) {
	h := execOf(t, `trap "" TERM; sleep 100 & wait; sleep 100`, Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ackwise.ErrLeaseLost)
	if err := h.Handle(ctx, message("1", "")); !errors.Is(err, ackwise.ErrLeaseLost) {
		t.Errorf("Handle = %v, want ErrLeaseLost", err)
	}
}

// TestExecTakesItsChildrenAlong: a process that a handler leaves behind ends with it; else this
// test would wait for the sleep.
func TestExecTakesItsChildrenAlong(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := execOf(t, `sleep 1000 & exit 0`, Options{Stdout: w})
	if err := h.Handle(t.Context(), message("1", "")); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if _, err := io.ReadAll(r); err != nil { // ends when nobody holds w any more
		t.Fatal(err)
	}
}

// parent is a process that starts a handler with a child of its own and says so.
func parent() error {
	h, err := Exec(`sleep 1000 & echo started; sleep 1000; wait`, Options{Stdout: os.Stdout})
	if err != nil {
		return err
	}
	_ = os.Unsetenv(modeEnv)
	return h.Handle(context.Background(), message("1", ""))
}

// TestChildrenDieWithTheirParent: after SIGKILL of a process nothing that it had started holds its
// standard output any more.
func TestChildrenDieWithTheirParent(t *testing.T) {
	p := exec.Command(self(t))
	p.Env = append(os.Environ(), modeEnv+"=parent")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout = w
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	out := bufio.NewReader(r)
	if line, err := out.ReadString('\n'); line != "started\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(out); err != nil {
		t.Errorf("a child outlived its parent: %v", err)
	}
}

func TestTail(t *testing.T) {
	var pass bytes.Buffer
	tl := &tail{pass: &pass}
	for _, s := range []string{"one\ntw", "o\n\n  \n", strings.Repeat("x", 5000)} {
		if n, err := tl.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	if got := tl.line(); got != strings.Repeat("x", ackwise.MaxErrorBytes) {
		t.Errorf("line = %d bytes, want %d", len(got), ackwise.MaxErrorBytes)
	}
	_, _ = tl.Write([]byte("\n\xff\n"))
	if got := tl.line(); got != "\uFFFD" {
		t.Errorf("line = %q", got)
	}
	if want := 5000 + len("one\ntwo\n\n  \n\n\xff\n"); pass.Len() != want {
		t.Errorf("passed %d bytes on, want %d", pass.Len(), want)
	}
}

func ExampleExec() {
	h, err := Exec(`cat; echo " from $ACKWISE_ID"`, Options{Stdout: os.Stdout})
	if err != nil {
		panic(err)
	}
	defer h.Close()
	d := &ackwise.Delivery{Message: ackwise.Message{ID: "m-1", Body: []byte("a body")}}
	fmt.Println(h.Handle(context.Background(), d))
	// Output:
	// a body from m-1
	// <nil>
}
