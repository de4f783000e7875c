package process

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// modeEnv makes this test binary a handler process of one of the modes below.
const modeEnv = "PROCESS_TEST_MODE"

func TestMain(m *testing.M) {
	mode := os.Getenv(modeEnv)
	if mode == "" {
		os.Exit(m.Run())
	}
	if err := helper(mode); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(9)
	}
}

// helper is the handler process. Bodies tell it what to do.
func helper(mode string) error {
	switch mode {
	case "parent":
		return parent()
	case "ends":
		return fmt.Errorf("cannot start")
	case "deaf": // answers nothing, reads nothing, ends with SIGKILL only
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		for range c {
		}
	case "closed":
		_ = os.Stdout.Close()
		_, _ = io.Copy(io.Discard, os.Stdin)
		return nil
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 8<<20)
	var log = io.Discard
	if path := os.Getenv("PROCESS_TEST_LOG"); path != "" {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		log = f
	}
	for in.Scan() {
		fmt.Fprintf(log, "%s\n", in.Bytes())
		l, err := ParseLine(in.Bytes())
		if err != nil {
			return err
		}
		if l.Stop {
			return nil
		}
		if l.Delivery != nil {
			obey(l.Delivery)
		}
	}
	return in.Err()
}

// obey does what a body says.
func obey(d *ackwise.Delivery) {
	answer := func(a Answer) {
		a.Token = d.Token
		_, _ = os.Stdout.Write(AppendAnswer(nil, a))
	}
	word, rest, _ := strings.Cut(string(d.Body), " ")
	switch word {
	case "die":
		fmt.Fprintln(os.Stderr, "dying of "+d.ID)
		os.Exit(7)
	case "last": // answer, then end
		answer(Answer{Outcome: Done})
		os.Exit(0)
	case "silent":
	case "print":
		fmt.Println(rest)
		answer(Answer{Outcome: Done})
	case "raw":
		fmt.Println(strings.ReplaceAll(rest, "TOKEN", string(d.Token)))
	case "twice":
		answer(Answer{Outcome: Done})
		answer(Answer{Outcome: Done})
	default:
		answer(Answer{Outcome: word, Reason: rest})
	}
}

// patience is a Grace that a child needs only on a machine that is very busy.
const patience = 10 * time.Second

// pipeTo starts a PipeHandler on this binary in a mode.
func pipeTo(t *testing.T, mode string, o Options) (*PipeHandler, *reports) {
	t.Helper()
	t.Setenv(modeEnv, mode)
	t.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")) // a child ends without its pause
	r := &reports{}
	o.Report = r.add
	if o.Grace == 0 {
		o.Grace = 200 * time.Millisecond
	}
	if o.RestartMin == 0 {
		o.RestartMin = time.Millisecond
	}
	h, err := Pipe("exec "+self(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, r
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// message is a delivery with a body.
func message(id, body string) *ackwise.Delivery {
	return &ackwise.Delivery{Message: ackwise.Message{ID: id, Topic: "t", Body: []byte(body)},
		Attempt: 1, Cause: ackwise.CauseFirst, Token: ackwise.LeaseToken("token-" + id)}
}

// reports collects what a handler reports.
type reports struct {
	mu   sync.Mutex // guards all
	all  []string
	want string
	seen chan struct{}
}

func (r *reports) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, text)
	if r.seen != nil && strings.Contains(text, r.want) {
		close(r.seen)
		r.seen = nil
	}
}

// await waits for a report that holds a text.
func (r *reports) await(t *testing.T, want string) {
	t.Helper()
	r.mu.Lock()
	for _, text := range r.all {
		if strings.Contains(text, want) {
			r.mu.Unlock()
			return
		}
	}
	seen := make(chan struct{})
	r.want, r.seen = want, seen
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	select {
	case <-seen:
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		t.Fatalf("no report holds %q; there are %q", want, r.all)
	}
}
