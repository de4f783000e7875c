package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	awslambda "github.com/aws/aws-lambda-go/lambda"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/lambda"
	"github.com/ackwise/ackwise/internal/reach"
	"github.com/ackwise/ackwise/relay"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailed  = 1
	exitUsage   = 2
	exitFinding = 3
)

func main() { os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) }

// run is the command.
func run(args, environ []string, out, said io.Writer) int {
	switch {
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		say(out, "%s", help())
		return exitOK
	case len(args) > 1 || len(args) == 1 && args[0] != "--check":
		say(said, "unknown arguments %q; they are --check or --help, or none in AWS Lambda", args)
		return exitUsage
	}
	c, err := readConfig(environ)
	if len(args) == 1 {
		if err != nil {
			say(said, "%v", err)
			return exitFinding
		}
		say(out, "the environment is right")
		return exitOK
	}
	runtime := os.Getenv("AWS_LAMBDA_RUNTIME_API")
	if runtime == "" {
		say(said, "AWS_LAMBDA_RUNTIME_API is not set: this program runs in AWS Lambda. "+
			"--help lists its variables, --check reads them")
		return exitUsage
	}
	ctx := context.Background()
	var f *lambda.Function
	if err == nil {
		f, err = open(ctx, c, said)
	}
	if err != nil {
		say(said, "%v", err)
		if err := reportInit(ctx, runtime, err); err != nil {
			say(said, "%v", err)
		}
		return exitFailed
	}
	// It never returns: Lambda kills the process. Nothing is open then that a close would save.
	awslambda.StartWithOptions(f)
	return exitFailed
}

// say prints a line. Where nobody can read it, the exit code still says enough.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }

// open opens what the configuration names, and makes the function of it.
func open(ctx context.Context, c *config, said io.Writer) (*lambda.Function, error) {
	c.deliver.Logger = slog.New(slog.NewJSONHandler(said, &slog.HandlerOptions{Level: c.level}))
	to, err := c.openTo(ctx)
	if err != nil {
		return nil, fmt.Errorf("ACKWISE_TO: %w", err)
	}
	o := lambda.Options{Deliver: c.deliver, Again: c.window, DedupLease: c.lease,
		WholeBatch:   c.whole,
		BatchHandler: relay.BatchHandler(to, relay.Options{Transform: c.transform})}
	if c.dead != nil {
		dead, err := c.dead(ctx, c.deliver.Logger)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("ACKWISE_DEAD: %w", err), to.Close())
		}
		o.Deliver.DeadLetters = relay.DeadLetters(dead, c.deliver.Pipeline, relay.Options{})
	}
	if c.dedup != nil {
		if o.Dedup, err = c.dedup(ctx, c.window); err != nil {
			return nil, errors.Join(fmt.Errorf("ACKWISE_DEDUP: %w", err), to.Close())
		}
	}
	return lambda.New(ctx, o)
}

// openPatience bounds the opening of a target that can be opened later: AWS gives a start 10 s.
const openPatience = 5 * time.Second

// openTo opens the target, which may be away for now where there are dead letters: a topic's events
// would be lost with starts that fail, since Lambda discards them after two repeats.
func (c *config) openTo(ctx context.Context) (ackwise.Sink, error) {
	if c.dead == nil {
		return c.to(ctx)
	}
	to, late, err := reach.Open(ctx, func(ctx context.Context) (ackwise.Sink, error) {
		return reach.Within(ctx, openPatience, c.to)
	}, false)
	if late != nil {
		c.deliver.Logger.WarnContext(ctx, "the target does not answer; it is opened later",
			"error", late)
	}
	return to, err
}
