package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/internal/lockfile"
)

const (
	// pulses is how many signs of life an owner is asked for in WaitOwner.
	pulses = 5
	// maxIdle bounds the idle connections to an owner.
	maxIdle = 16
	// maxTries bounds how often a call is sent to one owner that lives but breaks the connection.
	maxTries = 10
	// maxProblem bounds what is read of an error.
	maxProblem = 1 << 20
)

// link is the connection to one owner, for as long as that owner serves.
type link struct {
	info     lockfile.Info
	http     *http.Client
	features ackwise.SinkFeatures
	own      *ownership // the store, where this process is the owner
	down     chan struct{}
	cancel   context.CancelFunc // ends the watch
	watching sync.WaitGroup

	silent bool            // no sign of life for WaitOwner; guarded by Client.mu
	live   context.Context // ends when silent becomes true; guarded by Client.mu
	quiet  context.CancelCauseFunc
}

// gone reports whether the owner is. The client forgets the link a moment later.
func (l *link) gone() bool {
	select {
	case <-l.down:
		return true
	default:
		return false
	}
}

// dial links to the owner that info names. An owner that nobody listens for is errNoOwner.
func (c *Client) dial(info lockfile.Info) (*link, error) {
	var d net.Dialer
	t := &http.Transport{MaxIdleConnsPerHost: maxIdle, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", info.Socket)
		}}
	l := &link{info: info, http: &http.Client{Transport: t}, down: make(chan struct{})}
	l.live, l.quiet = context.WithCancelCause(context.Background())
	ctx, cancel := context.WithCancel(c.ctx)
	l.cancel = cancel
	greeting := time.AfterFunc(c.opt.WaitOwner, cancel)
	body, err := l.stream(ctx, wire.Owner,
		wire.Hello{PulseMillis: max(1, c.opt.WaitOwner.Milliseconds()/pulses)})
	if err == nil {
		var w wire.Welcome
		if err = body.line(&w); err == nil && greeting.Stop() {
			l.features = w.Features
			l.watching.Go(func() { c.watch(l, body) }) // ends when the owner stops, or with close
			return l, nil
		}
		body.close()
	}
	greeting.Stop()
	timedOut := ctx.Err() != nil && c.ctx.Err() == nil
	cancel()
	t.CloseIdleConnections()
	switch {
	case timedOut:
		return nil, errors.Join(errNoOwner, err)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("call the owner (%s): %w", info, err)
	}
	return nil, errors.Join(errNoOwner, err)
}

// unlink forgets the link and, in the owner, closes the store.
func (c *Client) unlink(l *link) error {
	l.cancel()
	l.watching.Wait()
	l.http.CloseIdleConnections()
	err := l.own.close()
	c.mu.Lock()
	quiet := l.quiet
	c.mu.Unlock()
	quiet(errNoOwner)
	return err
}

// watch reads the owner's signs of life until there will be no more.
func (c *Client) watch(l *link, body *stream) {
	timer := time.AfterFunc(c.opt.WaitOwner, func() { c.setSilent(l, true) })
	for {
		if _, err := body.r.ReadSlice('\n'); err != nil {
			break
		}
		timer.Reset(c.opt.WaitOwner)
		c.setSilent(l, false)
	}
	timer.Stop()
	body.close()
	close(l.down)
}

// setSilent notes that the owner has fallen silent, which ends the calls that wait for it, or that
// it is back.
func (c *Client) setSilent(l *link, silent bool) {
	c.mu.Lock()
	was := l.silent
	l.silent = silent
	if was && !silent {
		l.live, l.quiet = context.WithCancelCause(context.Background())
		c.broadcast()
	}
	quiet := l.quiet
	c.mu.Unlock()
	if silent && !was {
		err := c.noAnswer()
		c.opt.Logger.Warn("the owner does not answer", "dir", c.dir, "error", err)
		quiet(err)
	}
}

// post sends one call and reads its answer into resp. A *brokenError is an answer that did not
// arrive; anything else is what the owner said.
func (t target) post(ctx context.Context, name wire.Call, req, resp any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.live, cancel)()
	res, err := t.send(ctx, name, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return &brokenError{err: err}
	}
	if err := json.Unmarshal(b, resp); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// send sends a call; an answer other than success is turned into its error.
func (l *link) send(ctx context.Context, name wire.Call, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost,
		"http://owner"+wire.Prefix+string(name), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call the owner: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := l.http.Do(req)
	if err != nil {
		return nil, &brokenError{err: err}
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	var p wire.Problem
	b, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil {
		return nil, &brokenError{err: err}
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("call the owner: %s: %.200q", res.Status, b)
	}
	return nil, p.Err()
}

// stream is an answer that stays open.
type stream struct {
	r     *bufio.Reader
	close func()
}

// stream sends a call whose answer stays open until ctx ends.
func (l *link) stream(ctx context.Context, name wire.Call, req any) (*stream, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("write request: %w", err)
	}
	res, err := l.send(ctx, name, b) //nolint:bodyclose // stream.close closes it
	if err != nil {
		return nil, err
	}
	return &stream{r: bufio.NewReader(res.Body), close: func() { _ = res.Body.Close() }}, nil
}

// line reads a stream's first line.
func (s *stream) line(into any) error {
	b, err := s.r.ReadBytes('\n')
	if err != nil {
		return &brokenError{err: err}
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

// call carries out one call at whoever owns the directory, sending it again where the answer did
// not arrive. tries counts how often it was sent.
func (c *Client) call(ctx context.Context, name wire.Call, req, resp any) (tries int, err error) {
	for try := 1; ; try++ {
		t, err := c.current(ctx)
		if err != nil {
			return try - 1, err
		}
		if err = t.post(ctx, name, req, resp); err == nil {
			return try, nil
		}
		if err = c.again(ctx, t, try, err); err != nil {
			return try, err
		}
	}
}

// again decides about a call that ended with err: nil = send it again, now. Otherwise the error is
// the call's.
func (c *Client) again(ctx context.Context, t target, try int, err error) error {
	var broken *brokenError
	wait := c.opt.WaitOwner
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("call the owner: %w", ctx.Err())
	case errors.Is(err, wire.ErrHandingOver), errors.Is(err, wire.ErrNoSession):
	case !errors.As(err, &broken):
		return err
	case t.live.Err() != nil:
		if cause := context.Cause(t.live); !errors.Is(cause, errNoOwner) {
			return cause
		}
	case try >= maxTries:
		return err
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		// Nobody listens: the owner is gone, which the watch is about to notice.
	default:
		// The connection broke. Either its owner is gone, which the watch is about to notice, or
		// only the connection, and the call is sent there once more.
		wait = min(firstPause<<try, lastPause)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-t.gone:
	case <-timer.C:
		if broken == nil {
			return err
		}
	case <-ctx.Done():
		return fmt.Errorf("call the owner: %w", ctx.Err())
	}
	return nil
}
