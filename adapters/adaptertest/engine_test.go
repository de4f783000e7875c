package adaptertest_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// ownerVariable makes the test binary the owner of a directory.
const ownerVariable = "ACKWISE_ADAPTERTEST_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerVariable); dir != "" {
		if err := own(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The checks wait more than they work. A -parallel of the command line counts all the same.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(adaptertest.Main(m, harnesses()...))
}

func harnesses() []adaptertest.Harness {
	return []adaptertest.Harness{engineHarness("queue ordered", true),
		engineHarness("queue", false), fileHarness(), linesHarness(), streamHarness()}
}

func TestQueue(t *testing.T) { t.Parallel(); adaptertest.Run(t, engineHarness("queue", false)) }
func TestQueueOrdered(t *testing.T) {
	t.Parallel()
	adaptertest.Run(t, engineHarness("queue ordered", true))
}

// patience is more than a busy machine needs.
const patience = time.Minute

const engineLease = 2 * time.Second

// engineHarness is the embedded engine behind its socket: queue://DIR/TOPIC/SUBSCRIPTION. Its server
// is the process that owns the directory; a consumer never does.
func engineHarness(name string, isOrdered bool) adaptertest.Harness {
	source := ackwise.Features{Lease: engineLease, Extend: true,
		MaxNackDelay: 10 * 365 * 24 * time.Hour, Dead: true, Counts: true, Causes: true,
		MaxBatch: 4096}
	if isOrdered {
		source.Order, source.KeyRuns = ackwise.OrderKey, true
	}
	return adaptertest.Harness{
		Name: name, Source: &source,
		Sink: &ackwise.SinkFeatures{KeyRunSafe: true, Dedup: true, MaxBatch: 4096,
			MaxBodyBytes: 1 << 20},
		OpenSource: openReceiver,
		OpenSink: func(ctx context.Context, address string) (ackwise.Sink, error) {
			return client.Open(ctx, cutAddress(address)[0], client.Options{})
		},
		New: func(t *testing.T) *adaptertest.Bed {
			dir := filepath.Join(t.TempDir(), "data")
			o := &owner{dir: dir}
			o.Restart(t)
			t.Cleanup(func() { o.end(t) })
			c, err := client.Open(t.Context(), dir, client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.CreateTopic(t.Context(), "suite", queue.TopicOptions{})
			if err == nil {
				err = c.CreateSubscription(t.Context(), "suite", "sub",
					queue.SubscriptionOptions{Ordered: isOrdered, Lease: engineLease})
			}
			if err != nil {
				t.Fatal(err)
			}
			return &adaptertest.Bed{Source: "queue://" + dir + "/suite/sub",
				Sink: "queue://" + dir + "/suite", Server: o, Patience: patience}
		},
	}
}

// cutAddress returns the directory, the topic and the subscription.
func cutAddress(address string) []string {
	rest := strings.TrimPrefix(address, "queue://")
	dir, topic, _ := strings.Cut(rest, "/suite")
	return []string{dir, "suite", strings.TrimPrefix(topic, "/")}
}

// receiver is a consumer's session with its client.
type receiver struct {
	*client.Receiver
	c *client.Client
}

// Close ends the session, then the client.
func (r *receiver) Close() error { return r.c.Close() }

func openReceiver(ctx context.Context, address string) (ackwise.Source, error) {
	parts := cutAddress(address)
	c, err := client.Open(ctx, parts[0], client.Options{})
	if err != nil {
		return nil, err
	}
	r, err := c.Receiver(ctx, parts[1], parts[2], queue.ReceiverOptions{})
	if err != nil {
		return nil, err
	}
	return &receiver{r, c}, nil
}

// own owns the directory until standard input ends.
func own(dir string) error {
	c, err := client.Open(context.Background(), dir, client.Options{Create: true,
		Serve: server.Local})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return c.Close()
}

// owner is the process that owns a directory.
type owner struct {
	dir string
	cmd *exec.Cmd
	in  io.Closer
}

// Restart starts it.
func (o *owner) Restart(t testing.TB) {
	t.Helper()
	o.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], "-test.run=^$")
	o.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", ownerVariable+"="+o.dir)
	o.cmd.Stderr = os.Stderr
	in, err := o.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := o.cmd.StdoutPipe()
	if err == nil {
		err = o.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	o.in = in
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the owner said %q (%v)", line, err)
	}
}

// Kill kills it.
func (o *owner) Kill(t testing.TB) {
	t.Helper()
	o.signal(t, syscall.SIGKILL)
	_ = o.cmd.Wait()
}

// Freeze stops it where it stands.
func (o *owner) Freeze(t testing.TB) { t.Helper(); o.signal(t, syscall.SIGSTOP) }

// Thaw lets it go on.
func (o *owner) Thaw(t testing.TB) { t.Helper(); o.signal(t, syscall.SIGCONT) }

func (o *owner) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := o.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (o *owner) end(t testing.TB) {
	if o.cmd.ProcessState != nil {
		return
	}
	_ = o.cmd.Process.Signal(syscall.SIGCONT)
	_ = o.in.Close()
	if err := o.cmd.Wait(); err != nil {
		t.Errorf("the owner ended: %v", err)
	}
}
