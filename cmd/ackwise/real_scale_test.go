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

	"github.com/jackc/pgx/v5"
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
	scaleCopies     = 20 // each such one of the messages is published twice
)

// scaleRun is one group of processes on one topic.
type scaleRun struct {
	*fleet
	pool    *pgxpool.Pool
	topic   string
	session time.Duration
	sent    map[string]sentAs // by ID. Read once enough has ended.
	copies  int               // published beside sent. Read as sent is.
	before  int64             // positions that were written before
	count   atomic.Int64      // of sent
	enough  context.CancelFunc
}

// newScaleRun makes the topic and the tables.
func newScaleRun(t *testing.T) *scaleRun {
	t.Helper()
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
		sent: map[string]sentAs{}, fleet: &fleet{t: t, held: scaleHeld,
			cfg: scaleConfig{DSN: dsn, Tables: name, Dir: t.TempDir(), Pause: 30 * time.Millisecond}}}
	return r
}

// pipelines writes the file that all members run: one pipeline in which the command remembers what
// was done, and one that relies on the handler's inbox alone.
func (r *scaleRun) pipelines() {
	r.t.Helper()
	r.binary = buildCommand(r.t)
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
	var copies []ackwise.Message // of the batch before
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for r.count.Load() < least || enough.Err() == nil {
		if int(r.count.Load())-r.applied() < scaleBacklog {
			batch := r.batch(dice, places)
			for i, res := range sink.Publish(ctx, append(slices.Clone(batch), copies...)) {
				if res.Err != nil {
					return fmt.Errorf("publish %s: %w", append(batch, copies...)[i].ID, res.Err)
				}
			}
			r.copies += len(copies)
			copies = nil
			for i := 0; i < len(batch); i += scaleCopies {
				m := batch[i]
				m.Headers = []ackwise.Header{{Name: scaleCopy, Value: []byte("2")}}
				copies = append(copies, m)
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

// batch makes new messages.
func (r *scaleRun) batch(dice *rand.Rand, places map[string]int) []ackwise.Message {
	batch := make([]ackwise.Message, 100)
	for i := range batch {
		key := "k" + strconv.Itoa(dice.IntN(scaleKeys))
		if dice.IntN(5) == 0 {
			key = "hot" + strconv.Itoa(dice.IntN(scaleHot))
		}
		id := fmt.Sprintf("m-%07d", len(r.sent))
		batch[i] = ackwise.Message{ID: id, Key: key, Body: []byte(strconv.Itoa(places[key]))}
		r.sent[id] = sentAs{key, places[key]}
		places[key]++
	}
	return batch
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

// TestRealScale runs three processes of the command in each of two consumer groups; one is killed,
// one frozen, one joins and one leaves while they work.
func TestRealScale(t *testing.T) {
	r := newScaleRun(t)
	r.pipelines()
	r.play(3_000, 200_000)
	for _, pipe := range r.pipes {
		r.effects(pipe)
		r.ledgers(pipe, pipe == "transaction")
		var hs []*handOut
		for _, m := range r.all {
			hs = append(hs, handOutsOf(m.name, m.records(pipe).all)...)
		}
		j := &causeJudge{faults: r.faults}
		j.judge(hs)
		r.report(pipe, &j.findings)
		again := 0
		for _, h := range hs {
			if h.work == "again" {
				again++
			}
		}
		t.Logf("%-11s %d copies were published; %d times a handler found its effect made", pipe,
			r.copies, again)
		switch {
		case pipe == "dedup":
			r.report(pipe, judgeMemory(hs, r.faults))
		case again < r.copies/2:
			t.Errorf("%s: the copies did not come", pipe)
		}
		for _, reason := range []string{"failures", "rejected", "crashes", "hand-outs"} {
			if alive, killed := r.sum("dead_letters_total", pipe, reason); alive+killed > 0 {
				t.Errorf("%s: dead letters for %s: %d", pipe, reason, alive+killed)
			}
		}
	}
}

// play publishes, runs three members and lets the faults happen to them: one round, or six and many
// messages where there is time.
func (r *scaleRun) play(least, long int64) {
	t := r.t
	t.Helper()
	rounds := 1
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		least, rounds, r.cfg.Pause = long, 6, 4*time.Millisecond
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	admin := r.admin()
	r.before = r.positions(admin)
	admin.Close()
	published := r.publish(least, seed)
	r.wait("the first messages", func() bool { return r.count.Load() > 0 })
	began := time.Now()
	for i := range 3 {
		r.add(fmt.Sprintf("p%d", i))
	}
	for i := range rounds {
		for r.count.Load() < least*int64(i)/int64(rounds) { // so that they last as long as it does
			n := r.count.Load()
			r.wait("more messages", func() bool { return r.count.Load() > n })
		}
		r.round()
	}
	r.enough()
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	r.finish()
	t.Logf("%d messages and %d copies, %d rounds of faults, in %s", len(r.sent), r.copies, rounds,
		time.Since(began).Round(time.Second))
}

// report fails the test for what a judge found.
func (r *scaleRun) report(pipe string, f *findings) {
	r.t.Helper()
	for _, line := range f.lines() {
		r.t.Errorf("%s: %s", pipe, line)
	}
}

// effects judges what a pipeline left in the database.
func (r *scaleRun) effects(pipe string) {
	t := r.t
	t.Helper()
	read := func(columns, table string, into []any, each func()) {
		rows, err := r.pool.Query(t.Context(), "SELECT "+columns+" FROM "+r.cfg.Tables+table+
			" WHERE pipeline = $1", pipe)
		if err == nil {
			_, err = pgx.ForEachRow(rows, into, func() error {
				each()
				return nil
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var all []effect
	var e effect
	read("id, key, seq, place", "_effect", []any{&e.id, &e.key, &e.seq, &e.place},
		func() { all = append(all, e) })
	accounts := map[string]int{}
	var key string
	var n int
	read("key, n", "_account", []any{&key, &n}, func() { accounts[key] = n })
	f := judgeEffects(r.sent, all, accounts)
	r.report(pipe, f)
	t.Logf("%-11s %d messages of %d keys: %d effects; %d lost, %d doubled, %d out of order, %d wrong "+
		"accounts", pipe, len(r.sent), len(accounts), len(all), f.count["lost"], f.count["doubled"],
		f.count["out of order"], f.count["wrong account"])
}

// ledgers judges the members' metrics. all: each hand-out that ends a message is seen by a handler,
// so that the highest attempt of a message is how often it was handed out.
func (r *scaleRun) ledgers(pipe string, all bool) {
	t := r.t
	t.Helper()
	highest := map[string]int{}
	var ls []ledger
	for _, m := range r.all {
		for _, h := range handOutsOf(m.name, m.records(pipe).all) {
			highest[h.which()] = max(highest[h.which()], h.attempt)
		}
		l := m.ledger(pipe)
		ls = append(ls, l)
		var row strings.Builder
		for _, c := range causes() {
			fmt.Fprintf(&row, " %s %d/%d", c, l.handled[c], l.metrics[c])
		}
		t.Logf("%-11s %s handler/metrics:%s; acked %d, released %d, lost %d", pipe, m.name, &row,
			l.settled["ack"], l.settled["release"], l.lost)
	}
	total := 0
	for _, n := range highest {
		total += n
	}
	t.Logf("%-11s %d hand-outs by the handlers' records", pipe, total)
	if !all {
		total = 0
	}
	r.report(pipe, judgeLedgers(ls, len(r.sent)+r.copies, total, r.hidden()))
	for _, c := range []string{"rebalanced", "consumer-lost"} {
		if alive, _ := r.sum("deliveries_total", pipe, c); alive == 0 {
			t.Errorf("%s: no delivery has the cause %s: the fault did not fire", pipe, c)
		}
	}
}

// ledger reads what a member's metrics said last.
func (m *member) ledger(pipe string) ledger {
	l := ledger{member: m.name, killed: m.killed, handled: map[string]int{},
		metrics: map[string]int{}, settled: map[string]int{},
		lost: m.seen[series{"lease_expiries_total", pipe, ""}]}
	for s, n := range m.seen {
		switch {
		case s.pipeline != pipe:
		case s.name == "deliveries_total":
			l.metrics[s.label] = n
		case s.name == "settled_total":
			l.settled[s.label] = n
		}
	}
	for _, c := range causes() {
		l.handled[c] = m.count(pipe, "begin "+c)
	}
	return l
}

func (r *scaleRun) admin() *kadm.Client {
	r.t.Helper()
	broker, _, _ := strings.Cut(strings.TrimPrefix(r.topic, "kafka://"), "/")
	admin, err := kadm.NewOptClient(kgo.SeedBrokers(broker))
	if err != nil {
		r.t.Fatal(err)
	}
	return admin
}

// notes says how large the notes are that travel with the partitions.
func (r *scaleRun) notes() {
	r.t.Helper()
	_, topic, _ := strings.Cut(strings.TrimPrefix(r.topic, "kafka://"), "/")
	admin := r.admin()
	defer admin.Close()
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
	r.t.Logf("%d positions were written so far for %d effects of each group",
		r.positions(admin)-r.before, r.applied())
}

// positions is how many records the topic of the groups' positions has had.
func (r *scaleRun) positions(admin *kadm.Client) (written int64) {
	ends, err := admin.ListEndOffsets(r.t.Context(), "__consumer_offsets")
	if err != nil {
		r.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil { // else no group has been there yet
			written += o.Offset
		}
	})
	return written
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
	shown := r.shows("consumer-lost", r.alive()[1:])
	held := three[0].kill()
	t.Logf("%s is killed with deliveries at work: %v", three[0].name, held)
	r.comes("deliveries with cause consumer-lost", shown) // else the judges say more
	t.Logf("taken over after %s", time.Since(began).Round(time.Millisecond))

	r.join()

	r.notes()
	r.flows()
	r.freeze(three[1])

	r.flows()
	three[2].busy()
	took := three[2].stop()
	t.Logf("%s leaves: ended %s after SIGTERM", three[2].name, took.Round(time.Millisecond))
	r.add(fmt.Sprintf("p%d", len(r.all))).busy()
}

// join lets a member join while others hold deliveries that have to move. Where all that moved was
// at handlers, which end in time, nothing is delivered again: it leaves, and another one joins.
func (r *scaleRun) join() {
	r.t.Helper()
	for range 5 {
		r.flows()
		began := time.Now()
		shown := r.shows("rebalanced", r.alive())
		added := r.add(fmt.Sprintf("p%d", len(r.all)))
		r.fault("added", added)
		added.busy()
		if r.within(15*time.Second, shown) {
			r.t.Logf("%s joins: at work after %s", added.name,
				time.Since(began).Round(time.Millisecond))
			return
		}
		r.t.Logf("%s joins, and nothing that was held moved: it leaves", added.name)
		added.stop()
	}
	r.t.Error("no member joined while deliveries that others held had to move")
}

// flows waits until all members get new messages again: until then those that are suspected to have
// killed their process are handed out alone, and a partition that moves has nothing to give back.
func (r *scaleRun) flows() {
	r.t.Helper()
	fresh := func(m *member, pipe string) int { return m.count(pipe, "begin first") }
	for _, m := range r.alive() {
		for _, pipe := range r.pipes {
			before := fresh(m, pipe)
			r.wait(m.name+" gets new messages", func() bool { return fresh(m, pipe) > before+20 })
		}
	}
}

// shows notes how many deliveries of a cause some members have had in each pipeline, and returns
// whether they and newer members have had more since.
func (r *scaleRun) shows(cause string, ms []*member) (shown func() bool) {
	r.t.Helper()
	known := len(r.all)
	look := func() map[string]int {
		n := map[string]int{}
		for _, m := range append(ms, r.all[known:]...) {
			m.look()
			for _, pipe := range r.pipes {
				n[pipe] += m.handOuts(pipe, cause)
			}
		}
		return n
	}
	before := look()
	return func() bool {
		now := look()
		return !slices.ContainsFunc(r.pipes, func(pipe string) bool {
			return now[pipe] <= before[pipe]
		})
	}
}

// freeze stops a member where it stands, longer than its session, and wakes it.
func (r *scaleRun) freeze(m *member) {
	t := r.t
	t.Helper()
	var others []*member
	for _, o := range r.alive() {
		if o != m {
			others = append(others, o)
		}
	}
	before := m.lost()
	shown := r.shows("consumer-lost", others)
	over := r.fault("frozen", m)
	held := m.catch()
	r.comes("deliveries with cause consumer-lost", shown) // else the judges say more
	m.signal(syscall.SIGCONT)
	over()
	every := func(holds func(pipe string) bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(r.pipes, func(pipe string) bool { return !holds(pipe) })
		}
	}
	r.wait(m.name+" is refused what it settles late", every(func(pipe string) bool {
		return m.count(pipe, "lost") > before[pipe]
	}))
	begun := map[string]int{}
	for _, pipe := range r.pipes {
		begun[pipe] = m.count(pipe, "begin")
	}
	r.wait(m.name+" works again", every(func(pipe string) bool {
		return m.count(pipe, "begin") > begun[pipe]
	}))
	t.Logf("%s was frozen with deliveries at work: %v, and works again; refused: %v", m.name, held,
		m.lost())
}

// lost counts the deliveries of which a member was told that they are not its any more.
func (m *member) lost() map[string]int {
	n := map[string]int{}
	for _, pipe := range m.f.pipes {
		n[pipe] = m.count(pipe, "lost")
	}
	return n
}

// finish waits until all is done, and ends the members. What does not come is for the judges, too.
func (r *scaleRun) finish() {
	r.t.Helper()
	r.comes("all effects", func() bool { return r.applied() >= len(r.sent) })
	r.comes("the members hold nothing", func() bool {
		for _, m := range r.alive() {
			m.look()
			for _, pipe := range r.pipes {
				l := m.ledger(pipe)
				if handOuts, ended := l.balance(); handOuts != ended || r.binary == "" &&
					m.inFlight(pipe) > 0 {
					return false
				}
			}
		}
		return true
	})
	for _, m := range r.alive() {
		r.t.Logf("%s ended %s after SIGTERM", m.name, m.stop().Round(time.Millisecond))
	}
}
