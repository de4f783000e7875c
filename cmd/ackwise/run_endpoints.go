package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	endpoints "github.com/ackwise/ackwise/internal/endpoint"
	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/queue"
)

// scheme is one kind of endpoint. What it cannot be is nil.
type scheme struct {
	prefix string // what its endpoints begin with; "-" is a whole one
	form   string // what they look like
	parse  func(e *endpoint) error
	source func(r *runner, f *flow) (*inlet, error)
	sink   func(r *runner, p *pipelineConfig, e endpoint, o file.SinkOptions) (outlet, error)
}

// schemes is every kind of endpoint. A new system is one row in wire.go.
func schemes() []scheme {
	return append([]scheme{
		{prefix: "-", form: "-", parse: func(*endpoint) error { return nil },
			source: openInput, sink: openOutput},
		{prefix: "file://", form: "file://PATH", parse: parseFile,
			source: openLines, sink: openFile},
		{prefix: "queue://", form: "queue://DIR/TOPIC[/SUBSCRIPTION]", parse: parseQueue,
			source: openQueue, sink: openTopic},
	}, systems()...)
}

// endpoint is where messages come from or go to.
type endpoint struct {
	text   string
	rest   string // behind the prefix
	from   bool   // a source
	dead   bool   // a store of dead letters
	scheme scheme

	path     string   // file://: absolute
	dir      string   // queue://: absolute
	pipeline pipeline // queue://: the topic, and the subscription of a source
	remote   *remote  // a system of wire.go, else nil
}

func (e endpoint) is(prefix string) bool { return e.scheme.prefix == prefix }

// samePlace reports whether what is read at one address surely comes back to it when it is written
// to another, whatever else their options say. topic is what messages are published under where the
// address names no topic; "" = each one's own. Hosts that are several name one system where one is
// the same.
func samePlace(from, to endpoint, topic string) bool {
	one, two, same := sameSystem(from, to)
	if !same {
		return false
	}
	for _, option := range []string{"endpoint", "account"} { // they are part of where it is
		if one.Text(option, "") != two.Text(option, "") {
			return false
		}
	}
	read, written := strings.Join(one.Path, "/"), strings.Join(two.Path, "/")
	if from.is("nakadi://") {
		read = one.Text("event_types", "") // of a subscription that is named it is not known
	}
	if to.ownTopics() {
		written = cmp.Or(topic, read)
	}
	return read != "" && shared(read, written)
}

// sameSystem reads two addresses, and reports whether they surely name one system that is not of
// this machine.
func sameSystem(a, b endpoint) (one, two *endpoints.Endpoint, same bool) {
	if a.remote == nil || b.remote == nil || a.scheme.prefix != b.scheme.prefix {
		return nil, nil, false
	}
	one, err := endpoints.Parse(a.text)
	two, err2 := endpoints.Parse(b.text)
	return one, two, err == nil && err2 == nil &&
		shared(strings.ToLower(one.Host), strings.ToLower(two.Host))
}

// eachToItsOwn reports whether messages are written back to their own topics of the system that
// they were read from.
func eachToItsOwn(from, to endpoint) bool {
	_, _, same := sameSystem(from, to)
	return same && to.ownTopics()
}

// ownTopics reports whether a sink's address names no topic: each message has its own.
func (e endpoint) ownTopics() bool {
	u, err := endpoints.Parse(e.text)
	return err == nil && !e.from && len(u.Path) == 0 && (e.is("kafka://") || e.is("nakadi://"))
}

// shared reports whether two lists with commas between have something in common.
func shared(a, b string) bool {
	list := strings.Split(b, ",")
	return slices.ContainsFunc(strings.Split(a, ","),
		func(one string) bool { return slices.Contains(list, one) })
}

// parseEndpoint reads an endpoint.
func parseEndpoint(text string, from bool) (endpoint, error) {
	e := endpoint{text: text, from: from}
	var forms, prefixes []string
	for _, s := range schemes() {
		if rest, ok := strings.CutPrefix(text, s.prefix); ok && (s.prefix != "-" || rest == "") {
			e.scheme, e.rest = s, rest
			return e, s.parse(&e)
		}
		forms, prefixes = append(forms, s.form), append(prefixes, s.prefix)
	}
	near, shown := "", fmt.Sprintf("%.40q", text)
	if name, _, ok := strings.Cut(text, "://"); ok && len(name) < 40 {
		if n := nearestWord(name+"://", prefixes); n != "" && n != "-" {
			near = fmt.Sprintf("did you mean %q? ", n)
		}
		shown = fmt.Sprintf("%q", name+"://…") // what follows may hold a password
	}
	return e, fmt.Errorf("unknown endpoint %s; %sthe endpoints are %s", shown, near,
		strings.Join(forms, ", "))
}

func parseFile(e *endpoint) error {
	if e.rest == "" || strings.HasSuffix(e.rest, "/") {
		return fmt.Errorf("%.80q names no file; it is file://PATH", e.text)
	}
	path, err := filepath.Abs(e.rest)
	e.path = path
	return err
}

func parseQueue(e *endpoint) error {
	form := "queue://DIR/TOPIC"
	cut := func(text string) (string, string) {
		i := strings.LastIndexByte(text, '/')
		if i < 0 {
			return "", text
		}
		return text[:max(i, 1)], text[i+1:] // the root is a directory too
	}
	dir := e.rest
	if e.from {
		form += "/SUBSCRIPTION"
		dir, e.pipeline.sub = cut(dir)
	}
	dir, e.pipeline.topic = cut(dir)
	if dir == "" || dir == "/" && !strings.HasPrefix(e.rest, "//") {
		return fmt.Errorf("%.80q is not whole; here it is %s", e.text, form)
	}
	err := ackwise.ValidateName("topic", e.pipeline.topic)
	if e.from {
		err = errors.Join(err, ackwise.ValidateName("subscription", e.pipeline.sub))
	}
	if err != nil {
		return fmt.Errorf("%.80q: %w; here it is %s", e.text, err, form)
	}
	e.dir, err = filepath.Abs(dir)
	return err
}

// inlet is an open source, and what a pipeline has to know of it.
type inlet struct {
	source ackwise.Source
	// wrap makes a handler the source's own. nil = there is nothing to know.
	wrap func(ackwise.Handler) ackwise.Handler
	// books tells how much is left; nil = the source ends by itself.
	books func(ctx context.Context) (queue.Books, error)
	// end ends a source that does not end by itself.
	end func()
	// held tells how much is handed out.
	held func() int
	// quiet ends a source of another system; nil = there is none, or it is not to end.
	quiet *quietSource
	// lag tells how far behind it is; nil = it does not say.
	lag lagging
}

// outlet is an open sink and the topic that is published to; "" = each message's own.
type outlet struct {
	sink  ackwise.Sink
	topic string
}

func openInput(r *runner, f *flow) (*inlet, error) {
	s, err := file.NewStream(r.a.in, "standard input", f.lineOptions())
	return f.told(s), err
}

func openLines(r *runner, f *flow) (*inlet, error) {
	o := f.lineOptions()
	o.Once = o.Follow && r.untilEmpty
	s, err := file.NewSource(f.cfg.from.path, o)
	return f.told(s), err
}

// told is a source that tells a handler process of its settlements.
func (f *flow) told(s ackwise.Source) *inlet { return &inlet{source: &toldSource{s, f}} }

type toldSource struct {
	ackwise.Source
	f *flow
}

// Settle settles, and tells.
func (s *toldSource) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	results := s.Source.Settle(ctx, ss)
	for i, r := range results {
		if ss[i].Outcome != ackwise.OutcomeExtend {
			s.f.settled(ss[i].Token, r.Err)
		}
	}
	return results
}

// openQueue opens the sessions of a subscription: one for each process that may die by itself.
func openQueue(r *runner, f *flow) (*inlet, error) {
	e, p := f.cfg.from, f.cfg
	d, err := r.directory(e.dir)
	if err != nil {
		return nil, err
	}
	if p.Create && (p.to == nil || !p.to.is("queue://")) {
		if err := createTopic(r.a.ctx, d, e.pipeline.topic, p.Topic); err != nil {
			return nil, err
		}
	}
	info, err := ensureSubscription(r.a.ctx, d, e.pipeline, p.Create, p.Subscription)
	if err == nil {
		err = sameSubscription(p, info.Options)
	}
	if err != nil {
		return nil, err
	}
	count, each := f.sessions()
	o := p.Receiver
	o.MaxInFlight = each
	s, err := process.NewSessions(r.a.ctx, process.SessionsOptions{Count: count, InFlight: each,
		Open: func(ctx context.Context) (process.Session, error) {
			return d.session(ctx, e.pipeline, o)
		},
		Settled: func(d *ackwise.Delivery, _ ackwise.Outcome, err error) {
			f.settled(d.Token, err)
		}})
	if err != nil {
		return nil, err
	}
	return &inlet{source: s, wrap: s.Handler, end: s.End, held: s.Held,
		lag: queueLag{d, e.pipeline},
		books: func(ctx context.Context) (queue.Books, error) {
			return subscriptionBooks(ctx, d, e.pipeline)
		}}, nil
}

// queueLag is how far a subscription is behind its topic.
type queueLag struct {
	d places
	p pipeline
}

// Lag returns what waits, and since when the oldest of it does.
func (l queueLag) Lag(ctx context.Context) (int64, time.Time, error) {
	subs, err := l.d.Subscriptions(ctx, l.p.topic)
	if err != nil {
		return -1, time.Time{}, err
	}
	for _, s := range subs {
		if s.Name == l.p.sub {
			return s.Books.Waiting(), s.OldestWaiting, nil
		}
	}
	return -1, time.Time{}, &ackwise.NotFoundError{Kind: "subscription", Name: l.p.String()}
}

// sameSubscription refuses a promise that the existing subscription does not keep.
func sameSubscription(p *pipelineConfig, o queue.SubscriptionOptions) error {
	_, says := p.lines["subscription.on_dead"]
	want := p.Subscription
	if want.Ordered && !o.Ordered || says && want.OnDead != o.OnDead {
		return &ackwise.HintError{
			Err: fmt.Errorf("the subscription %s exists with ordered: %t, on_dead: %s",
				p.from.pipeline, o.Ordered, o.OnDead),
			Hint: "Take these words out of the file, or name another subscription.",
		}
	}
	return nil
}

func subscriptionBooks(ctx context.Context, d booksReader, p pipeline) (queue.Books, error) {
	all, err := d.Books(ctx)
	if err != nil {
		return queue.Books{}, err
	}
	for _, b := range all {
		if b.Topic == p.topic && b.Subscription == p.sub {
			return b, nil
		}
	}
	return queue.Books{}, &ackwise.NotFoundError{Kind: "subscription", Name: p.String()}
}

func createTopic(ctx context.Context, d places, name string, o queue.TopicOptions) error {
	if err := d.CreateTopic(ctx, name, o); !errors.Is(err, ackwise.ErrExists) {
		return err
	}
	return nil
}

func openOutput(r *runner, _ *pipelineConfig, _ endpoint, o file.SinkOptions) (outlet, error) {
	return outlet{sink: r.stream(o)}, nil
}

func openFile(r *runner, _ *pipelineConfig, e endpoint, o file.SinkOptions) (outlet, error) {
	s, err := r.file(e.path, o)
	return outlet{sink: s}, err
}

func openTopic(r *runner, p *pipelineConfig, e endpoint, _ file.SinkOptions) (outlet, error) {
	d, err := r.directory(e.dir)
	if err != nil {
		return outlet{}, err
	}
	if p.Create {
		o := queue.TopicOptions{}
		if p.to != nil && p.to.text == e.text {
			o = p.Topic
		}
		if err := createTopic(r.a.ctx, d, e.pipeline.topic, o); err != nil {
			return outlet{}, err
		}
	}
	err = ensureTopic(r.a.ctx, d, e.pipeline.topic, false)
	return outlet{sink: d, topic: e.pipeline.topic}, err
}
