package nakadi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
)

// Sink publishes messages as events. Its methods may be called from several goroutines.
type Sink struct {
	o      SinkOptions
	client *client
	types  *typeCache
	lanes  *lanes
	closed atomic.Bool
}

// OpenSink makes a sink. Where the options name an event type it looks whether it is there, and
// whether its category goes with Wrap. It reads the token, so that a missing one is told at once.
func OpenSink(ctx context.Context, o SinkOptions) (ackwise.Sink, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open nakadi sink: %w", err)
	}
	c := newClient(o.Server)
	s := &Sink{o: o, client: c, lanes: newLanes(),
		types: &typeCache{client: c, types: map[string]cached{}}}
	if o.EventType == "" { // nothing is to be asked yet, but without a token nothing can be
		if _, err := c.token(ctx); err != nil {
			return nil, fmt.Errorf("open nakadi sink: %w", err)
		}
		return s, nil
	}
	t, err := s.types.get(ctx, o.EventType)
	if err != nil {
		return nil, fmt.Errorf("open nakadi sink: look up event type %s: %w", o.EventType, err)
	}
	if (o.Wrap == WrapData) != (t.Category == "data") && o.Wrap != WrapNone {
		return nil, fmt.Errorf("open nakadi sink: %w", &ackwise.InvalidError{Field: "wrap",
			Value: string(o.Wrap), Reason: "the event type " + t.Name + " is of the category " +
				t.Category})
	}
	return s, nil
}

// Features describes the sink. Nakadi does not deduplicate. Of a key's run one message is sent
// after the other has been accepted, so a batch may hold it. The bound of a body is that of its
// whole event, with metadata and headers.
func (s *Sink) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{KeyRunSafe: true, MaxBatch: s.o.MaxBatch,
		MaxBodyBytes: s.o.MaxEventBytes}
}

// Close makes later calls fail. It waits for nothing: a Publish that runs ends by its own context.
func (s *Sink) Close() error {
	s.closed.Store(true)
	s.client.http.CloseIdleConnections()
	return nil
}

// outgoing is one message of a Publish.
type outgoing struct {
	at   int // its place in the call
	text []byte
	eid  string
	kind string // event type
	lane string // "" = it has no key

	err   error // not nil: it cannot be sent, which has this class
	class ackwise.ResultClass
}

// publishing is one Publish.
type publishing struct {
	sink     *Sink
	results  []ackwise.Result
	stuck    map[string]bool  // lanes of which a message was not accepted
	missing  map[string]error // event types that cannot be looked up
	requests int
	failed   bool // a request was not answered, or refused for no message's sake
}

// Publish sends messages and tells what became of each. Of one key only one is sent at a time, and
// nothing behind one that was not accepted. What Nakadi refuses is found, one event a request, and
// the others are sent again without it.
func (s *Sink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	p := &publishing{sink: s, results: make([]ackwise.Result, len(msgs)),
		stuck: map[string]bool{}, missing: map[string]error{}}
	waiting := make([]outgoing, len(msgs))
	for i := range msgs {
		waiting[i] = p.prepare(ctx, &msgs[i], i)
	}
	for len(waiting) > 0 {
		var wave, later []outgoing
		seen := map[string]bool{}
		for _, out := range waiting {
			switch {
			case out.lane != "" && p.stuck[out.lane]:
				p.set(out, ackwise.ResultNotAttempted, errBehind)
			case out.lane != "" && seen[out.lane]:
				later = append(later, out)
			case out.err != nil: // in its turn: what stands before it of its key goes out
				p.set(out, out.class, out.err)
			default:
				seen[out.lane] = true
				wave = append(wave, out)
			}
		}
		p.sendWave(ctx, wave)
		waiting = later
	}
	return p.results
}

// prepare makes an event of a message, or says why it cannot be sent.
func (p *publishing) prepare(ctx context.Context, m *ackwise.Message, at int) outgoing {
	s := p.sink
	msg := *m
	if msg.ID == "" {
		msg.ID = ackwise.NewID(time.Now())
	}
	p.results[at].ID = msg.ID
	out := outgoing{at: at, kind: s.o.EventType}
	if out.kind == "" {
		out.kind = msg.Topic
	}
	if msg.Key != "" {
		out.lane = out.kind + "\x00" + msg.Key
	}
	refuse := func(class ackwise.ResultClass, err error) outgoing {
		out.class, out.err = class, err
		return out
	}
	if s.closed.Load() {
		return refuse(ackwise.ResultRetryable, fmt.Errorf("publish to nakadi: %w", ackwise.ErrClosed))
	}
	if p.failed {
		return refuse(ackwise.ResultNotAttempted, errFailed)
	}
	if !typeName.MatchString(out.kind) || len(out.kind) > 255 {
		return refuse(ackwise.ResultRejected, &ackwise.InvalidError{Field: "topic", Value: out.kind,
			Reason: "it is no name of an event type"})
	}
	if err := p.missing[out.kind]; err != nil {
		return refuse(ackwise.ResultRetryable, err) // asked once a call
	}
	t, err := s.types.get(ctx, out.kind)
	if err != nil {
		status := statusOf(err) // these two are about this event type alone
		p.failed = status != http.StatusNotFound && status != http.StatusForbidden
		err = fmt.Errorf("look up event type %s: %w", out.kind, err)
		p.missing[out.kind] = err
		return refuse(ackwise.ResultRetryable, err)
	}
	out.eid, out.text, err = s.o.encode(&msg, t, time.Now())
	if err != nil {
		return refuse(ackwise.ResultRejected, fmt.Errorf("make event: %w", err))
	}
	return out
}

func (p *publishing) set(out outgoing, class ackwise.ResultClass, err error) {
	r := &p.results[out.at]
	r.Class, r.Err = class, err
	if class != ackwise.ResultAccepted && out.lane != "" {
		p.stuck[out.lane] = true
	}
}

func (p *publishing) setAll(outs []outgoing, class ackwise.ResultClass, err error) {
	for _, out := range outs {
		p.set(out, class, err)
	}
}

// sendWave sends events that have no key in common: requests of one event type, bounded.
func (p *publishing) sendWave(ctx context.Context, wave []outgoing) {
	for len(wave) > 0 {
		var batch, rest []outgoing
		size := 0
		for _, out := range wave {
			fits := len(batch) == 0 || len(batch) < p.sink.o.MaxBatch &&
				size+len(out.text) < p.sink.o.MaxBatchBytes && out.kind == batch[0].kind
			if !fits {
				rest = append(rest, out)
				continue
			}
			batch = append(batch, out)
			size += len(out.text) + 1
		}
		p.sendBatch(ctx, batch)
		wave = rest
	}
}

func (p *publishing) sendBatch(ctx context.Context, batch []outgoing) {
	if p.failed {
		p.setAll(batch, ackwise.ResultNotAttempted, errFailed)
		return
	}
	var keys []string
	for _, out := range batch {
		if out.lane != "" {
			keys = append(keys, out.lane)
		}
	}
	if err := p.sink.lanes.take(ctx, keys); err != nil {
		p.setAll(batch, ackwise.ResultNotAttempted, fmt.Errorf("wait for the key: %w", err))
		return
	}
	defer p.sink.lanes.give(keys)
	p.send(ctx, batch)
}

// send sends a batch until each event of it has its result.
func (p *publishing) send(ctx context.Context, batch []outgoing) {
	for len(batch) > 0 {
		if p.failed {
			p.setAll(batch, ackwise.ResultNotAttempted, errFailed)
			return
		}
		if p.requests > p.sink.o.MaxRequests {
			p.setAll(batch, ackwise.ResultNotAttempted, errBounded)
			return
		}
		a := p.post(ctx, batch)
		if items := a.items(batch); items != nil {
			batch = p.byItem(batch, a, items)
			p.requests++
			continue
		}
		class, err := classify(a, nil)
		if class == ackwise.ResultRejected && len(batch) > 1 {
			p.requests++ // which one it is was not said: look for it in halves
			p.send(ctx, batch[:len(batch)/2])
			batch = batch[len(batch)/2:]
			continue
		}
		if class != ackwise.ResultAccepted && class != ackwise.ResultRejected {
			p.failed = true
		}
		for _, out := range batch {
			p.set(out, class, err)
			p.results[out.at].After = a.retryAfter
		}
		return
	}
}

// byItem sets the results and returns the innocent of a refused batch, to be sent again.
func (p *publishing) byItem(batch []outgoing, a *answer, items []item) (again []outgoing) {
	for i, out := range batch {
		class, err := classify(a, &items[i])
		if class == ackwise.ResultNotAttempted {
			again = append(again, out)
			continue
		}
		p.set(out, class, err)
		p.results[out.at].After = a.retryAfter
	}
	if len(again) == len(batch) || a.status != http.StatusUnprocessableEntity {
		p.setAll(again, ackwise.ResultNotAttempted, errAborted) // nobody was found guilty
		return nil
	}
	return again
}

// items returns what an answer says of each event, nil = nothing that can be relied on: items come
// in the order of the events, and one that names another event speaks of that.
func (a *answer) items(batch []outgoing) []item {
	if a.err != nil || a.status != http.StatusMultiStatus &&
		a.status != http.StatusUnprocessableEntity {
		return nil
	}
	var list []item
	if json.Unmarshal(a.body, &list) != nil || len(list) != len(batch) {
		return nil
	}
	for i := range list {
		if eid := list[i].EID; eid != "" && eid != batch[i].eid {
			return nil
		}
	}
	return list
}

// post sends one request. A token that is refused is read anew, once.
func (p *publishing) post(ctx context.Context, batch []outgoing) *answer {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, out := range batch {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(out.text)
	}
	b.WriteByte(']')
	r := call{method: http.MethodPost, body: b.Bytes(),
		path: "/event-types/" + url.PathEscape(batch[0].kind) + "/events"}
	if p.sink.o.Gzip {
		r.header = map[string]string{"Content-Encoding": "gzip"}
		r.body = compress(r.body)
	}
	a := p.sink.client.do(ctx, r)
	if a.err == nil && a.status == http.StatusUnauthorized && p.sink.o.Token != nil {
		a = p.sink.client.do(ctx, r)
	}
	return &a
}

func compress(text []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(text) // a buffer takes everything
	_ = z.Close()
	return b.Bytes()
}
