package postgres_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
)

// childVar makes this test binary a consumer; its value is what it is to do.
const childVar = "TEST_CONSUMES"

// order is what a child is to do.
type order struct {
	Dir     string // of the engine; "" = it reads the outbox "out"
	Address string // of the database
	Hold    int    // outbox: how many messages to receive, and to hold
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childVar); text != "" {
		var o order
		err := json.Unmarshal([]byte(text), &o)
		if err == nil {
			err = o.run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// long reports whether the long form of the fault tests is wanted.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

func (o order) run(ctx context.Context) error {
	pool, err := pgxpool.New(ctx, o.Address)
	if err != nil {
		return err
	}
	if o.Dir == "" {
		return o.hold(ctx, pool)
	}
	store, err := queue.Open(o.Dir, queue.Options{})
	if err != nil {
		return err
	}
	r, err := store.Receiver(ctx, "numbers", "sum", queue.ReceiverOptions{Name: "child"})
	if err != nil {
		return err
	}
	h, err := postgres.Inbox(ctx, postgres.PGX(pool), addNumber, options("in"))
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return deliver.Run(ctx, r, h, deliver.Options{Guarantee: deliver.ExactlyOnce, Concurrency: 3,
		MaxCrashes: deliver.Unlimited})
}

// addNumber adds the number in the body, which is no idempotent effect.
func addNumber(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
	n, err := strconv.ParseInt(string(d.Body), 10, 64)
	if err != nil {
		return ackwise.Reject(err)
	}
	_, err = tx.Exec(ctx, "UPDATE sums SET total = total + $1 WHERE id = 1", n)
	return err
}

// hold reads from the outbox and holds what it got until it is killed.
func (o order) hold(ctx context.Context, pool *pgxpool.Pool) error {
	src, err := postgres.NewOutboxSource(ctx, postgres.PGX(pool),
		postgres.OutboxSourceOptions{Name: "out", Lease: time.Hour})
	if err != nil {
		return err
	}
	for got := 0; got < o.Hold; {
		ds, err := src.Receive(ctx, o.Hold-got)
		if err != nil {
			return err
		}
		got += len(ds)
	}
	fmt.Println("ready")
	select {}
}

// child is a process that consumes.
type child struct{ cmd *exec.Cmd }

// startChild starts one and waits until it is ready.
func startChild(t testing.TB, o order) child {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("the child said %q (%v)", lines.Text(), cmd.Wait())
	}
	return child{cmd}
}

// kill ends it as a crash does.
func (c child) kill(t testing.TB) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait() // it says that it was killed
}
