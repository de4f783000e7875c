package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// childEnv makes this test binary a child; its value is a way in which it goes wrong.
const childEnv = "TEST_RUNS_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "silent":
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
	case "closes": // as the killed one never does
		_, _ = io.WriteString(os.Stdout, `{"ready":true}`+"\n")
		os.Exit(0)
	case "dies":
		fmt.Fprintln(os.Stderr, "the child's own words")
		os.Exit(1)
	}
	if err := Child(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func backlogOptions(t *testing.T, kind Kind, n int) BacklogOptions {
	t.Helper()
	if _, err := os.Stat("/proc/self/clear_refs"); err != nil {
		t.Skip("this system has no /proc/self/clear_refs")
	}
	t.Setenv(childEnv, "1")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return BacklogOptions{Child: []string{self}, Kind: kind, Messages: n, Size: 50, Keys: 20,
		Dir: t.TempDir()}
}

func runBacklog(t *testing.T, o BacklogOptions) *Backlog {
	t.Helper()
	r, err := RunBacklog(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if r.FillMiB <= 1 || r.ReopenedMiB <= 1 || r.DrainMiB <= 1 || r.ReopenSeconds <= 0 ||
		r.FillPerSecond <= 0 || r.DiskPeakMiB <= 0 || r.DiskEndMiB <= 0 ||
		r.DiskPeakMiB < r.DiskEndMiB || r.Sent != int64(o.Messages) || r.Kind != o.Kind {
		t.Errorf("got %+v", r)
	}
	return r
}

func TestBacklogComesOutWholeAfterAKill(t *testing.T) {
	phases := map[string]bool{}
	o := backlogOptions(t, KindBacklog, 3000)
	o.Progress = func(what string, done float64) {
		phases[what] = true
		if done <= 0 || done > 1 {
			t.Errorf("progress of %s: %v", what, done)
		}
	}
	r := runBacklog(t, o)
	if r.Received != 3000 || r.Nacked != 30 || r.Released == 0 || r.DrainPerSecond <= 0 ||
		r.HandOuts[ackwise.CauseFailed] != 30 || r.HandOuts[ackwise.CauseReleased] != r.Released {
		t.Errorf("got %+v", r)
	}
	if !phases["fill"] || !phases["drain"] {
		t.Errorf("progress of %v", phases)
	}
}

func TestScheduledMessagesStayAfterAKill(t *testing.T) {
	if r := runBacklog(t, backlogOptions(t, KindScheduled, 1500)); r.Delayed != 1500 {
		t.Errorf("got %+v", r)
	}
}

func TestIDsAreKnownAfterAKill(t *testing.T) {
	r := runBacklog(t, backlogOptions(t, KindIDs, 1500))
	if r.Received != 1500 || r.Suppressed != 1000 {
		t.Errorf("got %+v", r)
	}
}

// A loss, a repeat without a cause, or a count that does not fit is an error.
func TestBacklogIsJudged(t *testing.T) {
	whole := func() *Backlog {
		return &Backlog{Sent: 1000, Received: 1000, Nacked: 10, Released: 2, Delayed: 1000,
			Suppressed: 1000, Dropped: 1000, HandOuts: map[ackwise.Cause]int64{ackwise.CauseFirst: 1000,
				ackwise.CauseFailed: 10, ackwise.CauseReleased: 2}}
	}
	for _, c := range []struct {
		kind  Kind
		spoil func(*Backlog)
		want  string
	}{
		{KindBacklog, func(*Backlog) {}, ""},
		{KindScheduled, func(*Backlog) {}, ""},
		{KindIDs, func(*Backlog) {}, ""},
		{KindKeys, func(*Backlog) {}, ""},
		{KindKeys, func(r *Backlog) { r.Suppressed-- }, "keys known"},
		{KindKeys, func(r *Backlog) { r.Dropped-- }, "keys dropped"},
		{KindBacklog, func(r *Backlog) { r.Sent-- }, "IDs sent: 999"},
		{KindBacklog, func(r *Backlog) { r.Received-- }, "IDs received: 999"},
		{KindBacklog, func(r *Backlog) { r.Nacked-- }, "messages nacked"},
		{KindBacklog, func(r *Backlog) { r.HandOuts[ackwise.CauseFirst]++ }, "first hand-outs"},
		{KindBacklog, func(r *Backlog) { r.HandOuts[ackwise.CauseFailed]++ }, "after a nack"},
		{KindBacklog, func(r *Backlog) { r.HandOuts[ackwise.CauseReleased]-- }, "after a release"},
		{KindScheduled, func(r *Backlog) { r.Delayed-- }, "scheduled messages kept"},
		{KindIDs, func(r *Backlog) { r.Received-- }, "IDs received"},
		{KindIDs, func(r *Backlog) { r.Suppressed-- }, "IDs known"},
	} {
		r := whole()
		c.spoil(r)
		b := &backlogRun{BacklogOptions: BacklogOptions{Kind: c.kind, Messages: 1000}, report: r}
		err := b.judge()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.kind, err, c.want)
		}
	}
}

func TestAChildThatGoesWrongEndsTheRun(t *testing.T) {
	for how, want := range map[string]string{"silent": "said nothing",
		"dies": "the child's own words"} {
		o := backlogOptions(t, KindBacklog, 10)
		if how == "silent" {
			o.Patience = time.Second
		}
		t.Setenv(childEnv, how)
		_, err := RunBacklog(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", how, err)
		}
		if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", how, left, err)
		}
	}
}

func TestAChildThatEndedByItselfWasNotKilled(t *testing.T) {
	o := backlogOptions(t, KindBacklog, 1)
	t.Setenv(childEnv, "closes")
	c := &process{cmd: exec.CommandContext(t.Context(), o.Child[0])}
	if err := c.cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := c.wasKilled(); err == nil {
		t.Error("taken for one that was killed")
	}
}

func TestThePeakOfMemoryIsThatSinceItWasForgotten(t *testing.T) {
	backlogOptions(t, KindBacklog, 1) // skips where there is no /proc
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	c := &process{cmd: &exec.Cmd{Process: self}}
	const large = 64 << 20
	b := make([]byte, large)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	before, err := c.peakMiB()
	if err != nil || before < mib(large) {
		t.Fatalf("the peak is %v MiB, %v, with %v MiB in use", before, err, mib(large))
	}
	runtime.KeepAlive(b) // until here
	debug.FreeOSMemory()
	if err := c.forgetPeak(); err != nil {
		t.Fatal(err)
	}
	if after, err := c.peakMiB(); err != nil || after > before-mib(large)/2 {
		t.Errorf("the peak is %v MiB, %v, after %v MiB were given back", after, err, before)
	}
}

func TestBacklogEndsWithItsContext(t *testing.T) {
	enough := errors.New("enough")
	for _, phase := range []string{"fill", "drain"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		o := backlogOptions(t, KindBacklog, 20_000)
		o.Progress = func(what string, _ float64) {
			if what == phase {
				cancel(enough)
			}
		}
		if _, err := RunBacklog(ctx, o); !errors.Is(err, enough) {
			t.Errorf("%s: got %v", phase, err)
		}
		if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", phase, left, err)
		}
	}
}

func TestBacklogOptionsAreRefusedAllAtOnce(t *testing.T) {
	_, err := RunBacklog(t.Context(), BacklogOptions{Dir: t.TempDir(), Kind: "x", Size: 3, Keys: -1,
		Patience: 1})
	for _, field := range []string{"Child", "Kind", "Messages", "Size", "Keys", "Patience"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

// What a consumer receives is checked message by message.
func TestTheChildRefusesWhatWasNotSent(t *testing.T) {
	c := &child{order: order{Messages: 100, Size: 16, Keys: 7}, body: make([]byte, 16)}
	good := c.message(42)
	if n, err := c.numberOf(&good); n != 42 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	for name, spoil := range map[string]func(*ackwise.Message){
		"another prefix": func(m *ackwise.Message) { m.ID = "x-42" },
		"no number":      func(m *ackwise.Message) { m.ID = idPrefix + "x" },
		"beyond the end": func(m *ackwise.Message) { m.ID = idPrefix + "101" },
		"another body":   func(m *ackwise.Message) { m.Body = c.message(41).Body },
		"a short body":   func(m *ackwise.Message) { m.Body = m.Body[:15] },
	} {
		m := c.message(42)
		spoil(&m)
		if _, err := c.numberOf(&m); err == nil {
			t.Errorf("%s: taken for one that was sent", name)
		}
	}
}

func TestTheChildRefusesAnAckedMessage(t *testing.T) {
	c := &child{order: order{Messages: 10, Size: 8, Keys: 1}, body: make([]byte, 8)}
	tally := tally{ackedOf: newBitmap(10), handOuts: map[ackwise.Cause]int64{}}
	tally.ackedOf.set(4)
	d := &ackwise.Delivery{Message: c.message(4), Cause: ackwise.CauseLeaseExpired}
	err := c.settle(t.Context(), &tally, []*ackwise.Delivery{d}, func(int) bool { return false })
	if err == nil || !strings.Contains(err.Error(), "handed out again") {
		t.Errorf("got %v", err)
	}
}

func TestNackedOfCountsWhatIsNacked(t *testing.T) {
	for n := range 1000 {
		want := int64(0)
		for i := range n {
			if i%nackEvery == nackedRest {
				want++
			}
		}
		if got := nackedOf(int64(n)); got != want {
			t.Fatalf("of %d: got %d, want %d", n, got, want)
		}
	}
}
