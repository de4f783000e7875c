package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
	"github.com/ackwise/ackwise/internal/pause"
)

// OutboxSourceOptions configure an OutboxSource. Name has to be set; the other fields have
// defaults.
type OutboxSourceOptions struct {
	// Name is the outbox's. Required.
	Name string
	// Lease is how long a hand-out is held without a word. Default: 30 s.
	Lease time.Duration
	// Poll is how often the table is looked at without a notification. Default: 1 s.
	Poll time.Duration
	// MaxBatch is the most messages of one Receive. Default: 500.
	MaxBatch int
}

func (o OutboxSourceOptions) withDefaults() OutboxSourceOptions {
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 500
	}
	return o
}

func (o OutboxSourceOptions) validate() error {
	faults := []error{ackwise.ValidateName("outbox", o.Name)}
	bad := func(field string, value any, reason string) {
		faults = append(faults, &ackwise.InvalidError{Field: field, Value: fmt.Sprint(value),
			Reason: reason})
	}
	if o.Lease < 10*time.Millisecond {
		bad("Lease", o.Lease, "at least 10 ms is needed")
	}
	if o.Poll < time.Millisecond {
		bad("Poll", o.Poll, "at least 1 ms is needed")
	}
	if o.MaxBatch < 1 {
		bad("MaxBatch", o.MaxBatch, "at least 1 is needed")
	}
	return errors.Join(faults...)
}

// Bounds of what a source does by itself.
const (
	callLimit    = 30 * time.Second // of one statement, which does not end with its caller
	maxReconnect = 10 * time.Second // between two tries to connect again
	maxNackDelay = 365 * 24 * time.Hour
)

// OutboxSource hands out the messages of an outbox. Any number of sources may read one outbox, in
// any number of processes: a key is in the hands of one at a time.
//
// It has a connection of its own: its session. When that ends, however it ends, what was handed out
// to the session is handed out again, as consumer-lost.
type OutboxSource struct {
	o    OutboxSourceOptions
	db   pg.Conn
	open func(ctx context.Context) (pg.Session, error)

	turn chan struct{} // holds one value: whose receives it is
	wake chan struct{} // something may be ready
	end  chan struct{} // closed by Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	session int        // 0 = there is none now
	lost    error      // why
	held    map[int64]*ackwise.Delivery
	closed  bool
}

// NewOutboxSource opens a source of an outbox. It uses one connection for good, and another one for
// each call. That one may not go through a pooler which shares connections between sessions.
func NewOutboxSource[T any](ctx context.Context, db DB[T], o OutboxSourceOptions) (
	*OutboxSource, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open outbox source: %w", err)
	}
	if err := Check(ctx, db); err != nil {
		return nil, fmt.Errorf("open outbox source %s: %w", o.Name, err)
	}
	conn, err := pg.Committed(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("open outbox source %s: %w", o.Name, err)
	}
	s := &OutboxSource{o: o, db: conn, open: db.Session, turn: make(chan struct{}, 1),
		wake: make(chan struct{}, 1), end: make(chan struct{}),
		held: make(map[int64]*ackwise.Delivery)}
	session, err := s.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open outbox source %s: %w", o.Name, err)
	}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.wg.Go(func() { s.follow(ctx, session) }) // ends with Close
	return s, nil
}

// connect opens a session.
func (s *OutboxSource) connect(ctx context.Context) (pg.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	session, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	var number int
	_, err = pg.One(ctx, session, []any{&number}, `SELECT nextval('ackwise_session')::int`)
	for _, query := range []string{
		fmt.Sprintf("SELECT pg_advisory_lock(ackwise_outbox_class(), %d)", number),
		`LISTEN "` + channel(s.o.Name) + `"`,
	} {
		if err == nil {
			_, err = session.Exec(ctx, query)
		}
	}
	if err != nil {
		return nil, errors.Join(err, session.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session, s.lost = number, nil
	return session, nil
}

// follow waits for notifications, and connects again when the session has ended.
func (s *OutboxSource) follow(ctx context.Context, session pg.Session) {
	delay := 10 * time.Millisecond
	for {
		if session != nil {
			delay = 10 * time.Millisecond
			err := s.listen(ctx, session)
			if ctx.Err() == nil {
				s.lose(fmt.Errorf("read outbox %s: its session ended: %w", s.o.Name, err))
			}
			_ = session.Close() // it has ended, or is to end
		}
		if !pause.For(ctx, delay) {
			return
		}
		delay = min(2*delay, maxReconnect)
		var err error
		if session, err = s.connect(ctx); err != nil {
			s.lose(fmt.Errorf("read outbox %s: connect again: %w", s.o.Name, err))
			session = nil
		}
		s.rouse()
	}
}

// listen wakes the receiver at each notification, until the session ends.
func (s *OutboxSource) listen(ctx context.Context, session pg.Session) error {
	for {
		err := session.Wait(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			if !pause.For(ctx, s.o.Poll) {
				return context.Cause(ctx)
			}
			_, err = session.Exec(ctx, "SELECT 1") // does it live?
		}
		if err != nil {
			return err
		}
		s.rouse()
	}
}

func (s *OutboxSource) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// lose notes that the session is over: what it held is somebody else's now.
func (s *OutboxSource) lose(err error) {
	s.mu.Lock()
	held := s.held
	s.session, s.lost, s.held = 0, err, make(map[int64]*ackwise.Delivery)
	s.mu.Unlock()
	for _, d := range held {
		d.MarkLost()
	}
	s.rouse()
}

// Receive implements ackwise.Source.
func (s *OutboxSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	if max < 1 {
		return nil, &ackwise.InvalidError{Field: "max", Reason: "at least 1 is needed"}
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-s.end:
		return nil, s.errClosed()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		select {
		case <-s.end:
			return nil, s.errClosed()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		default:
		}
		ds, wait, err := s.take(ctx, min(max, s.o.MaxBatch))
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.end:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func (s *OutboxSource) errClosed() error {
	return fmt.Errorf("read outbox %s: %w", s.o.Name, ackwise.ErrClosed)
}

// take asks for messages, or how long to wait for some. The statement does not end with ctx: what
// it hands out would be stranded.
func (s *OutboxSource) take(ctx context.Context, max int) (
	ds []*ackwise.Delivery, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	s.mu.Lock()
	session, lost := s.session, s.lost
	held := make([]int64, 0, len(s.held))
	for id := range s.held {
		held = append(held, id)
	}
	s.mu.Unlock()
	if session == 0 {
		return nil, 0, lost
	}
	now := time.Now()
	err = pg.Each(ctx, s.db, func(r pg.Rows) error {
		row, err := scanRow(r)
		ds = append(ds, row.delivery(s.o.Lease, now))
		return err
	}, `SELECT `+rowColumns+` FROM ackwise_outbox_receive($1, $2, $3, $4, $5::text::bigint[])`,
		s.o.Name, session, max, s.o.Lease.Milliseconds(), pg.Array(held))
	if err != nil {
		return nil, 0, fmt.Errorf("read outbox %s: %w", s.o.Name, err)
	}
	if len(ds) > 0 {
		s.hold(session, ds)
		return ds, 0, nil
	}
	var millis int64
	_, err = pg.One(ctx, s.db, []any{&millis}, `SELECT ackwise_outbox_wait($1)`, s.o.Name)
	if err != nil {
		return nil, 0, fmt.Errorf("read outbox %s: %w", s.o.Name, err)
	}
	wait = min(time.Duration(millis)*time.Millisecond, s.o.Poll)
	return nil, wait, nil
}

// hold notes what a session was handed.
func (s *OutboxSource) hold(session int, ds []*ackwise.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		if s.session != session {
			d.MarkLost() // the session ended while its answer came
			continue
		}
		id, _, _ := parseToken(d.Token) // it was just made
		if before := s.held[id]; before != nil {
			before.MarkLost() // its lease ran out
		}
		s.held[id] = d
	}
}

// Settle implements ackwise.Source.
func (s *OutboxSource) Settle(ctx context.Context, list []ackwise.Settlement) (
	results []ackwise.SettleResult) {
	results = make([]ackwise.SettleResult, len(list))
	var c settlements
	for i, e := range list {
		if err := c.add(i, e, s.o.Lease); err != nil {
			results[i].Err = fmt.Errorf("settle in outbox %s: %w", s.o.Name, err)
		}
	}
	if len(c.at) == 0 {
		return results
	}
	now := time.Now()
	err := pg.Each(ctx, s.db, func(r pg.Rows) error {
		var ord int
		var answer string
		var lease *time.Time
		if err := r.Scan(&ord, &answer, &lease); err != nil {
			return err
		}
		i := c.at[ord-1]
		results[i] = answered(answer)
		if list[i].Outcome == ackwise.OutcomeExtend && results[i].Err == nil {
			results[i].Deadline = now.Add(time.Duration(c.delays[ord-1]) * time.Millisecond)
		}
		return nil
	}, `SELECT ord, answer, lease FROM ackwise_outbox_settle($1, $2::text::bigint[],
		$3::text::bigint[], $4::text::text[], $5::text::bigint[], $6::text::text[])`, s.o.Name,
		pg.Array(c.ids), pg.Array(c.handOuts), pg.Array(c.outcomes), pg.Array(c.delays),
		pg.Array(c.reasons))
	if err != nil {
		for _, i := range c.at {
			results[i] = ackwise.SettleResult{
				Err: fmt.Errorf("settle in outbox %s: %w", s.o.Name, err)}
		}
		return results
	}
	s.mu.Lock()
	for j, i := range c.at {
		d := s.held[c.ids[j]]
		ended := list[i].Outcome != ackwise.OutcomeExtend || results[i].Err != nil
		if ended && d != nil && d.Token == list[i].Token {
			delete(s.held, c.ids[j])
		}
	}
	s.mu.Unlock()
	s.rouse() // the next of a key may be ready
	return results
}

func answered(answer string) ackwise.SettleResult {
	switch answer {
	case "ok":
		return ackwise.SettleResult{}
	case "already":
		return ackwise.SettleResult{Already: true}
	case "lost":
		return ackwise.SettleResult{Err: ackwise.ErrLeaseLost}
	case "settled":
		return ackwise.SettleResult{Err: ackwise.ErrSettled}
	}
	return ackwise.SettleResult{Err: fmt.Errorf("the database answered %q", answer)}
}

// settlements are settlements by column.
type settlements struct {
	at                    []int // where each stands in the call
	ids, handOuts, delays []int64
	outcomes, reasons     []string
}

func (c *settlements) add(at int, e ackwise.Settlement, lease time.Duration) error {
	id, handOut, err := parseToken(e.Token)
	if err != nil {
		return err
	}
	delay := e.Delay
	switch {
	case e.Outcome > ackwise.OutcomeDrop:
		return &ackwise.InvalidError{Field: "outcome", Reason: "it is none"}
	case e.Outcome == ackwise.OutcomeDrop && e.Reason == "":
		return &ackwise.InvalidError{Field: "reason", Reason: "a drop needs one"}
	case e.Outcome == ackwise.OutcomeExtend && delay == 0:
		delay = lease
	}
	reason := strings.ReplaceAll(strings.ToValidUTF8(ackwise.CutError(e.Reason), "?"), "\x00", "?")
	c.at, c.ids, c.handOuts = append(c.at, at), append(c.ids, id), append(c.handOuts, handOut)
	c.delays = append(c.delays, min(max(delay, 0), maxNackDelay).Milliseconds())
	c.outcomes, c.reasons = append(c.outcomes, e.Outcome.String()), append(c.reasons, reason)
	return nil
}

// Features implements ackwise.Source.
func (s *OutboxSource) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, Lease: s.o.Lease, Extend: true,
		MaxNackDelay: maxNackDelay, Dead: true, Counts: true, Causes: true, MaxBatch: s.o.MaxBatch}
}

// Close gives back what the source still holds, and ends its session.
func (s *OutboxSource) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		s.wg.Wait()
		return nil
	}
	close(s.end)
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	s.turn <- struct{}{} // a receive that is at work has said what it holds; the others see the end
	var back []ackwise.Settlement
	s.mu.Lock()
	for _, d := range s.held {
		back = append(back, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeRelease})
	}
	s.mu.Unlock()
	var errs []error
	for _, r := range s.Settle(ctx, back) {
		if r.Err != nil && !errors.Is(r.Err, ackwise.ErrLeaseLost) {
			errs = append(errs, r.Err)
		}
	}
	s.stop()
	s.wg.Wait()
	return errors.Join(errs...)
}
