package adaptertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
)

// The variables that make a test binary a consumer.
const (
	childHarness = "ACKWISE_ADAPTERTEST_HARNESS"
	childAddress = "ACKWISE_ADAPTERTEST_ADDRESS"
	childSetup   = "ACKWISE_ADAPTERTEST_SETUP"
)

// Main runs the tests and returns what TestMain exits with; in a process that Run has started from
// the test binary it is the consumer instead. It gets every harness of the package that Run gets.
func Main(m *testing.M, harnesses ...Harness) int {
	name := os.Getenv(childHarness)
	if name == "" {
		return m.Run()
	}
	i := slices.IndexFunc(harnesses, func(h Harness) bool { return h.Name == name })
	if i < 0 {
		fmt.Fprintf(os.Stderr, "the harness %q is not among those that TestMain gives to Main\n", name)
		return 2
	}
	if err := beConsumer(&harnesses[i]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func beConsumer(h *Harness) error {
	var s setup
	if err := json.Unmarshal([]byte(os.Getenv(childSetup)), &s); err != nil {
		return fmt.Errorf("read the consumer's setup: %w", err)
	}
	ctx := context.Background()
	src, err := h.OpenSource(ctx, os.Getenv(childAddress))
	if err != nil {
		return fmt.Errorf("open the source: %w", err)
	}
	c := newConsumer(src, h.Undo, os.Stdout)
	c.die = func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	return c.run(ctx, s, os.Stdin)
}
