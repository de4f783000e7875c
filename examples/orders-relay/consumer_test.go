package orders

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/sqs"
	"github.com/ackwise/ackwise/adapters/nakadi"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queueorder"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// The three consumers.
const (
	kindUpsert   = "upsert"   // where each aircraft is: the newest wins, by the order's own clock
	kindDedup    = "dedup"    // miles flown: an increment, applied once for each ID
	kindSequence = "sequence" // the legs of each aircraft, one after another: by sequence number
)

func kinds() []string { return []string{kindUpsert, kindDedup, kindSequence} }

// assignment is what a consumer process is to do.
type assignment struct {
	Kind, Dir string
	Source    string // its URL
	KillAt    int    // it kills itself at this effect, whose delivery is unsettled; 0 = never
}

// order is the item of the table, as a change carries it.
type order struct {
	ID, Flight, Stamp, Carrier, Place string
	Seq, Miles                        int64
}

// readOrder reads the new image of a change. Nakadi writes the events anew and gives each copy
// metadata of its own, so that bodies of copies differ: the item is what is compared.
func readOrder(body []byte) (order, error) {
	var c struct {
		NewImage map[string]struct{ S, N string }
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return order{}, ackwise.Reject(fmt.Errorf("read change: %w", err))
	}
	o := order{ID: c.NewImage["id"].S, Flight: c.NewImage["flight"].S, Stamp: c.NewImage["stamp"].S,
		Carrier: c.NewImage["carrier"].S, Place: c.NewImage["place"].S}
	var err, err2 error
	o.Seq, err = strconv.ParseInt(c.NewImage["seq"].N, 10, 64)
	o.Miles, err2 = strconv.ParseInt(c.NewImage["miles"].N, 10, 64)
	if err = errors.Join(err, err2); err != nil {
		return o, ackwise.Reject(fmt.Errorf("read change: %w", err))
	}
	return o, nil
}

func (o order) json() []byte {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // texts and numbers only
	}
	return text
}

// consumer is one running consumer process.
type consumer struct {
	assignment
	engine *queue.Store

	mu      sync.Mutex // guards the fields below, and keeps lines whole
	trace   *os.File
	effects int
}

// consume is the whole of a consumer process.
func consume(text string) error {
	c := &consumer{}
	if err := json.Unmarshal([]byte(text), &c.assignment); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	c.trace, err = os.OpenFile(filepath.Join(c.Dir, "trace"),
		os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if c.engine, err = queue.Open(filepath.Join(c.Dir, "engine"), queue.Options{}); err != nil {
		return err
	}
	switch c.Kind {
	case kindUpsert:
		err = c.upsert(ctx)
	case kindDedup:
		err = c.dedup(ctx)
	default:
		err = c.sequence(ctx)
	}
	return errors.Join(err, c.engine.Close(), c.trace.Close())
}

func (c *consumer) write(word, flight string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := fmt.Fprintln(c.trace, word, flight); err != nil {
		panic(err)
	}
}

// maybeKill ends the process where it stands after an effect whose delivery is not settled.
func (c *consumer) maybeKill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.effects++; c.effects == c.KillAt {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

// traced notes what comes and what has had its effect.
func (c *consumer) traced(h ackwise.Handler) ackwise.Handler {
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		o, err := readOrder(d.Body)
		if err != nil {
			return err
		}
		c.write("in", o.Flight)
		if err := h.Handle(ctx, d); err != nil {
			return err
		}
		c.maybeKill()
		c.write("did", o.Flight)
		return nil
	})
}

func loop(name string) deliver.Options {
	return deliver.Options{Pipeline: name, NoDeadLetters: true, Concurrency: 16,
		StopGrace: 5 * time.Second, Backoff: deliver.Backoff{First: 50 * time.Millisecond,
			Cap: time.Second}}
}

// upsert keeps where each aircraft is. What comes late or again is older than what is there, or
// equal to it, and changes nothing.
func (c *consumer) upsert(ctx context.Context) error {
	table, err := queuestore.OpenTable(c.engine, "aircraft")
	if err != nil {
		return err
	}
	o, err := nakadi.ParseSource(c.Source)
	if err != nil {
		return err
	}
	src, err := nakadi.OpenSource(ctx, o)
	if err != nil {
		return err
	}
	h := idempotency.Upsert(table, func(d *ackwise.Delivery) (idempotency.Row, error) {
		o, err := readOrder(d.Body)
		if err != nil {
			return idempotency.Row{}, err
		}
		stamp, err := ackwise.ParseStamp(o.Stamp)
		return idempotency.Row{Key: o.ID, Stamp: stamp, Data: o.json()}, err
	}, idempotency.UpsertOptions{})
	return errors.Join(deliver.Run(ctx, src, c.traced(h), loop(c.Kind)), src.Close())
}

func (c *consumer) openQueue(ctx context.Context) (ackwise.Source, error) {
	o, err := sqs.ParseSource(c.Source)
	if err != nil {
		return nil, err
	}
	return sqs.OpenSource(ctx, o)
}

// dedup adds miles up in a file, a line for each increment. The file is no part of the store that
// remembers the IDs, so a consumer that dies between the two leaves a claim that runs out: whoever
// takes it over is told so, and looks for the line before it writes one.
func (c *consumer) dedup(ctx context.Context) error {
	ids, err := queuestore.Open(ctx, c.engine, "miles", queuestore.Options{Window: 24 * time.Hour})
	if err != nil {
		return err
	}
	l, err := openLedger(filepath.Join(c.Dir, "miles"))
	if err != nil {
		return err
	}
	h, err := idempotency.Dedup(ctx, ids, ackwise.HandlerFunc(
		func(ctx context.Context, d *ackwise.Delivery) error {
			o, err := readOrder(d.Body)
			if err != nil {
				return err
			}
			takeover := idempotency.FromContext(ctx)[0].Takeover
			err = l.add(o, takeover)
			if err == nil {
				c.maybeKill() // before its claim is completed
			}
			return err
		}), idempotency.Options{Again: 24 * time.Hour, Lease: 3 * time.Second,
		BusyDelay: time.Second, Rule: "id, item",
		Sum: func(d *ackwise.Delivery) idempotency.Sum {
			o, err := readOrder(d.Body)
			if err != nil {
				return idempotency.Fingerprint(d.Body)
			}
			return idempotency.Fingerprint(o.json())
		}})
	if err != nil {
		return err
	}
	src, err := c.openQueue(ctx)
	if err != nil {
		return err
	}
	return errors.Join(deliver.Run(ctx, src, c.traced(h), loop(c.Kind)), src.Close(), l.file.Close())
}

// ledger is a file of increments.
type ledger struct {
	mu   sync.Mutex // guards the file: a look and its line are one
	file *os.File
}

func openLedger(path string) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	return &ledger{file: f}, err
}

func (l *ledger) add(o order, look bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if look {
		lines, err := readLines(l.file.Name())
		if err != nil {
			return err
		}
		for _, line := range lines {
			if strings.HasPrefix(line, o.Flight+" ") {
				return nil
			}
		}
	}
	_, err := fmt.Fprintln(l.file, o.Flight, o.Carrier, o.Miles)
	return err
}

func readLines(path string) (lines []string, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, errors.Join(err, s.Err())
}

// Topics and tables of the third consumer.
const (
	topicIn, topicSorted = "in", "sorted"
	tableLegs            = "legs"
)

// sequence takes changes into a topic of the engine, has them put in order, and then applies each
// to its aircraft in one transaction with its ack.
func (c *consumer) sequence(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	order, err := queueorder.Open(ctx, c.engine, queueorder.Options{Topic: topicIn,
		Subscription: "sort", Out: topicSorted})
	if err != nil {
		return err
	}
	board, err := c.engine.Receiver(ctx, topicSorted, "board", queue.ReceiverOptions{})
	if err != nil {
		return err
	}
	src, err := c.openQueue(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	ends := make(chan error, 3)
	run := func(f func() error) {
		wg.Go(func() { // ends with ctx
			defer cancel()
			ends <- f()
		})
	}
	exact := loop(c.Kind)
	exact.Guarantee = deliver.ExactlyOnce
	exact.NoDeadLetters = false // the engine keeps its own
	run(func() error { return order.Run(ctx) })
	run(func() error { return deliver.Run(ctx, board, queue.Transact(c.leg), exact) })
	run(func() error { return deliver.Run(ctx, src, ackwise.HandlerFunc(c.intake), loop(c.Kind)) })
	wg.Wait()
	return errors.Join(<-ends, <-ends, <-ends, src.Close(), board.Close())
}

// prepare makes what is missing.
func (c *consumer) prepare(ctx context.Context) error {
	for _, topic := range []string{topicIn, topicSorted} {
		err := c.engine.CreateTopic(ctx, topic, queue.TopicOptions{DedupWindow: 24 * time.Hour})
		if err != nil && !errors.Is(err, ackwise.ErrExists) {
			return err
		}
	}
	for _, s := range []struct {
		topic, name string
		o           queue.SubscriptionOptions
	}{{topicIn, "sort", queue.SubscriptionOptions{}},
		{topicSorted, "board", queue.SubscriptionOptions{Ordered: true}}} {
		err := c.engine.CreateSubscription(ctx, s.topic, s.name, s.o)
		if err != nil && !errors.Is(err, ackwise.ErrExists) {
			return err
		}
	}
	return nil
}

// intake publishes a change with its number. The topic keeps one message of an ID.
func (c *consumer) intake(ctx context.Context, d *ackwise.Delivery) error {
	o, err := readOrder(d.Body)
	if err != nil {
		return err
	}
	c.write("in", o.Flight)
	return c.engine.Publish(ctx, []ackwise.Message{{ID: d.ID, Topic: topicIn, Key: o.ID,
		Body: o.json(), Headers: []ackwise.Header{{Name: ackwise.HeaderSequence,
			Value: strconv.AppendInt(nil, o.Seq, 10)}}}})[0].Err
}

// legs is what the third consumer knows of an aircraft.
type legs struct {
	Count    int64  // legs that were applied
	Disorder int64  // legs whose number was not the next
	Chain    string // fingerprint of all flights in the order in which they were applied
}

func (l *legs) add(flight string, seq int64) {
	if l.Count++; seq != l.Count {
		l.Disorder++
	}
	sum := idempotency.Fingerprint([]byte(l.Chain), []byte(flight))
	l.Chain = fmt.Sprintf("%x", sum[:])
}

// leg applies a leg. Its effect and its ack are one record: neither is made twice. It is noted
// before that record is written: what a kill after it left without a note would never come again.
func (c *consumer) leg(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
	var o order
	if err := json.Unmarshal(d.Body, &o); err != nil {
		return ackwise.Reject(err)
	}
	have, err := tx.Get(ctx, tableLegs, o.ID)
	if err != nil {
		return err
	}
	var l legs
	if have != nil {
		if err := json.Unmarshal(have, &l); err != nil {
			return err
		}
	}
	l.add(o.Flight, o.Seq)
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	tx.Put(tableLegs, o.ID, text)
	c.write("did", o.Flight)
	c.maybeKill()
	return nil
}
