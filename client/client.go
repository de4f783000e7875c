// Package client uses a directory of package queue together with other processes: the one that owns
// it serves it on a Unix socket, all others call there, and when the owner ends, however it ends,
// one of them becomes the owner and everybody goes on.
//
//	process A: Client ─┐            ┌─ Client: process B
//	                   ▼            ▼
//	             DIR/socket ─▶ server ─▶ queue.Store   (in A, which holds DIR/LOCK)
//	                   A is killed: B takes DIR/LOCK, opens, serves; the others reconnect
//
// It promises that a call cut off by such a hand-over is sent again and takes effect once: messages
// get their IDs before they are first sent, settlements carry tokens, transactions carry an ID.
// Each Receiver is a session that keeps its leases across hand-overs, and ends as consumer-lost as
// soon as its process does. The exceptions are written at the methods that have them; producer
// dedup is needed for the promise, so a topic with queue.NoDedup may keep a message twice.
//
// It does not reach other machines, and does not serve: Options.Serve is server.Local in a program
// that may own the directory, so that this package needs the standard library only.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/queue"
)

// Options configure a Client. The zero value is a client that never owns the directory.
type Options struct {
	// Create makes the directory where it is missing. Default: false, a missing one is an error.
	Create bool
	// Store configures the store where this process becomes its owner.
	Store queue.Options
	// Serve serves the store on the directory's socket until it is closed: server.Local. Without it
	// this process never becomes the owner. Default: nil.
	Serve func(*queue.Store) (io.Closer, error)
	// WaitOwner is how long a call waits for an owner that does not answer, or for a new one.
	// Default: 10 s.
	WaitOwner time.Duration
	// Logger gets what an operator should see: hand-overs and their reasons. Default: nothing.
	Logger *slog.Logger
}

const (
	// firstPause and lastPause bound the growing pause between two looks for an owner.
	firstPause = 2 * time.Millisecond
	lastPause  = 100 * time.Millisecond
	// faultPause is the pause after a store that could not be opened here.
	faultPause = time.Second
)

func (o Options) withDefaults() Options {
	if o.WaitOwner == 0 {
		o.WaitOwner = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Client is a directory shared with other processes. It has the methods of a queue.Store and is
// safe for concurrent use.
type Client struct {
	dir     string
	opt     Options
	process string

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // the goroutine that looks after the link
	once    sync.Once
	closed  error

	mu        sync.Mutex // guards the fields below, and the silent, live and quiet of link
	link      *link      // to the present owner; nil = there is none (yet)
	fault     error      // why there will be no link without somebody's help; nil = wait
	features  ackwise.SinkFeatures
	changed   chan struct{} // closed and replaced at each change of the link
	receivers map[*Receiver]struct{}
}

// Open opens dir: as its owner if it has none and o.Serve is set, else as a client of its owner.
// An owner that does not answer within o.WaitOwner is an *OwnerError that names the process.
func Open(ctx context.Context, dir string, o Options) (*Client, error) {
	c := &Client{dir: dir, opt: o.withDefaults(), process: lockfile.ProcessID(0),
		changed: make(chan struct{}), receivers: map[*Receiver]struct{}{}}
	if err := c.checkDir(); err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.running.Go(c.run) // ends with Close
	if _, err := c.current(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open directory %s: %w", dir, err), c.Close())
	}
	return c, nil
}

// checkDir refuses a directory that only Options.Create may make.
func (c *Client) checkDir() error {
	if c.opt.Create {
		return nil
	}
	entries, err := os.ReadDir(c.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("open directory: %w", err)
	case err != nil:
		return fmt.Errorf("open directory: %w", err)
	case len(entries) > 0:
		return nil
	default:
		err = fmt.Errorf("open directory %s: it is empty", c.dir)
	}
	return &ackwise.HintError{Err: err, Hint: "check the path, or ask for it to be created"}
}

// Close closes the client's receivers, then gives the directory up if this process owns it.
func (c *Client) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		rs := make([]*Receiver, 0, len(c.receivers))
		for r := range c.receivers {
			rs = append(rs, r)
		}
		c.mu.Unlock()
		errs := make([]error, len(rs))
		var closing sync.WaitGroup
		for i, r := range rs {
			closing.Go(func() { errs[i] = r.Close() }) // ends within WaitOwner
		}
		closing.Wait()
		c.cancel()
		c.running.Wait()
		c.closed = errors.Join(append(errs, c.closed)...)
	})
	return c.closed
}

// Dir returns the directory.
func (c *Client) Dir() string { return c.dir }

// Owner reports whether this process owns the directory at this moment.
func (c *Client) Owner() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.link != nil && c.link.own != nil
}

// run keeps the client linked to whoever owns the directory, which may become this process.
func (c *Client) run() {
	for linked := false; c.ctx.Err() == nil; linked = true {
		l := c.connect(linked)
		if l == nil {
			return
		}
		c.opt.Logger.Info("linked to the directory's owner", "dir", c.dir, "owner", l.info.PID,
			"here", l.own != nil)
		c.set(l, nil)
		select {
		case <-l.down:
		case <-c.ctx.Done():
		}
		c.set(nil, nil)
		if err := c.unlink(l); err != nil && c.ctx.Err() != nil {
			c.closed = err // read after running.Wait
		} else if err != nil {
			c.opt.Logger.Error("the store has stopped", "dir", c.dir, "error", err)
		}
	}
}

// connect looks for an owner, or becomes it, until it has a link; nil = the client was closed. What
// is wrong at the first time is Open's to tell; later, nobody may be asking.
func (c *Client) connect(again bool) *link {
	said := ""
	for delay := firstPause; ; delay = min(2*delay, lastPause) {
		l, err := c.tryConnect()
		switch {
		case err == nil:
			return l
		case c.ctx.Err() != nil:
			return nil
		case !errors.Is(err, errNoOwner):
			if text := err.Error(); again && text != said {
				c.opt.Logger.Error("cannot own the directory, or reach its owner", "dir", c.dir,
					"error", err)
				said = text
			}
			c.set(nil, err)
			delay = faultPause
		}
		if !pause.For(c.ctx, delay) {
			return nil
		}
	}
}

// tryConnect becomes the owner if the directory is free, and links to the owner. An error that is
// errNoOwner passes by itself.
func (c *Client) tryConnect() (*link, error) {
	own, err := c.tryOwn()
	if err != nil {
		return nil, err
	}
	info, err := lockfile.Read(c.dir)
	if err == nil && info.Socket == "" {
		err = errNoOwner
	}
	var l *link
	if err == nil {
		l, err = c.dial(info)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoOwner
	}
	if err != nil {
		return nil, errors.Join(err, own.close())
	}
	l.own = own
	return l, nil
}

// ownership is the store that this process owns and serves.
type ownership struct {
	store  *queue.Store
	server io.Closer
}

// tryOwn opens and serves the store; nil = another process owns it, or Options.Serve is not set.
func (c *Client) tryOwn() (*ownership, error) {
	if c.opt.Serve == nil {
		return nil, nil
	}
	store, err := queue.Open(c.dir, c.opt.Store)
	if _, ok := errors.AsType[*queue.LockedError](err); ok {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	server, err := c.opt.Serve(store)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve directory: %w", err), store.Close())
	}
	return &ownership{store: store, server: server}, nil
}

// close stops serving, then closes the store.
func (o *ownership) close() error {
	if o == nil {
		return nil
	}
	return errors.Join(o.server.Close(), o.store.Close())
}

// set tells everybody that waits of a new link, or of why there is none.
func (c *Client) set(l *link, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.fault = l, fault
	if l != nil {
		c.features = l.features
	}
	c.broadcast()
}

// broadcast wakes everybody that waits for the link. The caller holds mu.
func (c *Client) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// target is where a call is sent: to an owner that answers.
type target struct {
	*link
	live context.Context // ends when the owner does not answer any more
	gone <-chan struct{} // closed when what the call is sent to is gone
}

// current waits for a link whose owner answers.
func (c *Client) current(ctx context.Context) (target, error) {
	timer := time.NewTimer(c.opt.WaitOwner)
	defer timer.Stop()
	for {
		if c.ctx.Err() != nil {
			return target{}, ackwise.ErrClosed
		}
		c.mu.Lock()
		l, fault, changed := c.link, c.fault, c.changed
		if l != nil && !l.silent && !l.gone() {
			defer c.mu.Unlock()
			return target{link: l, live: l.live, gone: l.down}, nil
		}
		c.mu.Unlock()
		if fault != nil {
			return target{}, fault
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return target{}, ctx.Err()
		case <-c.ctx.Done():
		case <-timer.C:
			return target{}, c.noAnswer()
		}
	}
}
