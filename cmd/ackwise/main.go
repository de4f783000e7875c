// Command ackwise puts messages into a directory, has each one delivered at least once, in the
// order of its key, through failing handlers and killed processes, and shows at any moment where
// every message is and why it was handed out again.
//
//	ackwise publish --dir DIR --create TOPIC < lines        one message a line
//	ackwise consume --dir DIR --create TOPIC/SUB --exec CMD  one process a message
//
// It promises frozen words and exit codes: 0 ok, 1 failed, 2 usage, 3 finding, 4 partial. Every
// command works on the same directory at the same time as any other, with or without an owner.
// Each command is a file; wire.go is the only one that knows what lies behind a directory. The
// command keeps no state of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/mattn/go-isatty"

	"github.com/ackwise/ackwise/internal/demo"
)

// commands is the command line. A new command is one line here and one file beside.
type commands struct {
	Publish publishCmd `cmd:"" help:"Publish lines, one message each."`
	Consume consumeCmd `cmd:"" help:"Consume a subscription: with a process a message, with one long-lived process, or by printing."`
	Run     runCmd     `cmd:"" help:"Run the pipelines of a file."`
	Peek    peekCmd    `cmd:"" help:"Show messages of a subscription without handing them out."`
	Dead    deadCmd    `cmd:"" help:"Dead letters: list, show, group, drop, export."`
	Redrive redriveCmd `cmd:"" help:"Bring dead letters back to their subscription."`
	Keys    keysCmd    `cmd:"" help:"Keys that are parked behind a dead letter: list, release, skip."`
	Lint    lintCmd    `cmd:"" help:"Check a file of pipelines, and advise on patterns. Exit code 3 on a finding."`
	Audit   auditCmd   `cmd:"" help:"Show the books of every subscription. Exit code 3 where they do not balance."`
	Verify  verifyCmd  `cmd:"" help:"Recompute the state from the log and compare. Exit code 3 on a finding."`
	Migrate migrateCmd `cmd:"" help:"Make or update ackwise's tables in a Postgres database."`
	Bench   benchCmd   `cmd:"" help:"Measure the engine beside a bare log of the same bytes, dedup stores, and what guarantees cost."`
	Demo    demoCmd    `cmd:"" help:"Show the three guarantees on real input while consumers are killed, with measured figures."`
	Version versionCmd `cmd:"" help:"Show the version."`
}

// app is what a command runs with.
type app struct {
	ctx            context.Context // ends with SIGINT or SIGTERM
	in             io.Reader
	out            *os.File
	err            io.Writer
	terminal       bool // err is a terminal
	outputTerminal bool // out is one
	now            func() time.Time
	open           func(ctx context.Context, dir string, create bool) (*directory, error)
}

func main() {
	if code, is := demo.Consumer(); is {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	// A write to a closed pipe is an error to report, not a silent end.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	a := &app{ctx: ctx, in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now,
		terminal:       isatty.IsTerminal(os.Stderr.Fd()),
		outputTerminal: isatty.IsTerminal(os.Stdout.Fd())}
	a.open = a.openDirectory
	os.Exit(a.run(os.Args[1:]))
}

// exitNow is what kong's own ends of the program (--help) are turned into.
type exitNow struct{ code int }

// run parses the arguments, runs the command and returns the exit code.
func (a *app) run(args []string) (code int) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case exitNow:
			code = e.code
		default:
			panic(e)
		}
	}()
	var c commands
	k, err := kong.New(&c, kong.Name("ackwise"), kong.UsageOnError(),
		kong.Description("Deliver every message at least once, in the order of its key, and show why."),
		kong.Writers(a.out, a.err), kong.Exit(func(code int) { panic(exitNow{code}) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.PostBuild(nameEnv))
	if err != nil {
		panic(err) // a fault in the structs above, seen by every test
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := k.Parse(args)
	if err != nil {
		return a.report(usage(err, usageHint(err)))
	}
	return a.report(kctx.Run(a))
}

// nameEnv lets every flag be given by the environment: --dir as ACKWISE_DIR, the others with their
// command's name, such as ACKWISE_CONSUME_LEASE, where a command that may be left out may be left
// out too. (ACKWISE_KEY and the like are what a handler process is told about its message.)
func nameEnv(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		n, ok := node.(*kong.Node)
		if !ok {
			return next(nil)
		}
		for _, f := range n.Flags {
			if f.Name == "help" {
				continue
			}
			names := []string{n.FullPath() + " " + f.Name}
			switch {
			case f.Name == "dir":
				names = []string{"ackwise dir"}
			case n.Parent != nil && n.Parent.DefaultCmd == n:
				names = append(names, n.Parent.FullPath()+" "+f.Name)
			}
			for i, name := range names {
				names[i] = strings.ToUpper(strings.NewReplacer(" ", "_", "-", "_").Replace(name))
			}
			f.Envs, f.Tag.Envs = names, names
		}
		return next(nil)
	})
}

// dirFlag is the directory that nearly every command works on.
type dirFlag struct {
	Dir string `required:"" placeholder:"DIR" help:"The data directory."`
}

type jsonFlag struct {
	JSON bool `name:"json" help:"Print JSON instead of a table."`
}

func usageHint(err error) string {
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if n := parse.Context.Selected(); n != nil {
			return fmt.Sprintf("see ackwise %s --help", n.Path())
		}
	}
	return "see ackwise --help"
}
