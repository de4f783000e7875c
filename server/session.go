package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/queue"
)

const (
	// maxWait bounds one waiting Receive; its client asks again.
	maxWait = time.Minute
	// minPulse is the shortest time between two signs of life that a client may ask for.
	minPulse = 20 * time.Millisecond
	// giveBack bounds the settlement of deliveries that could not be answered.
	giveBack = 5 * time.Second
)

// sessions are the consumers' sessions that are open here.
type sessions struct {
	mu   sync.Mutex // guards open, and stream, begun, seq and cancel of each session
	open map[string]*session
}

// session is one consumer's session.
type session struct {
	rec    *queue.Receiver
	turn   chan struct{}      // one slot: a Receive or a Keep is under way
	ended  chan struct{}      // closed when the client ended the session with a word
	stream int64              // counts its streams: only the last one's end is the session's end
	begun  int64              // the number of the last Receive that was carried out
	seq    int64              // Receives up to this number are over
	cancel context.CancelFunc // ends the Receive under way
}

// find returns the session of that name.
func (ss *sessions) find(name string) (*session, error) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.open[name]
	if s == nil {
		return nil, wire.ErrNoSession
	}
	return s, nil
}

// attach counts a new stream of the session called name, which make opens where it is not open.
func (ss *sessions) attach(name string, make func() (*session, error)) (*session, int64, error) {
	s, err := ss.find(name)
	if err != nil {
		if s, err = make(); err != nil {
			return nil, 0, err
		}
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	name = s.rec.Session()
	if there := ss.open[name]; there != nil {
		s = there
	}
	ss.open[name] = s
	s.stream++
	return s, s.stream, nil
}

// remove forgets a session: whatever its stream (0), or if stream is its last one.
func (ss *sessions) remove(name string, stream int64) *session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s := ss.open[name]
	if s == nil || stream != 0 && stream != s.stream {
		return nil
	}
	delete(ss.open, name)
	return s
}

// begin makes the Receive of number seq the session's one, unless it is over already.
func (ss *sessions) begin(s *session, seq int64, cancel context.CancelFunc) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if seq <= s.seq {
		return false
	}
	s.begun, s.cancel = seq, cancel
	return true
}

// stale reports whether what a consumer says it holds is of before the last Receive: it was sent
// again meanwhile, and what it does not name has arrived since.
func (ss *sessions) stale(s *session, seq int64) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return seq < s.begun
}

// finish ends the Receives up to number seq, also those that are still on their way here.
func (ss *sessions) finish(s *session, seq int64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	s.seq = max(s.seq, seq)
	if s.cancel != nil {
		s.cancel()
	}
}

func (h *handler) routeSessions() {
	h.mux.HandleFunc("POST "+wire.Prefix+string(wire.Owner), h.watch)
	h.mux.HandleFunc("POST "+wire.Prefix+string(wire.Receivers), h.openReceiver)
	h.mux.HandleFunc("POST "+wire.Prefix+string(wire.Receive), h.receive)
	route(h, wire.Settle, h.settle)
	route(h, wire.Keep, func(ctx context.Context, q wire.SessionRequest) (done, error) {
		s, err := h.sessions.find(q.Session)
		if err != nil {
			return done{}, err
		}
		return done{}, h.keep(ctx, s, q)
	})
	route(h, wire.CloseReceiver, func(_ context.Context, q wire.SessionRequest) (done, error) {
		return done{}, h.end(q.Session, (*queue.Receiver).Close)
	})
	route(h, wire.LoseReceiver, func(_ context.Context, q wire.SessionRequest) (done, error) {
		return done{}, h.end(q.Session, (*queue.Receiver).Lost)
	})
}

// end ends a session with a word.
func (h *handler) end(name string, how func(*queue.Receiver) error) error {
	s := h.sessions.remove(name, 0)
	if s == nil {
		return wire.ErrNoSession
	}
	err := how(s.rec)
	close(s.ended)
	return err
}

// openReceiver is the stream that is a consumer's session. Its end without a word is the consumer's
// death, unless this server is the one who goes.
func (h *handler) openReceiver(w http.ResponseWriter, r *http.Request) {
	var q wire.OpenReceiver
	release, err := h.admit(w, r, &q)
	if err != nil {
		refuse(w, err)
		return
	}
	leave, err := enter(h.consumers, "open session")
	if err != nil {
		release()
		refuse(w, err)
		return
	}
	defer leave()
	s, stream, err := h.attach(r.Context(), q)
	release()
	if err != nil {
		refuse(w, h.handOver(err))
		return
	}
	h.streams.Add(1)
	defer h.streams.Done()
	name := s.rec.Session()
	out := http.NewResponseController(w)
	err = line(w, out, wire.OpenedReceiver{Session: name, Features: s.rec.Features()})
	if err == nil {
		select {
		case <-s.ended:
			return
		case <-h.stopping.Done():
			return
		case <-h.store.Done():
			return
		case <-r.Context().Done():
		}
	}
	if h.over() || h.sessions.remove(name, stream) == nil {
		return
	}
	_ = s.rec.Lost() // that the store cannot write it down any more is the store's to tell
}

// attach opens or takes up the session, and gives back what its consumer does not have.
func (h *handler) attach(ctx context.Context, q wire.OpenReceiver) (*session, int64, error) {
	s, stream, err := h.sessions.attach(q.Options.Session, func() (*session, error) {
		rec, err := h.store.Receiver(ctx, q.Topic, q.Subscription, q.Options)
		if err != nil {
			return nil, err
		}
		return &session{rec: rec, turn: make(chan struct{}, 1),
			ended: make(chan struct{})}, nil
	})
	if err != nil {
		return nil, 0, err
	}
	return s, stream, h.keep(ctx, s, wire.SessionRequest{Held: q.Held, Seq: q.Seq})
}

// keep ends the session's Receives up to q.Seq and gives back what never reached the consumer.
func (h *handler) keep(ctx context.Context, s *session, q wire.SessionRequest) error {
	h.sessions.finish(s, q.Seq)
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	if h.sessions.stale(s, q.Seq) {
		return nil
	}
	return s.rec.Keep(ctx, q.Held)
}

// receive waits for deliveries, within q.WaitMillis. It takes no slot of the calls, since it waits.
func (h *handler) receive(w http.ResponseWriter, r *http.Request) {
	var q wire.SessionRequest
	release, err := h.admit(w, r, &q)
	if err != nil {
		refuse(w, err)
		return
	}
	release()
	s, err := h.sessions.find(q.Session)
	if err != nil {
		refuse(w, err)
		return
	}
	ds, err := h.deliveries(r.Context(), s, q)
	if err != nil {
		refuse(w, h.handOver(err))
		return
	}
	answer(w, wire.ReceivedOf(ds))
}

func (h *handler) deliveries(ctx context.Context, s *session, q wire.SessionRequest) (
	[]*ackwise.Delivery, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	wait := min(time.Duration(q.WaitMillis)*time.Millisecond, maxWait)
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer context.AfterFunc(h.stopping, cancel)()
	if !h.sessions.begin(s, q.Seq, cancel) {
		return nil, nil
	}
	ds, err := s.rec.Receive(waiting, q.Max)
	switch {
	case len(ds) > 0 && ctx.Err() != nil:
		return nil, giveBackAll(ctx, s.rec, ds)
	case h.stopping.Err() != nil && err != nil:
		return nil, wire.ErrHandingOver
	case err != nil && waiting.Err() != nil && ctx.Err() == nil:
		return nil, nil
	}
	return ds, err
}

// giveBackAll gives back what nobody waits for any more.
func giveBackAll(ctx context.Context, rec *queue.Receiver, ds []*ackwise.Delivery) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBack)
	defer cancel()
	ss := make([]ackwise.Settlement, len(ds))
	for i, d := range ds {
		ss[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeRelease}
	}
	rec.Settle(ctx, ss)
	return context.Canceled
}

func (h *handler) settle(ctx context.Context, q wire.SettleRequest) (wire.Settled, error) {
	s, err := h.sessions.find(q.Session)
	if err != nil {
		return wire.Settled{}, err
	}
	ss, err := q.Values()
	if err != nil {
		return wire.Settled{}, err
	}
	rs := s.rec.Settle(ctx, ss)
	for _, r := range rs {
		if errors.Is(h.handOver(r.Err), wire.ErrHandingOver) {
			return wire.Settled{}, wire.ErrHandingOver // those carried out answer Already
		}
	}
	return wire.SettledOf(rs), nil
}

// enter takes one of the slots of a kind of stream, or refuses.
func enter(slots chan struct{}, what string) (leave func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		return nil, fmt.Errorf("%s: %d are open: %w", what, cap(slots), ackwise.ErrFull)
	}
}

// watch tells a client at every pulse that its owner lives.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	var q wire.Hello
	if err := h.read(w, r, &q); err != nil {
		refuse(w, err)
		return
	}
	leave, err := enter(h.watchers, "watch owner")
	if err != nil {
		refuse(w, err)
		return
	}
	defer leave()
	out := http.NewResponseController(w)
	err = line(w, out, wire.Welcome{PID: os.Getpid(), Features: h.store.Features()})
	pulse := time.NewTicker(max(time.Duration(q.PulseMillis)*time.Millisecond, minPulse))
	defer pulse.Stop()
	for err == nil {
		select {
		case <-pulse.C:
			if _, err = w.Write([]byte{'\n'}); err == nil {
				err = out.Flush()
			}
		case <-h.stopping.Done():
			return
		case <-h.store.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}

// line writes a stream's first line.
func line(w http.ResponseWriter, out *http.ResponseController, v any) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(b.Bytes()); err != nil {
		return err
	}
	return out.Flush()
}
