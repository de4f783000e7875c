package lambdahost_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise/test/lambdahost"
)

func host(t *testing.T, o lambdahost.Options, mode string) *lambdahost.Host {
	t.Helper()
	o.Command = []string{os.Args[0]}
	o.Env = append(o.Env, "LAMBDAHOST_TEST_FUNCTION="+mode)
	h, err := lambdahost.New(o)
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

func invoke(t *testing.T, h *lambdahost.Host, event string) string {
	t.Helper()
	out, err := h.Invoke(t.Context(), []byte(event))
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// TestProcessIsKept: "the execution environment [is frozen] … If the function is invoked again,
// Lambda thaws the environment for reuse" (lambda/latest/dg/lambda-runtime-environment.html): one
// process gets one event after the other, and an error does not end it.
func TestProcessIsKept(t *testing.T) {
	t.Parallel()
	h := host(t, lambdahost.Options{}, "on")
	for _, c := range [][2]string{{`"process"`, "1"}, {`{"a":1}`, `{"a":1}`},
		{`"fail"`, "Broken: the target is away"}, {`"process"`, "1"},
		{`"exit"`, "Runtime.ExitError: the process ended: exit status 4"}, {`"process"`, "2"}} {
		if got := invoke(t, h, c[0]); got != c[1] {
			t.Errorf("%s is answered %s, want %s", c[0], got, c[1])
		}
	}
	if n := h.Starts(); n != 2 {
		t.Errorf("%d processes were started, want 2", n)
	}
}

// TestTimeout: "When the timeout is reached, Lambda stops the function invocation"
// (lambda/latest/dg/configuration-timeout.html), and the environment is not used again.
func TestTimeout(t *testing.T) {
	t.Parallel()
	h := host(t, lambdahost.Options{Timeout: 5 * time.Second}, "on")
	if got := invoke(t, h, `"hang"`); got != "Sandbox.Timedout: Task timed out after 5.00 seconds" {
		t.Errorf("a function that hangs is answered %s", got)
	}
	if got := invoke(t, h, `"process"`); got != "2" {
		t.Errorf("the next event went to process %s, want a new one", got)
	}
}

func TestInitError(t *testing.T) {
	t.Parallel()
	h := host(t, lambdahost.Options{}, "init")
	got := invoke(t, h, `1`)
	if !strings.HasPrefix(got, "Runtime.InitError: ") || !strings.Contains(got, "ACKWISE_TO") {
		t.Errorf("a process that cannot start is answered %s", got)
	}
}

// TestKill kills a process with an event in flight: the invocation fails, and the next one gets a
// new process.
func TestKill(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	seen := make(chan struct{})
	h := host(t, lambdahost.Options{Log: notice{&log, seen}}, "on")
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := invoke(t, h, `"hang"`); !strings.Contains(got, "signal: killed") {
			t.Errorf("the killed event is answered %s", got)
		}
	})
	<-seen
	if n := h.Kill(); n != 1 {
		t.Errorf("%d events were in flight, want 1", n)
	}
	wg.Wait()
	if got := invoke(t, h, `"process"`); got != "2" {
		t.Errorf("the next event went to process %s", got)
	}
	if n := h.Kill(); n != 0 {
		t.Errorf("%d events were in flight, want none", n)
	}
	if got := invoke(t, h, `"process"`); got != "3" {
		t.Errorf("the next event went to process %s", got)
	}
}

// notice is a log that says when it gets the first line.
type notice struct {
	log  *bytes.Buffer
	seen chan struct{}
}

func (n notice) Write(p []byte) (int, error) {
	if n.log.Len() == 0 {
		close(n.seen)
	}
	return n.log.Write(p)
}

// TestOneEventAtATime: each process has one event in flight, and Processes bounds them.
func TestOneEventAtATime(t *testing.T) {
	t.Parallel()
	h := host(t, lambdahost.Options{Processes: 2, Timeout: 5 * time.Second}, "on")
	var wg sync.WaitGroup
	var mu sync.Mutex // guards procs
	procs := map[string]bool{}
	for range 2 {
		wg.Go(func() { invoke(t, h, `"hang"`) })
	}
	for range 8 {
		wg.Go(func() {
			got := invoke(t, h, `"process"`)
			mu.Lock()
			defer mu.Unlock()
			procs[got] = true
		})
	}
	wg.Wait()
	if n := h.Starts(); n > 4 {
		t.Errorf("%d processes for 2 events at once, 2 of which timed out", n)
	}
	for p := range procs {
		if len(p) != 1 {
			t.Errorf("an event was answered %s", p)
		}
	}
}

func TestClosedAndCancelled(t *testing.T) {
	t.Parallel()
	h := host(t, lambdahost.Options{}, "on")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Invoke(ctx, []byte(`"hang"`)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled event: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Invoke(t.Context(), []byte(`1`)); !errors.Is(err, lambdahost.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := lambdahost.New(lambdahost.Options{}); err == nil {
		t.Error("a host without a command was made")
	}
}

// A mapping and a host take the place of Lambda; here the function is one of Go.
func ExampleMapping() {
	ctx, cancel := context.WithCancel(context.Background())
	function := func(_ context.Context, event []byte) ([]byte, error) {
		fmt.Println(string(event))
		cancel()
		return []byte(`{"batchItemFailures":[]}`), nil
	}
	m := lambdahost.Mapping{Report: true, Invoke: function}
	shards := lambdahost.Fixed{"shard-1": {{Sequence: "1", Data: []byte(`{"eventID":"e1"}`)}}}
	fmt.Println(m.RunStream(ctx, shards))
	// Output:
	// {"Records":[{"eventID":"e1"}]}
	// <nil>
}

// A host runs a bootstrap; this one ends at once.
func ExampleNew() {
	h, err := lambdahost.New(lambdahost.Options{Command: []string{"false"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close()
	_, err = h.Invoke(context.Background(), []byte(`{"Records":[]}`))
	fmt.Println(err)
	// Output: Runtime.InitError: the process ended: exit status 1
}
