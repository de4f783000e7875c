package patterns

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 1, "seed of the random choices")

// consumerVar makes this test binary a consumer; its value is an assignment.
const consumerVar = "PATTERNS_TEST_CONSUMER"

// assignment is what a consumer process is to do.
type assignment struct {
	Pattern string
	Backend string
	Where   string // the backend's address
	Name    string // of the store or table
}

func TestMain(m *testing.M) {
	if text, is := os.LookupEnv(consumerVar); is {
		if err := consume(text); err != nil {
			fmt.Fprintln(os.Stderr, "consumer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// consume is the whole of a consumer process.
func consume(text string) (err error) {
	var a assignment
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return fmt.Errorf("read the assignment: %w", err)
	}
	ctx := context.Background()
	if a.Pattern == patternTransaction {
		return transactions(ctx, a)
	}
	b := backendOf(a.Backend)
	opened, err := b.open(ctx, a.Where, a.Name)
	if err != nil {
		return err
	}
	c := &consumer{process: true, out: os.Stdout}
	p := patternOf(a.Pattern)
	if c.handle, err = p.handler(ctx, c, opened); err != nil {
		return err
	}
	if err := c.serve(ctx, os.Stdin); err != nil {
		return err
	}
	return opened.close()
}

// goroutine starts a consumer in this process, on a store that others share.
func goroutine(t *testing.T, p *pattern, on *opened) *member {
	t.Helper()
	hisIn, myIn := io.Pipe()
	myOut, hisOut := io.Pipe()
	c := &consumer{out: hisOut, kill: func() {
		_ = hisIn.Close() // never fails
		_ = hisOut.Close()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	if c.handle, err = p.handler(ctx, c, on); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { // ends with its input, or its death; wait waits
		err := c.serve(ctx, hisIn)
		_ = hisOut.Close()
		done <- err
	}()
	return &member{in: myIn, out: myOut, holds: map[int]*order{}, wait: func() error {
		defer cancel()
		return <-done
	}}
}

// lease is how long a claim of a consumer that died is held. On a busy machine one may run out in a
// living consumer too: that is a takeover as well, and counted.
const lease = 500 * time.Millisecond
