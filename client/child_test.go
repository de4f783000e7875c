package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// Names that the tests use.
const (
	topic = "orders"
	sub   = "billing"
)

// roleVar makes the test binary a child that does what its roles say on the directory dirVar.
const (
	roleVar = "ACKWISE_CLIENT_ROLE"
	dirVar  = "ACKWISE_CLIENT_DIR"
	nameVar = "ACKWISE_CLIENT_NAME"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		if err := playRole(role, os.Getenv(dirVar), os.Getenv(nameVar)); err != nil {
			fmt.Fprintln(os.Stderr, role, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playRole runs until standard input ends.
func playRole(role, dir, name string) error {
	ctx, cancel := context.WithCancel(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() { // ends with standard input
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	})
	c, err := client.Open(ctx, dir, client.Options{Serve: server.Local})
	if err != nil {
		return unlessAsked(ctx, err) // the process ends, and with it the reading
	}
	say("ready", strconv.FormatBool(c.Owner()))
	switch role {
	case "publish":
		err = publishing(ctx, c, name)
	case "consume":
		err = consuming(ctx, c)
	case "hold":
		err = holding(ctx, c)
	case "claim":
		err = claiming(ctx, c)
	case "idle":
		<-ctx.Done()
	}
	reading.Wait()
	return errors.Join(unlessAsked(ctx, err), c.Close())
}

// unlessAsked lets pass the end of a child that was asked to leave while it was still opening.
func unlessAsked(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// say writes one line in one write: what, its time, and the rest.
func say(what, rest string) {
	_, _ = fmt.Fprintf(os.Stdout, "%s %d %s\n", what, time.Now().UnixNano(), rest)
}

// publishing publishes batches of ordered keys and says each ID once it is accepted.
func publishing(ctx context.Context, c *client.Client, name string) error {
	for n := 0; ctx.Err() == nil; {
		ms := make([]ackwise.Message, 1+n%7)
		for i := range ms {
			key := fmt.Sprintf("%s.%d", name, n%5)
			ms[i] = ackwise.Message{ID: fmt.Sprintf("%s/%d", key, n), Topic: topic, Key: key,
				Body: []byte(strconv.Itoa(n))}
			n++
		}
		for _, r := range c.Publish(context.WithoutCancel(ctx), ms) {
			if r.Class != ackwise.ResultAccepted {
				return fmt.Errorf("publish %s: %w", r.ID, r.Err)
			}
			say("published", r.ID)
		}
	}
	return nil
}

// consuming acks what it gets, and says both.
func consuming(ctx context.Context, c *client.Client) error {
	r, err := c.Receiver(ctx, topic, sub, queue.ReceiverOptions{})
	if err != nil {
		return err
	}
	for {
		ds, err := r.Receive(ctx, 20)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		ss := make([]ackwise.Settlement, len(ds))
		for i, d := range ds {
			ss[i].Token = d.Token
			say("got", d.ID+" "+d.Cause.String())
		}
		for i, res := range r.Settle(context.WithoutCancel(ctx), ss) {
			if res.Err != nil {
				return fmt.Errorf("ack %s: %w", ds[i].ID, res.Err)
			}
			say("acked", ds[i].ID)
		}
	}
}

// holding receives one delivery and holds it.
func holding(ctx context.Context, c *client.Client) error {
	r, err := c.Receiver(ctx, topic, sub, queue.ReceiverOptions{})
	if err != nil {
		return err
	}
	ds, err := r.Receive(ctx, 1)
	if err != nil {
		return err
	}
	say("got", ds[0].ID+" "+ds[0].Cause.String())
	<-ctx.Done()
	return nil
}

// said is one line of a child.
type said struct {
	what string
	at   int64
	rest string
}

// child is a running process of this test binary.
type child struct {
	role string
	cmd  *exec.Cmd
	in   io.Closer
	done chan struct{} // closed when it ended and all it said is in the record
	err  error
	end  sync.Once
}

// record is everything that children said.
type record struct {
	mu      sync.Mutex // guards the fields below
	lines   []said
	changed chan struct{}
}

func newRecord() *record { return &record{changed: make(chan struct{})} }

func (r *record) add(s said) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, s)
	close(r.changed)
	r.changed = make(chan struct{})
}

// count counts the lines of a kind.
func (r *record) count(what string) (int, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, s := range r.lines {
		if s.what == what {
			n++
		}
	}
	return n, r.changed
}

// rests returns what the lines of a kind said.
func (r *record) rests(what string) (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.lines {
		if s.what == what {
			all = append(all, s.rest)
		}
	}
	return all
}

// wait waits until n lines of a kind are there.
func (r *record) wait(t *testing.T, what string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		have, changed := r.count(what)
		if have >= n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("waited for %d × %q, there are %d", n, what, have)
		}
	}
}

// start starts a child that is ended with the test at the latest.
func (r *record) start(t *testing.T, role, dir, name string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	k := &child{role: role, cmd: exec.Command(exe), done: make(chan struct{})}
	k.cmd.Env = append(os.Environ(), roleVar+"="+role, dirVar+"="+dir, nameVar+"="+name)
	k.cmd.Stderr = os.Stderr
	in, err := k.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := k.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k.in = in
	go func() { // ends with the child
		defer close(k.done)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			what, rest, _ := strings.Cut(lines.Text(), " ")
			at, rest, ok := strings.Cut(rest, " ")
			if ns, err := strconv.ParseInt(at, 10, 64); ok && err == nil {
				r.add(said{what: what, at: ns, rest: rest})
			}
		}
		k.err = k.cmd.Wait()
	}()
	t.Cleanup(func() { k.signal(syscall.SIGKILL) })
	return k
}

// signal sends a signal; after SIGKILL it waits for the child's end.
func (k *child) signal(sig syscall.Signal) {
	select {
	case <-k.done:
		return
	default:
	}
	_ = k.cmd.Process.Signal(sig)
	if sig == syscall.SIGKILL {
		<-k.done
	}
}

// leave asks the child to end in good order and waits for it.
func (k *child) leave(t *testing.T) {
	t.Helper()
	k.end.Do(func() { _ = k.in.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case <-k.done:
	case <-ctx.Done():
		t.Fatalf("the child %s did not end", k.role)
	}
	if k.err != nil {
		t.Errorf("the child %s: %v", k.role, k.err)
	}
}
