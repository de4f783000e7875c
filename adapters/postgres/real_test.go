package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pgtest"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/test/servers"
)

func TestInboxAppliesOnceAndSettles(t *testing.T) {
	b := newBed(t)
	h, src := bound(t, postgres.PGX(b.pool), add, options("in"))
	for range 100 {
		if err := h.Handle(t.Context(), delivery("a", "x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.total(t); got != 1 || len(src.acks) != 100 {
		t.Errorf("100 deliveries made %d effects and %d acks, want 1 and 100", got, len(src.acks))
	}
	err := h.Handle(t.Context(), delivery("a", "another body"))
	if v := ackwise.OutcomeOf(err); v.Outcome != ackwise.OutcomeDead ||
		!errors.Is(err, ackwise.ErrIDConflict) {
		t.Errorf("the same ID with another body: %v, want a reject for ErrIDConflict", err)
	}
	err = h.Handle(t.Context(), delivery("", "x"))
	if v := ackwise.OutcomeOf(err); v.Outcome != ackwise.OutcomeDead {
		t.Errorf("a delivery without an ID: %v, want a reject", err)
	}
	if got := b.total(t); got != 1 {
		t.Errorf("%d effects after the bad ones, want 1", got)
	}
}

func TestInboxThroughSQL(t *testing.T) {
	b := newBed(t)
	db := stdlib.OpenDBFromPool(b.pool)
	t.Cleanup(func() { _ = db.Close() })
	o := options("in")
	o.Pipeline = "numbers/sum"
	count := func(ctx context.Context, tx *sql.Tx, _ *ackwise.Delivery) error {
		_, err := tx.ExecContext(ctx, "UPDATE sums SET total = total + 1")
		return err
	}
	h, _ := bound(t, postgres.SQL(db), count, o)
	for i, at := range []ackwise.Position{"0002", "0001"} {
		d := delivery(fmt.Sprint(i), "x")
		d.Partition, d.Position = "p", at
		if err := errors.Join(h.Handle(t.Context(), d), h.Handle(t.Context(), d)); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.total(t); got != 2 {
		t.Errorf("two messages, delivered twice each, made %d effects", got)
	}
	at, err := postgres.Positions(t.Context(), postgres.SQL(db), "numbers/sum")
	if err != nil || len(at) != 1 || at["p"] != "0002" {
		t.Errorf("positions %v, %v, want p at 0002, the highest", at, err)
	}
}

func TestInboxRollsBackWithItsHandler(t *testing.T) {
	b := newBed(t)
	broken := errors.New("broken")
	fail := true
	h, src := bound(t, postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
			if err := add(ctx, tx, d); err != nil || !fail {
				return err
			}
			return ackwise.RetryAfter(broken, time.Second)
		}, options("in"))
	err := h.Handle(t.Context(), delivery("a", "x"))
	if v := ackwise.OutcomeOf(err); !errors.Is(err, broken) || v.Delay != time.Second {
		t.Errorf("a failing handler: %v, want what it returned", err)
	}
	if got := b.total(t); got != 0 || len(src.acks) != 0 {
		t.Errorf("a failed handler left %d effects and %d acks", got, len(src.acks))
	}
	fail = false
	if err := h.Handle(t.Context(), delivery("a", "x")); err != nil || b.total(t) != 1 {
		t.Errorf("after its failure: %v, total %d", err, b.total(t))
	}
	src.err = fmt.Errorf("the source is away: %w", ackwise.ErrClosed)
	if err := h.Handle(t.Context(), delivery("b", "x")); !errors.Is(err, src.err) {
		t.Errorf("an ack that fails: %v, want the source's error: nil would say it is settled", err)
	}
	src.err = nil
	if err := h.Handle(t.Context(), delivery("b", "x")); err != nil || b.total(t) != 2 {
		t.Errorf("its redelivery: %v, total %d, want 2", err, b.total(t))
	}
}

func TestInboxPutsADuplicateOffWhileTheFirstWorks(t *testing.T) {
	b := newBed(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	h, src := bound(t, postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
			close(begun)
			<-finish
			return add(ctx, tx, d)
		}, options("in"))
	first := make(chan error, 1)
	go func() { first <- h.Handle(t.Context(), delivery("a", "x")) }()
	<-begun
	err := h.Handle(t.Context(), delivery("a", "x"))
	if v := ackwise.OutcomeOf(err); v.Outcome != ackwise.OutcomeSnooze || len(src.acks) != 0 {
		t.Errorf("the duplicate of a running one: %v and %d acks, want it snoozed", err, len(src.acks))
	}
	close(finish)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if err := h.Handle(t.Context(), delivery("a", "x")); err != nil || b.total(t) != 1 {
		t.Errorf("the duplicate afterwards: %v, total %d", err, b.total(t))
	}
}

// TestInboxRaces has many consumers on few IDs, over both isolation levels. The effect reads and
// writes a row, and the first two transactions are open at the same time, so that of serializable
// ones one really fails and is made again.
func TestInboxRaces(t *testing.T) {
	for _, serializable := range []bool{false, true} {
		t.Run(fmt.Sprintf("serializable=%t", serializable), func(t *testing.T) {
			b := newBed(t)
			o := options("in")
			o.Serializable = serializable
			m := newMeeting()
			h, _ := bound(t, postgres.PGX(b.pool),
				func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
					m.come(ctx)
					return add(ctx, tx, d)
				}, o)
			const ids, each = 20, 6
			var wg sync.WaitGroup
			for i := range ids * each {
				wg.Go(func() {
					d := delivery(fmt.Sprint("m", i%ids), "x")
					for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
						err := h.Handle(t.Context(), d)
						if err == nil || t.Context().Err() != nil {
							tick.Stop()
							return
						}
					}
				})
			}
			wg.Wait()
			if got := b.total(t); got != ids {
				t.Errorf("%d messages made %d effects (%d calls)", ids, got, m.calls.Load())
			}
			if serializable && m.calls.Load() == ids {
				t.Error("no transaction was made again: the test shows nothing")
			}
		})
	}
}

// givenUp is the error of a transaction that the server gave up for another's sake.
type givenUp struct{}

func (givenUp) Error() string    { return "could not serialize access" }
func (givenUp) SQLState() string { return "40001" }

func TestInboxMakesATransactionAgainButNotForEver(t *testing.T) {
	b := newBed(t)
	calls, fails := 0, 2
	h, _ := bound(t, postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
			if calls++; calls <= fails {
				return errors.Join(add(ctx, tx, d), fmt.Errorf("add: %w", givenUp{}))
			}
			return add(ctx, tx, d)
		}, options("in"))
	err := h.Handle(t.Context(), delivery("a", "x"))
	if err != nil || calls != 3 || b.total(t) != 1 {
		t.Errorf("given up twice: %v after %d calls, total %d", err, calls, b.total(t))
	}
	calls, fails = 0, 1000
	err = h.Handle(t.Context(), delivery("b", "x"))
	if v := ackwise.OutcomeOf(err); !errors.Is(err, givenUp{}) || calls != 10 ||
		v.Outcome != ackwise.OutcomeSnooze || b.total(t) != 1 {
		t.Errorf("given up each time: %v after %d calls, total %d", err, calls, b.total(t))
	}
}

func TestInboxBatch(t *testing.T) {
	b := newBed(t)
	var sizes []int
	h, err := postgres.InboxBatch(t.Context(), postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, ds []*ackwise.Delivery) error {
			sizes = append(sizes, len(ds))
			for _, d := range ds {
				if string(d.Body) == "poison" {
					return errors.New("poison")
				}
				if err := add(ctx, tx, d); err != nil {
					return err
				}
			}
			return nil
		}, options("in"))
	if err != nil {
		t.Fatal(err)
	}
	src := &fakeSource{}
	if err := h.Bind(src); err != nil {
		t.Fatal(err)
	}
	batch := []*ackwise.Delivery{delivery("a", "1"), delivery("b", "2"), delivery("a", "1"),
		delivery("a", "other")}
	errs := h.HandleBatch(t.Context(), batch)
	if errors.Join(errs[:3]...) != nil || !errors.Is(errs[3], ackwise.ErrIDConflict) {
		t.Errorf("a batch with a repeated ID: %v", errs)
	}
	if b.total(t) != 2 || len(sizes) != 1 || sizes[0] != 2 || len(src.acks) != 3 {
		t.Errorf("total %d by calls of %v, %d acks; want 2 by one call of 2, and 3 acks", b.total(t),
			sizes, len(src.acks))
	}
	keyed := func(id, body string) *ackwise.Delivery {
		d := delivery(id, body)
		d.Key = "k"
		return d
	}
	batch = []*ackwise.Delivery{delivery("c", "3"), keyed("d", "poison"), keyed("e", "4"),
		delivery("f", "5"), delivery("b", "2")}
	errs = h.HandleBatch(t.Context(), batch)
	if errs[0] != nil || errs[1] == nil || errs[2] == nil || errs[3] != nil || errs[4] != nil {
		t.Errorf("one poison in a batch: %v, want it and what is behind it of its key to fail", errs)
	}
	if got := b.total(t); got != 4 {
		t.Errorf("total %d, want 4", got)
	}
}

func TestInboxRefusesAtStart(t *testing.T) {
	b := newBed(t)
	ctx, db := t.Context(), postgres.PGX(b.pool)
	_, err := postgres.Inbox(ctx, db, add, postgres.InboxOptions{Name: "in", Again: 2 * time.Hour,
		Window: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "is 1h0m0s") ||
		!strings.Contains(err.Error(), "after 2h0m0s") {
		t.Errorf("a window that is too short: %v, want both figures", err)
	}
	b.exec(t, "INSERT INTO ackwise_store VALUES ('in', 'order number, total', 1000)")
	_, err = postgres.Inbox(ctx, db, add, options("in"))
	var rule *idempotency.RuleError
	if !errors.As(err, &rule) || rule.Kept != "order number, total" || rule.Got != "id, body" {
		t.Errorf("a name with another rule: %v, want a *RuleError with both", err)
	}
	h, err := postgres.Inbox(ctx, db, add, options("other"))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Handle(ctx, delivery("a", "x")); err == nil || b.total(t) != 0 {
		t.Errorf("an inbox that is not bound: %v, total %d", err, b.total(t))
	}
	first := &fakeSource{}
	if err := errors.Join(h.Bind(first), h.Bind(first)); err != nil {
		t.Error(err)
	}
	if h.Bind(&fakeSource{}) == nil {
		t.Error("an inbox was bound to a second source")
	}
	if err := deliver.Run(ctx, first, h, deliver.Options{NoDeadLetters: true}); err == nil {
		t.Error("a loop that acks by itself took an inbox")
	}
}

// TestInboxLosesItsConnection cuts the connection before the commit, again and again.
func TestInboxLosesItsConnection(t *testing.T) {
	const messages, cuts = 30, 10
	var ids []string
	for i := range messages {
		ids = append(ids, fmt.Sprint("m", i))
	}
	b := newBed(t, ids...)
	var cut atomic.Int64
	other := pgtest.Connect(t, b.pool.Config().ConnString()) // b.pool's are all with the handlers
	h, err := postgres.Inbox(t.Context(), postgres.PGX(b.pool),
		func(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
			if err := add(ctx, tx, d); err != nil {
				return err
			}
			if d.Attempt == 1 && cut.Load() < cuts {
				cut.Add(1)
				pid := tx.Conn().PgConn().PID()
				_, err := other.Exec(ctx, "SELECT pg_terminate_backend($1, 5000)", pid)
				return err
			}
			return nil
		}, options("in"))
	if err != nil {
		t.Fatal(err)
	}
	b.drain(t, h, messages)
	if got := b.total(t); got != messages || cut.Load() != cuts {
		t.Errorf("total %d after %d cuts, want %d and %d", got, cut.Load(), messages, cuts)
	}
}

// TestInboxUnderKills kills the consumer process at random points and sums numbers in the database.
// The oracle is the sum of what was published.
func TestInboxUnderKills(t *testing.T) {
	kills := 10
	if long() {
		kills = 1000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	server := address(t)
	pool := pgtest.Pool(t, server)
	b := &bed{pool: pool}
	b.exec(t, "CREATE TABLE sums (id int PRIMARY KEY, total bigint NOT NULL)")
	b.exec(t, "INSERT INTO sums VALUES (1, 0)")
	dir := t.TempDir()
	var want, published int64
	more := func() {
		b.openStore(t, dir)
		for range 300 {
			published++
			n := random.Int64N(1000)
			want += n
			b.publish(t, ackwise.Message{ID: fmt.Sprint(published), Topic: "numbers",
				Body: []byte(strconv.FormatInt(n, 10))})
		}
		if err := b.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	o := order{Dir: dir, Address: pool.Config().ConnString()}
	for inside := 0; inside < kills; {
		if b.total(t) == want {
			more() // all is done: a kill would show nothing
		}
		c := startChild(t, o)
		timer := time.NewTimer(time.Duration(random.Int64N(int64(60 * time.Millisecond))))
		<-timer.C
		c.kill(t)
		if b.total(t) < want {
			inside++
		}
	}
	b.openStore(t, dir)
	h, err := postgres.Inbox(t.Context(), postgres.PGX(pool), addNumber, options("in"))
	if err != nil {
		t.Fatal(err)
	}
	books := b.drain(t, h, published)
	if got := b.total(t); got != want {
		t.Errorf("after %d kills the sum is %d, want %d (seed %d)", kills, got, want, seed)
	}
	if books.Causes[ackwise.CauseRestarted]+books.Causes[ackwise.CauseConsumerLost] == 0 {
		t.Errorf("no kill met a message in flight: the test shows nothing (%+v)", books.Causes)
	}
	t.Logf("%d kills, %d messages, hand-outs by cause %v", kills, published, books.Causes)
}

// TestInboxWhileTheServerIsKilled kills the database server itself while the inbox is in use.
func TestInboxWhileTheServerIsKilled(t *testing.T) {
	kills := 1
	if long() {
		kills = 20
	}
	server := servers.Start(t, "postgres")
	const messages = 400
	b := &bed{pool: pgtest.Pool(t, server.Address)}
	b.exec(t, "CREATE TABLE sums (id int PRIMARY KEY, total bigint NOT NULL)")
	b.exec(t, "INSERT INTO sums VALUES (1, 0)")
	b.openStore(t, t.TempDir())
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		h, err := postgres.Inbox(t.Context(), postgres.PGX(b.pool), add, options("in"))
		if err != nil {
			t.Error(err)
			return
		}
		r, err := b.store.Receiver(t.Context(), "numbers", "sum", queue.ReceiverOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { <-done; cancel() })
		if err := deliver.Run(ctx, r, h, eager()); err != nil {
			t.Error(err)
		}
	})
	published := int64(0)
	publish := func() {
		for range messages {
			published++
			b.publish(t, ackwise.Message{ID: fmt.Sprint(published), Topic: "numbers"})
		}
	}
	for range kills {
		before := published
		publish()
		pgtest.Until(t, "the inbox is at work", func() bool { return b.books(t).Acked > before+20 })
		server.Kill(t)
		server.Restart(t)
	}
	publish()
	pgtest.Until(t, "all is settled", func() bool { return b.books(t).Acked == published })
	close(done)
	wg.Wait()
	if got := b.total(t); got != published {
		t.Errorf("after %d kills of the server %d effects, want %d", kills, got, published)
	}
	if b.books(t).Failures == 0 {
		t.Error("no delivery met a dead server: the test shows nothing")
	}
}

func TestOutboxGoesWithItsTransaction(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{})
	want := ackwise.Message{ID: `an "ID" \ {x}`, Topic: "orders", Key: "\x00\xff key",
		Headers: []ackwise.Header{{Name: "a", Value: []byte{0, 1}}, {Name: "a", Value: []byte("x")}},
		Body:    []byte{0, 255, '\\'}, Time: time.Unix(0, 1_700_000_000_123_456_789).UTC()}
	tx := b.begin()
	ids, err := b.box.Publish(b.ctx, tx, want, ackwise.Message{Topic: "t", Body: []byte{}},
		ackwise.Message{Topic: "t"})
	b.check(err)
	b.nothing(src)
	b.check(tx.Commit(b.ctx))
	rolled := b.begin()
	b.write(rolled, "", "never")
	b.check(rolled.Rollback(b.ctx))
	ds := b.receive(src, 10, ids...)
	if !reflect.DeepEqual(ds[0].Message, want) {
		t.Errorf("received %+v, want %+v", ds[0].Message, want)
	}
	if ds[1].Body == nil || len(ds[1].Body) != 0 || ds[2].Body != nil || !ds[2].Time.IsZero() {
		t.Errorf("bodies %v and %v, want an empty one and none", ds[1].Body, ds[2].Body)
	}
	b.want(ds[0], ackwise.CauseFirst, ackwise.Counts{HandOuts: 1}, false)
	b.ack(src, ds...)
	b.nothing(src)
	if _, err := b.box.Publish(b.ctx, b.begin(), ackwise.Message{}); err == nil {
		t.Error("a message without a topic was taken")
	}

	db := stdlib.OpenDBFromPool(b.pool)
	t.Cleanup(func() { _ = db.Close() })
	box, err := postgres.NewOutbox(postgres.SQL(db), postgres.OutboxOptions{Name: "out"})
	b.check(err)
	stx, err := db.BeginTx(b.ctx, nil)
	b.check(err)
	_, err = box.Publish(b.ctx, stx, ackwise.Message{ID: "by sql", Topic: "t"})
	b.check(err)
	b.check(stx.Commit())
	other, err := postgres.NewOutboxSource(b.ctx, postgres.SQL(db),
		postgres.OutboxSourceOptions{Name: "out", Poll: time.Hour})
	b.check(err)
	b.ack(other, b.receive(other, 10, "by sql")...)
	b.committed("", "wakes sql")
	b.ack(other, b.receive(other, 10, "wakes sql")...)
	b.check(other.Close())
}

// TestOutboxNeverSkipsALateCommit: a transaction that wrote first and commits last, behind one that
// was read and acked.
func TestOutboxNeverSkipsALateCommit(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{})
	late := b.begin()
	b.write(late, "", "late 1")
	b.write(late, "k", "late 2")
	b.committed("", "early 1")
	b.committed("other", "early 2")
	b.ack(src, b.receive(src, 10, "early 1", "early 2")...)
	b.nothing(src)
	b.check(late.Commit(b.ctx))
	b.ack(src, b.receive(src, 10, "late 1", "late 2")...)
	if n := scalar[int](t, b.pool, "SELECT count(*) FROM ackwise_outbox"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestOutboxKeepsTheOrderOfAUsersLock: the transaction that had to wait for the account's row began
// first, so that its number is the lower one. An order by the transactions' numbers is wrong here.
func TestOutboxKeepsTheOrderOfAUsersLock(t *testing.T) {
	b := newOutbed(t)
	b.accounts(2)
	const lock = "SELECT n FROM accounts WHERE id = 1 FOR UPDATE"
	src := b.source(postgres.OutboxSourceOptions{})
	older, younger := b.begin(), b.begin()
	_, err := older.Exec(b.ctx, "SELECT pg_current_xact_id()")
	b.check(err)
	_, err = younger.Exec(b.ctx, lock)
	b.check(err)
	b.write(younger, "account 1", "1")
	waited := make(chan error, 1)
	go func() {
		_, err := older.Exec(b.ctx, lock)
		waited <- err
	}()
	b.check(younger.Commit(b.ctx))
	b.check(<-waited)
	ds := b.receive(src, 10, "1") // at once, though the older transaction goes on
	b.write(older, "account 1", "2")
	b.check(older.Commit(b.ctx))
	b.nothing(src) // the key is in our hands
	b.ack(src, ds...)
	b.ack(src, b.receive(src, 10, "2")...)
}

// TestOutboxKeyHasOneLease: a message that was written before, by a transaction that nothing
// ordered, comes while a later one of its key is handed out.
func TestOutboxKeyHasOneLease(t *testing.T) {
	b := newOutbed(t)
	src, other := b.source(postgres.OutboxSourceOptions{}), b.source(postgres.OutboxSourceOptions{})
	late := b.begin()
	b.write(late, "k", "1")
	b.committed("k", "2", "3")
	ds := b.receive(src, 10, "2")
	b.check(late.Commit(b.ctx))
	b.nothing(other)
	b.ack(src, ds...)
	b.ack(other, b.receive(other, 10, "1")...)
	b.ack(src, b.receive(src, 10, "3")...)
}

func TestOutboxSettlements(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{})
	b.committed("k", "1", "2", "3")
	d := b.receive(src, 10, "1")[0]
	b.check(b.settle(src, d, ackwise.OutcomeNack, 30*time.Millisecond).Err)
	if r := b.settle(src, d, ackwise.OutcomeNack, 0); r.Err != nil || !r.Already {
		t.Errorf("a repeated nack: %+v, want already", r)
	}
	if r := b.settle(src, d, ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrSettled) {
		t.Errorf("an ack after a nack: %+v, want ErrSettled", r)
	}
	d2 := b.receive(src, 10, "1")[0] // after its delay, and before the others of its key
	b.want(d2, ackwise.CauseFailed, ackwise.Counts{HandOuts: 2, Failures: 1}, false)
	if r := b.settle(src, d, ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
		t.Errorf("an ack by an old token: %+v, want ErrLeaseLost", r)
	}
	b.check(b.settle(src, d2, ackwise.OutcomeSnooze, time.Millisecond).Err)
	d2 = b.receive(src, 10, "1")[0]
	b.want(d2, ackwise.CauseSnoozed, ackwise.Counts{HandOuts: 3, Failures: 1}, false)
	if r := b.settle(src, d2, ackwise.OutcomeExtend, time.Hour); r.Err != nil ||
		time.Until(r.Deadline) < 59*time.Minute {
		t.Errorf("extend: %+v", r)
	}
	b.check(b.settle(src, d2, ackwise.OutcomeRelease, 0).Err)
	d2 = b.receive(src, 10, "1")[0]
	b.want(d2, ackwise.CauseReleased, ackwise.Counts{HandOuts: 4, Failures: 1}, false)
	b.check(b.settle(src, d2, ackwise.OutcomeDead, 0).Err)
	d3 := b.receive(src, 10, "2")[0]
	b.ack(src, d3)
	if r := b.settle(src, d3, ackwise.OutcomeAck, 0); r.Err != nil || !r.Already {
		t.Errorf("a repeated ack: %+v, want already", r)
	}
	d3 = b.receive(src, 10, "3")[0]
	b.check(b.settle(src, d3, ackwise.OutcomeDrop, 0).Err)
	b.nothing(src)

	letters, err := b.box.Dead(b.ctx, 0, 10)
	b.check(err)
	if len(letters) != 1 || letters[0].ID != "1" || letters[0].Key != "k" ||
		letters[0].Reason != "the reason" || letters[0].Counts.HandOuts != 4 {
		t.Fatalf("dead letters %+v, want 1", letters)
	}
	n, err := b.box.Redrive(b.ctx, letters[0].Row)
	if b.check(err); n != 1 {
		t.Errorf("%d letters redriven", n)
	}
	d = b.receive(src, 10, "1")[0]
	b.want(d, ackwise.CauseRedriven, ackwise.Counts{HandOuts: 5, Redrives: 1}, false)
	b.ack(src, d)
	for _, token := range []ackwise.LeaseToken{"", "x", "1.x", "-1.1"} {
		d.Token = token
		if r := b.settle(src, d, ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrBadToken) {
			t.Errorf("the token %q: %+v, want ErrBadToken", token, r)
		}
	}
}

func TestOutboxLeaseRunsOut(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{Lease: 60 * time.Millisecond})
	b.committed("", "1", "2")
	old := b.receive(src, 10, "1", "2")
	for i := range old { // each may be what made its holder stall, so it runs alone
		d := b.receive(src, 10, old[i].ID)[0]
		b.want(d, ackwise.CauseLeaseExpired, ackwise.Counts{HandOuts: 2, Crashes: 1}, true)
		select {
		case <-old[i].Lost():
		default:
			t.Errorf("%s was not told that its lease is lost", d.ID)
		}
		if i == 0 {
			b.ack(src, d)
		}
	}
	if r := b.settle(src, old[1], ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
		t.Errorf("an ack by the former holder: %+v, want ErrLeaseLost", r)
	}
}

// TestOutboxReaderKilled kills a reader that holds one message, and one that holds several.
func TestOutboxReaderKilled(t *testing.T) {
	b := newOutbed(t)
	b.committed("k", "1")
	o := order{Address: b.pool.Config().ConnString(), Hold: 1}
	startChild(t, o).kill(t)
	src := b.source(postgres.OutboxSourceOptions{Poll: 20 * time.Millisecond})
	d := b.receive(src, 10, "1")[0] // long before the lease, an hour, is over
	b.want(d, ackwise.CauseConsumerLost, ackwise.Counts{HandOuts: 2, Crashes: 1}, true)
	b.ack(src, d)

	b.committed("", "2", "3")
	o.Hold = 2
	startChild(t, o).kill(t)
	pgtest.Until(t, "the server has seen it", func() bool { // our own session is left
		return scalar[int](t, b.pool, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'
			AND classid = ackwise_outbox_class()::oid AND objsubid = 2`) == 1
	})
	b.committed("", "4")
	held := b.receive(src, 10, "2")[0] // suspects come alone, before the others
	b.want(held, ackwise.CauseConsumerLost, ackwise.Counts{HandOuts: 2}, true)
	b.nothing(src)
	b.ack(src, held)
	b.ack(src, b.receive(src, 10, "3")...)
	b.ack(src, b.receive(src, 10, "4")...)
}

func TestOutboxSessionCut(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{Poll: 10 * time.Millisecond})
	b.committed("", "1")
	d := b.receive(src, 10, "1")[0]
	n := scalar[int](t, b.pool, `SELECT count(pg_terminate_backend(pid)) FROM pg_locks
		WHERE locktype = 'advisory' AND granted AND classid::bigint =
			ackwise_outbox_class()::bigint & 4294967295`)
	if n != 1 {
		t.Fatalf("%d sessions were cut, want 1", n)
	}
	<-d.Lost()
	var again []*ackwise.Delivery
	pgtest.Until(t, "it is handed out again", func() bool {
		ds, err := src.Receive(b.ctx, 10) // an error while there is no session
		again = ds
		return err == nil
	})
	b.want(again[0], ackwise.CauseConsumerLost, ackwise.Counts{HandOuts: 2, Crashes: 1}, true)
	b.ack(src, again...)
}

// TestOutboxAnswerLost: a hand-out whose answer never arrived is handed out again, as it was.
func TestOutboxAnswerLost(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{Poll: 10 * time.Millisecond})
	b.committed("", "1")
	_, err := b.pool.Exec(b.ctx, `SELECT ackwise_outbox_receive('out', (SELECT last_value::int
		FROM ackwise_session), 10, 3600000, '{}')`)
	b.check(err)
	d := b.receive(src, 10, "1")[0]
	b.want(d, ackwise.CauseFirst, ackwise.Counts{HandOuts: 1}, false)
	b.check(src.Close())
	if _, err := src.Receive(b.ctx, 1); !errors.Is(err, ackwise.ErrClosed) {
		t.Errorf("receive from a closed source: %v", err)
	}
	d = b.receive(b.source(postgres.OutboxSourceOptions{}), 10, "1")[0]
	b.want(d, ackwise.CauseReleased, ackwise.Counts{HandOuts: 2}, false)
}

func TestMigrate(t *testing.T) {
	pool := pgtest.Connect(t, pgtest.Database(t, address(t)))
	ctx, db := t.Context(), postgres.PGX(pool)
	var version *postgres.VersionError
	if err := postgres.Check(ctx, db); !errors.As(err, &version) || version.Have != 0 ||
		!strings.Contains(err.Error(), "ackwise migrate") {
		t.Errorf("an empty database: %v, want a *VersionError with what to do", err)
	}
	planned, err := postgres.Migrate(ctx, db, true)
	if err != nil || len(planned) != len(postgres.Migrations()) {
		t.Fatalf("a dry run plans %d migrations, %v", len(planned), err)
	}
	if postgres.Check(ctx, db) == nil {
		t.Error("a dry run changed the database")
	}
	var wg sync.WaitGroup
	var applied atomic.Int64
	for range 4 { // at once
		wg.Go(func() {
			got, err := postgres.Migrate(ctx, db, false)
			if applied.Add(int64(len(got))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := postgres.Check(ctx, db); err != nil || applied.Load() != int64(len(planned)) {
		t.Errorf("after four at once: %v, %d applied, want %d", err, applied.Load(), len(planned))
	}
	exec := func(query string) {
		t.Helper()
		if _, err := pool.Exec(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	exec("DELETE FROM ackwise_migrations WHERE version = 3")
	if err := postgres.Check(ctx, db); !errors.As(err, &version) || version.Have != 2 ||
		!strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "older") {
		t.Errorf("an older database: %v, want both versions", err)
	}
	exec("INSERT INTO ackwise_migrations VALUES (3, 'outbox'), (77, 'of the future')")
	_, err = postgres.Migrate(ctx, db, false)
	for _, err := range []error{err, postgres.Check(ctx, db)} {
		if !errors.As(err, &version) || version.Have != 77 || !strings.Contains(err.Error(), "newer") {
			t.Errorf("a newer database: %v, want both versions and what to do", err)
		}
	}
	exec("DELETE FROM ackwise_migrations WHERE version = 77")
	exec("ALTER TABLE ackwise_claim DROP COLUMN sum, DROP COLUMN deadline")
	exec("DROP TABLE ackwise_position")
	err = postgres.Check(ctx, db)
	var columns *postgres.ColumnsError
	if !errors.As(err, &columns) || !strings.Contains(err.Error(),
		"ackwise_claim has no column sum, deadline") ||
		!strings.Contains(err.Error(), "ackwise_position is missing") {
		t.Errorf("tables that lack something: %v, want them named", err)
	}
}

// TestMigrateAfterOther: a session that had looked for the tables before, and then waited for the
// lock of another who made them, finds them.
func TestMigrateAfterOther(t *testing.T) {
	server, ctx := pgtest.Database(t, address(t)), t.Context()
	other, pool := pgtest.Connect(t, server), pgtest.Connect(t, oneSession(t, server))
	var version *postgres.VersionError
	if err := postgres.Check(ctx, postgres.PGX(pool)); !errors.As(err, &version) {
		t.Fatalf("an empty database: %v, want a *VersionError", err)
	}
	tx, err := other.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string) {
		t.Helper()
		if _, err := tx.Exec(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	exec("SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || ' ackwise migrate', 0))")
	type result struct {
		applied []postgres.Migration
		err     error
	}
	done := make(chan result, 1)
	go func() {
		applied, err := postgres.Migrate(ctx, postgres.PGX(pool), false)
		done <- result{applied, err}
	}()
	pgtest.Until(t, "the second waits for the lock", func() (waits bool) {
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_stat_activity
			WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))`).Scan(&waits)
		return err == nil && waits
	})
	for _, m := range postgres.Migrations() {
		exec(m.SQL)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.err != nil || len(got.applied) != 0 {
		t.Errorf("the second applied %d migrations, %v; want 0: they were there",
			len(got.applied), got.err)
	}
}

// oneSession is an address whose pool has one session only.
func oneSession(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("pool_max_conns", "1")
	u.RawQuery = query.Encode()
	return u.String()
}

// TestMigrationsByHand: what a dry run prints can be run as it is.
func TestMigrationsByHand(t *testing.T) {
	pool := pgtest.Connect(t, pgtest.Database(t, address(t)))
	for _, m := range postgres.Migrations() {
		if _, err := pool.Exec(t.Context(), m.SQL); err != nil {
			t.Fatalf("migration %d: %v", m.Version, err)
		}
	}
	if err := postgres.Check(t.Context(), postgres.PGX(pool)); err != nil {
		t.Error(err)
	}
	// Every column that the program names is one that the migrations made, and no other is there.
	rows, err := pool.Query(t.Context(), `SELECT table_name || ' ' || string_agg(column_name::text,
		' ' ORDER BY ordinal_position) FROM information_schema.columns
		WHERE table_schema = current_schema() AND table_name <> 'ackwise_migrations'
		GROUP BY table_name ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	made, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	if named := postgres.NamedColumns(); !reflect.DeepEqual(made, named) {
		t.Errorf("the program names\n%s\nand the migrations made\n%s", strings.Join(named, "\n"),
			strings.Join(made, "\n"))
	}
}

// TestMigrationCutShort: a migration that psql had half of, a statement at a time, is not taken for
// one that was applied.
func TestMigrationCutShort(t *testing.T) {
	for _, m := range postgres.Migrations() {
		all := strings.SplitAfter(strings.TrimSpace(m.SQL), ";\n")
		for i, s := range all {
			if last := i == len(all)-1; last != strings.Contains(s, "INSERT INTO ackwise_migrations") {
				t.Errorf("migration %d is noted by its part %d of %d", m.Version, i+1, len(all))
			}
		}
	}
	address := pgtest.Database(t, address(t))
	all := postgres.Migrations()
	half, _, found := strings.Cut(all[2].SQL, "-- Hand-outs and settlements")
	if !found {
		t.Fatal("the test knows no more where to cut")
	}
	pgtest.Exec(t, address, all[0].SQL, all[1].SQL, half)
	var version *postgres.VersionError
	err := postgres.Check(t.Context(), postgres.PGX(pgtest.Connect(t, address)))
	if !errors.As(err, &version) || version.Have != 2 {
		t.Errorf("a half migration: %v, want version 2 to be there", err)
	}
}

// TestOutboxKeepsKeyOrder runs three readers over keys that are written by several transactions at
// once, each under its account's row, while handlers fail at random.
func TestOutboxKeepsKeyOrder(t *testing.T) {
	b := newOutbed(t)
	const keys, each = 5, 20
	b.accounts(keys)
	var (
		mu      sync.Mutex // guards the fields below
		done    = make(map[string][]string)
		working = make(map[string]bool)
		failed  int
	)
	handle := func(ctx context.Context, d *ackwise.Delivery) error {
		mu.Lock()
		if working[d.Key] {
			t.Errorf("two handlers are at work on the key %s", d.Key)
		}
		working[d.Key] = true
		mu.Unlock()
		_, err := b.pool.Exec(ctx, "SELECT 1") // some time
		mu.Lock()
		defer mu.Unlock()
		delete(working, d.Key)
		if rand.IntN(4) == 0 {
			failed++
			return errors.Join(err, errors.New("bad luck"))
		}
		done[d.Key] = append(done[d.Key], string(d.Body))
		return err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		src := b.source(postgres.OutboxSourceOptions{Poll: 50 * time.Millisecond})
		o := eager()
		o.Guarantee = deliver.AtLeastOnce
		wg.Go(func() {
			if err := deliver.Run(ctx, src, ackwise.HandlerFunc(handle), o); err != nil {
				t.Error(err)
			}
		})
	}
	var writers sync.WaitGroup
	for i := range keys * 2 {
		writers.Go(func() {
			for range each / 2 {
				if err := writeNext(b, i%keys); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	pgtest.Until(t, "all is handled", func() bool {
		return scalar[int](t, b.pool, "SELECT count(*) FROM ackwise_outbox") == 0
	})
	cancel()
	wg.Wait()
	for key := range keys {
		var want []string
		for n := range each {
			want = append(want, fmt.Sprint(n+1))
		}
		if got := done[fmt.Sprint(key)]; !reflect.DeepEqual(got, want) {
			t.Errorf("key %d was handled as %v, want it in order and once each", key, got)
		}
	}
	if failed == 0 {
		t.Error("no handler failed: the test shows nothing")
	}
}

// TestOutboxNotificationWakes: a receive that waits is woken by the commit, long before its poll.
func TestOutboxNotificationWakes(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{})
	for i := range 10 {
		type answer struct {
			ds  []*ackwise.Delivery
			err error
		}
		got := make(chan answer, 1)
		go func() {
			ds, err := src.Receive(b.ctx, 10)
			got <- answer{ds, err}
		}()
		timer := time.NewTimer(30 * time.Millisecond) // so that most of them wait by then
		<-timer.C
		b.committed("", fmt.Sprint(i))
		a := <-got
		b.check(a.err)
		b.same(a.ds, fmt.Sprint(i))
		b.ack(src, a.ds...)
	}
}
