package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/test/servers"
)

// Of the runs past one process.
const (
	scalePartitions = 12
	scaleKeys       = 600
	scaleHot        = 3   // keys that get a fifth of all
	scaleBacklog    = 400 // messages that wait, so that every member has work
	scaleHeld       = 64  // deliveries that a member holds in a pipeline
	scaleSession    = 4 * time.Second
)

// scaleRun is one group of processes on one topic.
type scaleRun struct {
	*fleet
	pool    *pgxpool.Pool
	topic   string
	session time.Duration
	sent    map[string]int // by ID: its place among those of its key. Read once enough has ended.
	count   atomic.Int64   // of sent
	enough  context.CancelFunc
}

// newScaleRun makes the topic and the tables.
func newScaleRun(t *testing.T) *scaleRun {
	broker := servers.Address(t, "ACKWISE_TEST_KAFKA")
	dsn := servers.Address(t, "ACKWISE_TEST_POSTGRES")
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := postgres.Migrate(t.Context(), postgres.PGX(pool), false); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("scale_%d", time.Now().UnixNano())
	for _, table := range []string{"_inbox (pipeline text, id text, PRIMARY KEY (pipeline, id))",
		"_account (pipeline text, key text, n int, PRIMARY KEY (pipeline, key))",
		"_effect (pipeline text, id text, key text, seq int, place int, member text)"} {
		if _, err := pool.Exec(t.Context(), "CREATE TABLE "+name+table); err != nil {
			t.Fatal(err)
		}
	}
	r := &scaleRun{pool: pool, topic: "kafka://" + broker + "/" + name, session: scaleSession,
		sent: map[string]int{}, fleet: &fleet{t: t, held: scaleHeld,
			cfg: scaleConfig{DSN: dsn, Tables: name, Dir: t.TempDir(), Pause: 30 * time.Millisecond}}}
	r.binary = buildCommand(t)
	return r
}

// pipelines writes the file that all members run: one pipeline in which the command remembers what
// was done, and one that relies on the handler's inbox alone.
func (r *scaleRun) pipelines() {
	r.t.Helper()
	text := "pipelines:\n"
	for _, p := range []struct{ name, pattern string }{
		{"dedup", "pattern: dedup\n    dedup: {store: \"" + r.cfg.DSN + "&name=" + r.cfg.Tables +
			"\", lease: 5s}"},
		{"transaction", "pattern: transaction"}} {
		r.pipes = append(r.pipes, p.name)
		text += fmt.Sprintf(`  - name: %s
    from: %s?group=%s&session-timeout=%s
    pipe: exec env %s=%s %s
    %s
    dead: %s_dead
    create: true
    concurrency: 4
    max_in_flight: %d
    backoff: {first: 100ms}
`, p.name, r.topic, p.name, r.session, scalePipeline, p.name, os.Args[0], p.pattern, r.topic,
			r.held)
	}
	r.file = writeFile(r.t, "scale.yaml", text)
}

// publish publishes until enough is called and at least so many are there; it keeps a backlog.
func (r *scaleRun) publish(least int64, seed uint64) (done chan error) {
	ctx, enough := context.WithCancel(r.t.Context())
	r.enough = enough
	done = make(chan error, 1)
	go func() { // ends with enough, or with the test
		done <- r.publishAll(ctx, least, seed)
	}()
	return done
}

func (r *scaleRun) publishAll(enough context.Context, least int64, seed uint64) error {
	ctx := r.t.Context()
	o, err := kafka.ParseSink(r.topic + "?create=true&partitions=" + strconv.Itoa(scalePartitions))
	if err != nil {
		return err
	}
	sink, err := kafka.OpenSink(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = sink.Close() }()
	dice := rand.New(rand.NewPCG(seed, 0))
	places := map[string]int{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for r.count.Load() < least || enough.Err() == nil {
		if int(r.count.Load())-r.applied() < scaleBacklog {
			batch := make([]ackwise.Message, 100)
			for i := range batch {
				key := "k" + strconv.Itoa(dice.IntN(scaleKeys))
				if dice.IntN(5) == 0 {
					key = "hot" + strconv.Itoa(dice.IntN(scaleHot))
				}
				id := fmt.Sprintf("m-%07d", len(r.sent))
				batch[i] = ackwise.Message{ID: id, Key: key, Body: []byte(strconv.Itoa(places[key]))}
				r.sent[id] = places[key]
				places[key]++
			}
			for i, res := range sink.Publish(ctx, batch) {
				if res.Err != nil {
					return fmt.Errorf("publish %s: %w", batch[i].ID, res.Err)
				}
			}
			r.count.Add(int64(len(batch)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// applied is how many messages have had their effect in the pipeline that is behind.
func (r *scaleRun) applied() int {
	least := -1
	for _, pipe := range r.pipes {
		var n int
		err := r.pool.QueryRow(r.t.Context(), "SELECT coalesce(sum(n), 0) FROM "+r.cfg.Tables+
			"_account WHERE pipeline = $1", pipe).Scan(&n)
		if err != nil {
			return 1 << 30
		}
		if least < 0 || n < least {
			least = n
		}
	}
	return least
}

// TestRealScale runs three processes in each of two consumer groups; one is killed, one frozen, one
// joins and one leaves while they work.
func TestRealScale(t *testing.T) {
	r := newScaleRun(t)
	r.pipelines()
	least, rounds := int64(4_000), 1
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		least, rounds = 200_000, 6
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	published := r.publish(least, seed)
	r.wait("the first messages", func() bool { return r.count.Load() > 0 })
	began := time.Now()
	for i := range 3 {
		r.add(fmt.Sprintf("p%d", i))
	}
	for range rounds {
		r.round()
	}
	r.enough()
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	r.finish()
	t.Logf("%d messages in two pipelines, %d rounds of faults, in %s", len(r.sent), rounds,
		time.Since(began).Round(time.Second))
	for _, pipe := range r.pipes {
		j := &judge{t, r.fleet, r.pool, pipe, r.sent}
		j.effects()
		j.books(pipe == "transaction")
		for _, reason := range []string{"failures", "rejected", "crashes", "hand-outs"} {
			if alive, killed := r.sum("dead_letters_total", pipe, reason); alive+killed > 0 {
				t.Errorf("%s: dead letters for %s: %d", pipe, reason, alive+killed)
			}
		}
	}
}

// notes says how large the notes are that travel with the partitions.
func (r *scaleRun) notes() {
	r.t.Helper()
	broker, topic, _ := strings.Cut(strings.TrimPrefix(r.topic, "kafka://"), "/")
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker))
	if err != nil {
		r.t.Fatal(err)
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	for _, pipe := range r.pipes {
		at, err := admin.FetchOffsets(r.t.Context(), pipe)
		if err != nil {
			r.t.Fatal(err)
		}
		most, all := 0, 0
		for _, o := range at[topic] {
			most, all = max(most, len(o.Metadata)), all+len(o.Metadata)
		}
		r.t.Logf("%s: notes of %d partitions: %d bytes in all, the largest %d", pipe, len(at[topic]),
			all, most)
	}
	ends, err := admin.ListEndOffsets(r.t.Context(), "__consumer_offsets")
	if err != nil {
		r.t.Fatal(err)
	}
	written := int64(0)
	ends.Each(func(o kadm.ListedOffset) { written += o.Offset })
	acked := 0
	for _, m := range r.all {
		m.look()
		for _, pipe := range r.pipes {
			acked += m.seen[series{"settled_total", pipe, "ack"}]
		}
	}
	r.t.Logf("%d positions were written for %d messages", written, acked)
}

// alive are the members that run.
func (r *scaleRun) alive() []*member {
	var ms []*member
	for _, m := range r.all {
		if m.ProcessState == nil {
			ms = append(ms, m)
		}
	}
	return ms
}

// round makes one fault after the other, each once the one before shows: the oldest member is
// killed, a new one joins, the second oldest is frozen and wakes, the third oldest leaves.
func (r *scaleRun) round() {
	t := r.t
	t.Helper()
	three := r.alive()[:3]
	r.flows()
	began := time.Now()
	r.faults++
	shown := r.shows("consumer-lost", r.alive()[1:])
	held := three[0].kill()
	t.Logf("%s is killed with deliveries in flight: %v", three[0].name, held)
	shown()
	t.Logf("taken over after %s", time.Since(began).Round(time.Millisecond))

	r.flows()
	began = time.Now()
	shown = r.shows("rebalanced", r.alive())
	added := r.add(fmt.Sprintf("p%d", len(r.all)))
	added.busy()
	shown()
	t.Logf("%s joins: at work after %s", added.name, time.Since(began).Round(time.Millisecond))

	r.notes()
	r.freeze(three[1])

	r.flows()
	three[2].busy()
	took := three[2].stop()
	t.Logf("%s leaves: ended %s after SIGTERM", three[2].name, took.Round(time.Millisecond))
	r.add(fmt.Sprintf("p%d", len(r.all))).busy()
}

// flows waits until all members get new messages again: until then those that are suspected to have
// killed their process are handed out alone, and a partition that moves has nothing to give back.
func (r *scaleRun) flows() {
	r.t.Helper()
	fresh := func(m *member, pipe string) (n int) {
		for _, rec := range m.records(pipe) {
			if rec.What == "begin" && rec.Cause == "first" {
				n++
			}
		}
		return n
	}
	for _, m := range r.alive() {
		for _, pipe := range r.pipes {
			before := fresh(m, pipe)
			r.wait(m.name+" gets new messages", func() bool { return fresh(m, pipe) > before+20 })
		}
	}
}

// shows notes how many deliveries of a cause some members have had in each pipeline, and returns
// what waits until they and newer members have had more.
func (r *scaleRun) shows(cause string, ms []*member) (shown func()) {
	r.t.Helper()
	known := len(r.all)
	look := func() map[string]int {
		n := map[string]int{}
		for _, m := range append(ms, r.all[known:]...) {
			if !m.look() {
				continue
			}
			for _, pipe := range r.pipes {
				n[pipe] += m.seen[series{"deliveries_total", pipe, cause}]
			}
		}
		return n
	}
	before := look()
	return func() {
		r.t.Helper()
		r.wait("deliveries with cause "+cause, func() bool {
			now := look()
			return !slices.ContainsFunc(r.pipes, func(pipe string) bool {
				return now[pipe] <= before[pipe]
			})
		})
	}
}

// freeze stops a member where it stands, longer than its session, and wakes it.
func (r *scaleRun) freeze(m *member) {
	t := r.t
	t.Helper()
	m.busy()
	m.look()
	var others []*member
	for _, o := range r.alive() {
		if o != m {
			others = append(others, o)
		}
	}
	before := m.lost()
	r.faults++
	shown := r.shows("consumer-lost", others)
	m.signal(syscall.SIGSTOP)
	shown()
	m.signal(syscall.SIGCONT)
	r.wait(m.name+" is refused what it settles late", func() bool {
		lost := m.lost()
		return m.look() && lost["dedup"] > before["dedup"] &&
			lost["transaction"] > before["transaction"]
	})
	begun := map[string]int{}
	for _, pipe := range r.pipes {
		begun[pipe] = m.count(pipe, "begin")
	}
	r.wait(m.name+" works again", func() bool {
		for _, pipe := range r.pipes {
			if m.count(pipe, "begin") <= begun[pipe] {
				return false
			}
		}
		return true
	})
	t.Logf("%s was frozen and works again; refused: %v", m.name, m.lost())
}

// lost counts the deliveries of which a member's handlers were told that they are not theirs.
func (m *member) lost() map[string]int {
	n := map[string]int{}
	for _, pipe := range m.f.pipes {
		n[pipe] = m.count(pipe, "lost")
	}
	return n
}

// finish waits until all is done, and ends the members.
func (r *scaleRun) finish() {
	r.t.Helper()
	r.wait("all effects", func() bool { return r.applied() >= len(r.sent) })
	for _, m := range r.alive() {
		r.wait(m.name+" holds nothing", func() bool {
			m.look()
			return !slices.ContainsFunc(r.pipes, func(pipe string) bool {
				handOuts, ended := m.balance(pipe)
				return handOuts != ended
			})
		})
	}
	for _, m := range r.alive() {
		r.t.Logf("%s ended %s after SIGTERM", m.name, m.stop().Round(time.Millisecond))
	}
}
