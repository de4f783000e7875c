package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/queue"
)

const (
	// pollWait is how long one Receive waits at the owner before it is asked anew.
	pollWait = 30 * time.Second
	// keepWait bounds how long a cancelled Receive takes to give back what was on its way.
	keepWait = time.Second
)

// Receiver is a consumer's session on a subscription, an ackwise.Source. The session is this
// process's: it goes on at the next owner with its leases, and ends as consumer-lost when the
// process does.
type Receiver struct {
	c          *Client
	topic, sub string
	opt        queue.ReceiverOptions

	ctx     context.Context // the session: ends with Close and Lost, after their word
	cancel  context.CancelFunc
	asking  context.Context // ends first, with Close and Lost: no more Receives
	hush    context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
	closed  error
	turn    chan struct{} // one slot: a Receive is under way
	doubt   bool          // deliveries may have got lost on their way here; guarded by turn

	mu       sync.Mutex // guards the fields below
	open     *opened    // nil = the session is not open at an owner (yet)
	fault    error      // why it never will be
	changed  chan struct{}
	features ackwise.Features
	seq      int64 // counts the Receives sent
	told     int64 // held was told to an owner when so many had been sent
	held     map[ackwise.LeaseToken]holding
	expiry   *time.Timer // at the earliest deadline
	next     time.Time   // that deadline; zero = none
}

// opened is the session as it is open at one owner.
type opened struct {
	link *link
	gone chan struct{} // closed when the stream ended
}

// holding is a delivery that the consumer has, and its lease's end.
type holding struct {
	d        *ackwise.Delivery
	deadline time.Time
}

// Receiver opens a consumer's session on a subscription. The session belongs to this process;
// o.Foreign and o.Process are set accordingly, and o.Session gets an unguessable name if it is "".
func (c *Client) Receiver(ctx context.Context, topic, sub string, o queue.ReceiverOptions) (
	*Receiver, error) {
	o.Foreign, o.Process = true, c.process
	if o.Session == "" {
		o.Session = rand.Text()
	}
	if o.Name == "" {
		o.Name = c.process
	}
	r := &Receiver{c: c, topic: topic, sub: sub, opt: o, turn: make(chan struct{}, 1),
		changed: make(chan struct{}), held: map[ackwise.LeaseToken]holding{}}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	r.asking, r.hush = context.WithCancel(r.ctx)
	c.mu.Lock()
	c.receivers[r] = struct{}{}
	c.mu.Unlock()
	r.running.Go(r.run) // ends with Close and Lost
	if _, err := r.ready(ctx); err != nil {
		r.leave()
		return nil, err
	}
	return r, nil
}

// leave ends what the receiver runs.
func (r *Receiver) leave() {
	r.hush()
	r.cancel()
	r.running.Wait()
	r.c.mu.Lock()
	delete(r.c.receivers, r)
	r.c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.expiry != nil {
		r.expiry.Stop()
	}
}

// run keeps the session open at whoever owns the directory.
func (r *Receiver) run() {
	wasOpen := false
	delay := firstPause
	for r.ctx.Err() == nil {
		t, err := r.c.current(r.ctx)
		if err == nil {
			err = r.session(t.link)
			if err != nil && lasting(err, wasOpen) {
				r.fail(err)
				return
			}
		}
		if err == nil {
			wasOpen, delay = true, firstPause
		}
		pause.For(r.ctx, delay)
		delay = min(2*delay, lastPause)
	}
}

// lasting reports whether a session that an owner refused to open is refused for good. One that was
// open before has leases: it is tried again unless there is nothing left to open.
func lasting(err error, wasOpen bool) bool {
	var (
		broken   *brokenError
		invalid  *ackwise.InvalidError
		notFound *ackwise.NotFoundError
	)
	switch {
	case errors.As(err, &broken), errors.Is(err, wire.ErrHandingOver):
		return false
	case errors.As(err, &invalid), errors.As(err, &notFound):
		return true
	}
	return !wasOpen
}

// session opens the session at an owner and stays until its stream ends.
func (r *Receiver) session(l *link) error {
	r.mu.Lock()
	r.told = r.seq
	q := wire.OpenReceiver{Topic: r.topic, Subscription: r.sub, Options: r.opt, Seq: r.seq}
	for token := range r.held {
		q.Held = append(q.Held, token)
	}
	r.mu.Unlock()
	body, err := l.stream(r.ctx, wire.Receivers, q)
	if err != nil {
		return err
	}
	defer body.close()
	var w wire.OpenedReceiver
	if err := body.line(&w); err != nil {
		return err
	}
	o := &opened{link: l, gone: make(chan struct{})}
	r.set(o, w)
	_, _ = body.r.ReadByte() // there is no more to read: it returns at the stream's end
	r.set(nil, w)
	close(o.gone)
	return nil
}

func (r *Receiver) set(o *opened, w wire.OpenedReceiver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open, r.features = o, w.Features
	close(r.changed)
	r.changed = make(chan struct{})
}

// fail ends the session for good: its subscription is gone, say.
func (r *Receiver) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = err
	for token, h := range r.held {
		h.d.MarkLost()
		delete(r.held, token)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// ready waits until the session is open at an owner that answers.
func (r *Receiver) ready(ctx context.Context) (target, error) {
	timer := time.NewTimer(r.c.opt.WaitOwner)
	defer timer.Stop()
	for {
		if r.ctx.Err() != nil {
			return target{}, ackwise.ErrClosed
		}
		r.mu.Lock()
		o, fault, changed := r.open, r.fault, r.changed
		r.mu.Unlock()
		if fault != nil {
			return target{}, fault
		}
		if o != nil {
			t, err := r.c.current(ctx)
			if err != nil {
				return target{}, err
			}
			if t.link == o.link {
				t.gone = o.gone
				return t, nil
			}
			changed = o.gone // of an owner that is no more; the stream is about to end
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return target{}, ctx.Err()
		case <-r.ctx.Done():
		case <-timer.C:
			return target{}, r.c.noAnswer()
		}
	}
}

// Session returns the session's name.
func (r *Receiver) Session() string { return r.opt.Session }

// Features implements ackwise.Source.
func (r *Receiver) Features() ackwise.Features {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.features
}

// Transactor returns what queue.Transact commits on.
func (r *Receiver) Transactor() queue.Transactor { return r.c }

// Receive implements ackwise.Source. Several at once take turns. An owner that ends or falls silent
// while one waits strands nothing: what had been on its way is handed out again.
func (r *Receiver) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.asking, cancel)()
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, r.receiveError(ctx.Err())
	}
	defer func() { <-r.turn }()
	for try := 1; ; try++ {
		if ctx.Err() != nil {
			return nil, r.receiveError(ctx.Err())
		}
		t, err := r.ready(ctx)
		if err != nil {
			return nil, r.receiveError(err)
		}
		ds, err := r.receiveOnce(ctx, t, max)
		switch {
		case len(ds) > 0:
			return ds, nil
		case err == nil:
			try = 0
			continue
		}
		err = r.c.again(ctx, t, try, err)
		if ctx.Err() != nil {
			r.giveBack(ctx)
		}
		if err != nil {
			return nil, r.receiveError(err)
		}
	}
}

// receiveError is what Receive answers: ErrClosed when it was Close that ended it.
func (r *Receiver) receiveError(err error) error {
	if r.asking.Err() != nil {
		return ackwise.ErrClosed
	}
	return err
}

// receiveOnce sends one Receive. The caller has the turn.
func (r *Receiver) receiveOnce(ctx context.Context, t target, max int) (
	[]*ackwise.Delivery, error) {
	if r.doubt {
		if err := r.keep(ctx, t); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	r.seq++
	q := wire.SessionRequest{Session: r.opt.Session, Seq: r.seq, Max: max,
		WaitMillis: pollWait.Milliseconds()}
	r.mu.Unlock()
	var got wire.Received
	if err := t.post(ctx, wire.Receive, q, &got); err != nil {
		var broken *brokenError
		r.doubt = errors.As(err, &broken)
		return nil, err
	}
	ds := got.Values()
	if !r.hold(q.Seq, ds) {
		return nil, nil
	}
	return ds, nil
}

// keep tells the owner what the consumer has; the rest is handed out again. The caller has the
// turn.
func (r *Receiver) keep(ctx context.Context, t target) error {
	r.mu.Lock()
	q := wire.SessionRequest{Session: r.opt.Session, Seq: r.seq}
	for token := range r.held {
		q.Held = append(q.Held, token)
	}
	r.mu.Unlock()
	err := t.post(ctx, wire.Keep, q, &struct{}{})
	r.doubt = err != nil
	return err
}

// giveBack gives back at once what was on its way to a Receive whose ctx has ended. Where that
// cannot be done now, the next Receive or the next opening of the session does it.
func (r *Receiver) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepWait)
	defer cancel()
	r.mu.Lock()
	o := r.open
	r.mu.Unlock()
	if r.doubt && o != nil {
		_ = r.keep(ctx, target{link: o.link, live: ctx}) // doubt remains where it did not arrive
	}
}

// Settle implements ackwise.Source. A settlement whose answer a hand-over cuts off is sent again:
// its token makes that safe, and its result may then say Already.
func (r *Receiver) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	var got wire.Settled
	err := r.call(ctx, wire.Settle, wire.SettleRequestOf(r.opt.Session, ss), &got)
	rs := got.Values()
	if err == nil && len(rs) != len(ss) {
		err = fmt.Errorf("read answer: %d results for %d settlements", len(rs), len(ss))
	}
	if err != nil {
		rs = make([]ackwise.SettleResult, len(ss))
		for i := range rs {
			rs[i].Err = fmt.Errorf("settle: %w", err)
		}
		return rs
	}
	r.settled(ss, rs)
	return rs
}

// call carries out one call on the session, sending it again where the answer did not arrive.
func (r *Receiver) call(ctx context.Context, name wire.Call, req, resp any) error {
	for try := 1; ; try++ {
		t, err := r.ready(ctx)
		if err != nil {
			return err
		}
		if err = t.post(ctx, name, req, resp); err == nil {
			return nil
		}
		if err = r.c.again(ctx, t, try, err); err != nil {
			return err
		}
	}
}

// Close ends the session in good order: what it holds is handed out again, cause rebalanced.
func (r *Receiver) Close() error { return r.end(wire.CloseReceiver) }

// Lost ends the session as one whose consumer died: what it holds is handed out again, cause
// consumer-lost. The same happens by itself when the process dies.
func (r *Receiver) Lost() error { return r.end(wire.LoseReceiver) }

func (r *Receiver) end(name wire.Call) error {
	r.once.Do(func() {
		r.hush()
		ctx, cancel := context.WithTimeout(context.Background(), r.c.opt.WaitOwner)
		defer cancel()
		err := r.call(ctx, name, wire.SessionRequest{Session: r.opt.Session}, &struct{}{})
		r.leave()
		if err != nil && !errors.Is(err, wire.ErrNoSession) {
			r.closed = fmt.Errorf("close receiver: %w", err)
		}
	})
	return r.closed
}
