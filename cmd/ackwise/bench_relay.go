package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/bench"
	"github.com/ackwise/ackwise/relay"
)

type benchRelayCmd struct {
	Brokers     string `required:"" placeholder:"HOST:PORT[,…]" help:"The Kafka brokers."`
	Messages    int    `default:"1000000" help:"Messages of each measurement."`
	Size        int    `default:"200" help:"Length of the bodies, in bytes."`
	Keys        int    `default:"10000" help:"Keys that they belong to, in order by key."`
	Partitions  int    `default:"6" help:"Partitions of the topics."`
	Rounds      int    `default:"5" help:"Repetitions of each; the median counts."`
	Concurrency int    `default:"1" help:"Batches that are published at once by the relay; 1 is what a pipeline has by default."`
	Batch       int    `default:"1000" help:"Messages of a batch of the relay, at most; 1000 is what such a pipeline has by default."`
	Seed        uint64 `default:"1" help:"Makes keys and bodies, and the order of the contestants."`
	jsonFlag
}

// Help is printed under the usage.
func (c *benchRelayCmd) Help() string {
	return "Relays one Kafka topic to another, once by Ackwise (source, loop, relay, sink) and once " +
		"by a bare franz-go loop (poll, produce all, wait for all, commit), in turn in the same run: " +
		"acks of all replicas, at least once, the same client settings, a fresh group and a fresh " +
		"target topic each time. uniform spreads the messages over the keys; hot puts 80 % of them " +
		"on 1 % of the keys. The time goes from the first message received to the last one's " +
		"commit. It makes and deletes topics called ackwise-bench-…; --json prints the machine, " +
		"messages, size, rounds, and relay: a list of keys, relay_per_s, bare_per_s and ratio (the " +
		"median of the rounds' ratios), and relay_cpu_us and bare_cpu_us (the processor time of " +
		"this process for a message, in microseconds, brokers aside; 0 where the system does not " +
		"say)."
}

// relayReport is what the run has measured.
type relayReport struct {
	bench.Machine
	Messages    int         `json:"messages"`
	Size        int         `json:"size"`
	Keys        int         `json:"keys"`
	Partitions  int         `json:"partitions"`
	Rounds      int         `json:"rounds"`
	Concurrency int         `json:"concurrency"`
	Batch       int         `json:"batch"`
	Relay       []relayRate `json:"relay"`
}

// relayRate compares the two with one kind of keys.
type relayRate struct {
	Keys     string  `json:"keys"` // uniform or hot
	PerSec   float64 `json:"relay_per_s"`
	BareRate float64 `json:"bare_per_s"`
	Ratio    float64 `json:"ratio"`
	CPU      float64 `json:"relay_cpu_us"`
	BareCPU  float64 `json:"bare_cpu_us"`
}

// spent is what one measurement took.
type spent struct{ wall, cpu time.Duration }

func since(begin time.Time, cpu time.Duration) spent {
	return spent{time.Since(begin), bench.CPU() - cpu}
}

// Run measures.
func (c *benchRelayCmd) Run(a *app) error {
	for name, v := range map[string]int{"messages": c.Messages, "size": c.Size, "keys": c.Keys,
		"partitions": c.Partitions, "rounds": c.Rounds, "concurrency": c.Concurrency,
		"batch": c.Batch} {
		if v < 1 {
			return usagef("--%s %d: at least 1 is needed", name, v)
		}
	}
	tell, stop := benchProgress(a)
	b := relayBench{c: c, tell: tell,
		prefix: "ackwise-bench-" + strings.ToLower(rand.Text()[:8])}
	rates, err := b.run(a.ctx)
	stop()
	if err != nil {
		return fmt.Errorf("measure the relay: %w", err)
	}
	r := relayReport{bench.ThisMachine(""), c.Messages, c.Size, c.Keys, c.Partitions, c.Rounds,
		c.Concurrency, c.Batch, rates}
	if c.JSON {
		return writeJSON(a.out, r)
	}
	if _, err := fmt.Fprintf(a.out, "%s\nMedian of %s of %s of %d B, %s, relay: %d batches of %d at "+
		"once\n\nOne Kafka topic to another, acks of all replicas, beside a bare franz-go loop\n",
		benchFacts(&r.Machine), count(r.Rounds, "round"), count(r.Messages, "message"), r.Size,
		count(r.Partitions, "partition"), r.Concurrency, r.Batch); err != nil {
		return err
	}
	t := newTable("keys", ">relay/s", ">bare/s", ">ratio", ">relay CPU", ">bare CPU")
	for _, x := range rates {
		t.add(x.Keys, perSecond(x.PerSec), perSecond(x.BareRate), ratio(x.Ratio),
			fmt.Sprintf("%.1f µs", x.CPU), fmt.Sprintf("%.1f µs", x.BareCPU))
	}
	return t.write(a.out, "nothing measured")
}

// relayBench is one run.
type relayBench struct {
	c      *benchRelayCmd
	tell   func(what string, done float64)
	prefix string
	adm    *kadm.Client
	steps  int // done
}

// The kinds of keys.
const (
	uniformKeys = "uniform"
	hotKeys     = "hot"
)

func (b *relayBench) run(ctx context.Context) (rates []relayRate, err error) {
	cl, err := b.client()
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	reach, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := cl.Ping(reach); err != nil {
		return nil, fmt.Errorf("reach the brokers %s: %w", b.c.Brokers, err)
	}
	b.adm = kadm.NewClient(cl)
	kinds := []string{uniformKeys, hotKeys}
	for _, kind := range kinds {
		defer b.remove(ctx, b.input(kind))
		if err := b.fill(ctx, kind); err != nil {
			return nil, fmt.Errorf("fill the topic: %w", err)
		}
	}
	order := mrand.New(mrand.NewPCG(b.c.Seed, 1))
	ways := map[string]func(context.Context, string, string) (spent, error){
		"relay": b.relay, "bare": b.bare}
	for _, kind := range kinds {
		var r rounds
		for range b.c.Rounds {
			names := []string{"relay", "bare"}
			order.Shuffle(2, func(i, j int) { names[i], names[j] = names[j], names[i] })
			for _, name := range names {
				b.progress(kind + " keys, " + name)
				took, err := b.once(ctx, kind, ways[name])
				if err != nil {
					return nil, fmt.Errorf("%s keys, %s: %w", kind, name, err)
				}
				r.add(name, took, float64(b.c.Messages))
			}
		}
		rates = append(rates, r.medians(kind))
	}
	return rates, nil
}

// rounds are the measurements of one kind of keys, by contestant.
type rounds struct{ rates, cpus map[string][]float64 }

func (r *rounds) add(name string, took spent, messages float64) {
	if r.rates == nil {
		r.rates, r.cpus = map[string][]float64{}, map[string][]float64{}
	}
	r.rates[name] = append(r.rates[name], messages/took.wall.Seconds())
	r.cpus[name] = append(r.cpus[name], float64(took.cpu.Microseconds())/messages)
}

func (r *rounds) medians(kind string) relayRate {
	ratios := make([]float64, len(r.rates["relay"]))
	for i, v := range r.rates["relay"] {
		ratios[i] = v / r.rates["bare"][i]
	}
	return relayRate{kind, middle(r.rates["relay"]), middle(r.rates["bare"]), middle(ratios),
		middle(r.cpus["relay"]), middle(r.cpus["bare"])}
}

// middle returns the median; of two the lower one.
func middle(v []float64) float64 {
	slices.Sort(v)
	return v[(len(v)-1)/2]
}

func (b *relayBench) progress(what string) {
	b.tell(what, float64(b.steps)/float64(2+4*b.c.Rounds))
	b.steps++
}

func (b *relayBench) input(kind string) string { return b.prefix + "-" + kind }

// client makes a client of the run's own settings.
func (b *relayBench) client(more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(b.c.Brokers, ",")...),
		kgo.ClientID("ackwise-bench"), kgo.DisableClientMetrics()}, more...)...)
}

// create makes a topic and waits until it is known: the brokers answer before that.
func (b *relayBench) create(ctx context.Context, topic string) error {
	if _, err := b.adm.CreateTopic(ctx, int32(b.c.Partitions), -1, nil, topic); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		found, err := b.adm.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		if t := found[topic]; t.Err == nil && len(t.Partitions) == b.c.Partitions {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("make the topic %s: %w", topic, ctx.Err())
		}
	}
}

// remove deletes a topic, also when the run was interrupted.
func (b *relayBench) remove(ctx context.Context, topic string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	_, _ = b.adm.DeleteTopics(ctx, topic) // it is named so that its origin shows
}

// fill makes the input: messages as Ackwise's own sink writes them.
func (b *relayBench) fill(ctx context.Context, kind string) error {
	b.progress("fill, " + kind + " keys")
	if err := b.create(ctx, b.input(kind)); err != nil {
		return err
	}
	cl, err := b.client(kgo.DefaultProduceTopic(b.input(kind)))
	if err != nil {
		return err
	}
	defer cl.Close()
	r := mrand.New(mrand.NewPCG(b.c.Seed, 2))
	body := make([]byte, b.c.Size+1024)
	for i := range body {
		body[i] = byte('a' + r.IntN(26))
	}
	var failed atomic.Pointer[error]
	for i := range b.c.Messages {
		at := r.IntN(1024)
		cl.Produce(ctx, &kgo.Record{
			Key: fmt.Appendf(nil, "key-%d", b.key(r, kind)), Value: body[at : at+b.c.Size],
			Headers: []kgo.RecordHeader{{Key: ackwise.HeaderID, Value: fmt.Appendf(nil, "m-%d", i)}},
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if p := failed.Load(); p != nil {
		return *p
	}
	return nil
}

// key draws a key: with hot ones, four of five messages belong to one key of a hundred.
func (b *relayBench) key(r *mrand.Rand, kind string) int {
	if kind == hotKeys && r.IntN(5) > 0 {
		return r.IntN(max(1, b.c.Keys/100))
	}
	return r.IntN(b.c.Keys)
}

// once measures one way, into a fresh topic and with a fresh group.
func (b *relayBench) once(ctx context.Context, kind string,
	way func(ctx context.Context, in, out string) (spent, error)) (took spent, err error) {
	out := fmt.Sprintf("%s-out-%d", b.prefix, b.steps)
	if err := b.create(ctx, out); err != nil {
		return spent{}, err
	}
	defer b.remove(ctx, out)
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, _ = b.adm.DeleteGroups(ctx, out)
	}()
	took, err = way(ctx, b.input(kind), out)
	if err != nil {
		return spent{}, err
	}
	ends, err := b.adm.ListEndOffsets(ctx, out)
	if err != nil {
		return spent{}, err
	}
	n := int64(0)
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	if n != int64(b.c.Messages) {
		return spent{}, fmt.Errorf("%d messages arrived of %d", n, b.c.Messages)
	}
	return took, nil
}

// bare is what a program without Ackwise does: poll, produce all, wait for all, commit.
func (b *relayBench) bare(ctx context.Context, in, out string) (spent, error) {
	cl, err := b.client(kgo.ConsumerGroup(out), kgo.ConsumeTopics(in), kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DefaultProduceTopic(out), kgo.ProducerLinger(0))
	if err != nil {
		return spent{}, err
	}
	defer cl.CloseAllowingRebalance()
	var begin time.Time
	var cpu time.Duration
	for n := 0; n < b.c.Messages; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return spent{}, err
		}
		if begin.IsZero() {
			begin, cpu = time.Now(), bench.CPU()
		}
		var failed atomic.Pointer[error]
		fetches.EachRecord(func(r *kgo.Record) {
			cl.Produce(ctx, &kgo.Record{Key: r.Key, Value: r.Value, Headers: r.Headers,
				Timestamp: r.Timestamp}, func(_ *kgo.Record, err error) {
				if err != nil {
					failed.Store(&err)
				}
			})
			n++
		})
		if err := cl.Flush(ctx); err != nil {
			return spent{}, err
		}
		if p := failed.Load(); p != nil {
			return spent{}, *p
		}
		if err := cl.CommitUncommittedOffsets(ctx); err != nil {
			return spent{}, err
		}
		cl.AllowRebalance()
	}
	return since(begin, cpu), nil
}

// relay does the same with Ackwise.
func (b *relayBench) relay(ctx context.Context, in, out string) (took spent, err error) {
	so, err := kafka.ParseSource("kafka://" + b.c.Brokers + "/" + in + "?group=" + out)
	if err != nil {
		return spent{}, err
	}
	po, err := kafka.ParseSink("kafka://" + b.c.Brokers + "/" + out)
	if err != nil {
		return spent{}, err
	}
	source, err := kafka.OpenSource(ctx, so)
	if err != nil {
		return spent{}, err
	}
	defer func() { err = joinClose(err, source.Close) }()
	sink, err := kafka.OpenSink(ctx, po)
	if err != nil {
		return spent{}, err
	}
	defer func() { err = joinClose(err, sink.Close) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &timed{Source: source, left: b.c.Messages, done: cancel}
	err = deliver.RunBatch(ctx, t, relay.BatchHandler(sink, relay.Options{}), deliver.Options{
		Concurrency: b.c.Concurrency, BatchSize: b.c.Batch, NoDeadLetters: true,
		MaxInFlight: 2 * b.c.Concurrency * b.c.Batch})
	if t.left > 0 {
		err = errors.Join(err, context.Cause(ctx), fmt.Errorf("%d messages were not settled", t.left))
	}
	return t.took, err
}

// timed is a source that knows when it begins, and ends the run when all is settled.
type timed struct {
	ackwise.Source
	begin time.Time // of the one Receive that runs at a time
	cpu   time.Duration
	done  func()

	left int // belongs, like took, to the one Settle that runs at a time
	took spent
}

// Receive notes when the first message came.
func (t *timed) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	ds, err := t.Source.Receive(ctx, most)
	if len(ds) > 0 && t.begin.IsZero() {
		t.begin, t.cpu = time.Now(), bench.CPU()
	}
	return ds, err
}

// Settle counts what is acked.
func (t *timed) Settle(ctx context.Context, list []ackwise.Settlement) []ackwise.SettleResult {
	results := t.Source.Settle(ctx, list)
	for i := range results {
		if results[i].Err == nil && list[i].Outcome == ackwise.OutcomeAck {
			t.left--
		}
	}
	if t.left <= 0 && t.took == (spent{}) {
		t.took = since(t.begin, t.cpu)
		t.done()
	}
	return results
}
