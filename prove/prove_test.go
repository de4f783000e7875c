package prove

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// fakeT is a testing.TB that keeps what it is told.
type fakeT struct {
	testing.TB
	name   string
	failed bool
	text   string
}

func (f *fakeT) Helper()                  {}
func (f *fakeT) Name() string             { return f.name }
func (f *fakeT) Context() context.Context { return context.Background() }

func (f *fakeT) Errorf(format string, args ...any) {
	f.failed = true
	f.text += fmt.Sprintf(format, args...) + "\n"
}

func (f *fakeT) Logf(format string, args ...any) { f.text += fmt.Sprintf(format, args...) + "\n" }

// story runs one schedule and returns the run.
func story(t *testing.T, c Case, s string) *run {
	t.Helper()
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	p := &proof{c: &c}
	if v, err := p.start(t.Context()); v != nil || err != nil {
		t.Fatal(v, err)
	}
	faults, err := parseSchedule(s, len(c.Messages))
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.run(t.Context(), faults)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheSameCasePrintsTheSame(t *testing.T) {
	for _, c := range []consumer{rightByHand()[0], wrongMarkers()[1], thirdTime()} {
		var texts []string
		for range 2 {
			texts = append(texts, judge(t, c).text)
		}
		if texts[0] != texts[1] {
			t.Errorf("%s: got\n%s\nand then\n%s", c.name, texts[0], texts[1])
		}
	}
}

// thirdTime is wrong only when a message comes for the third time: no single fault shows it.
func thirdTime() consumer {
	return consumer{name: "wrong the third time", kind: again,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if d.Attempt == 3 {
					return charge(ctx, w, d)
				}
				return set(ctx, w, d)
			}
		})}}
}

func TestCombinationsAreShrunk(t *testing.T) {
	for _, c := range []consumer{thirdTime(), {
		// A message that comes again is charged again by the second consumer only.
		name: "wrong in its second life", kind: crash,
		c: Case{Effects: theCharges, New: handler(func(w *World) ackwise.HandlerFunc {
			lives := Keep(w, "lives", func() *int { return new(int) })
			*lives++
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if *lives > 1 && d.Cause == ackwise.CauseProducedAgain {
					return charge(ctx, w, d)
				}
				return set(ctx, w, d)
			}
		})},
	}} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(t, c)
			if len(v.schedule) != 2 || v.schedule[0].message != 0 || v.schedule[0].late {
				t.Errorf("got %s, want the two faults that are needed, as early as can be", v.schedule)
			}
			golden(t, c.name, v.text)
		})
	}
}

// TestDeliveriesSayWhyTheyCome compares all that a handler is told with what a source would say.
func TestDeliveriesSayWhyTheyCome(t *testing.T) {
	var told []string
	c := Case{Messages: flights(), Effects: theBooks, New: handler(
		func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				ended := make([]string, len(d.History))
				for i, a := range d.History {
					ended[i] = fmt.Sprintf("%s %s by %s", a.Cause, a.Outcome, a.Consumer)
				}
				told = append(told, fmt.Sprintf("%s %d %s %v [%s]", d.ID, d.Attempt, d.Cause, d.Counts,
					strings.Join(ended, ", ")))
				_ = miles(d)                     // refuses a changed body
				d.ID, d.Body[0] = "changed", 'x' // a copy each time
				return Call(ctx, "try", func(context.Context) error { return nil })
			}
		})}
	run := func(s string, want ...string) {
		t.Helper()
		told = nil
		story(t, c, s)
		if got := told[2*len(c.Messages):]; !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", s, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	run("1:crash@0 1:fail@1 1:lost 1:again",
		"f1 2 consumer-lost {2 0 1 0} [first consumer-lost by consumer-1]",
		"f1 3 failed {3 1 1 0} [first consumer-lost by consumer-1, consumer-lost nack by consumer-2]",
		"f1 4 ack-lost {4 1 1 0} [first consumer-lost by consumer-1, consumer-lost nack by "+
			"consumer-2, failed ack by consumer-2]",
		"f1 5 produced-again {5 1 1 0} [first consumer-lost by consumer-1, consumer-lost nack by "+
			"consumer-2, failed ack by consumer-2, ack-lost ack by consumer-2]",
		"f2 1 first {1 0 0 0} []", "f3 1 first {1 0 0 0} []")
	run("1:fail@1+late 2:again+late 3:stall@1",
		"f1 1 first {1 0 0 0} []", "f2 1 first {1 0 0 0} []", "f3 1 first {1 0 0 0} []",
		"f3 2 lease-expired {2 0 0 0} [first lease-expired by consumer-1]",
		"f1 2 redriven {2 1 0 1} [first nack by consumer-1]",
		"f2 2 rebalanced {2 0 0 0} [first ack by consumer-1]")
}

// TestAKilledHandlerIsNotUnwound shows that nothing runs in a killed handler until the effects have
// been looked at, and all of it after that.
func TestAKilledHandlerIsNotUnwound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unwound, killed, after, seen := 0, 0, 0, -1
		c := Case{Messages: flights(), New: handler(func(w *World) ackwise.HandlerFunc {
			w.AtKill(func() { killed++ })
			return func(ctx context.Context, d *ackwise.Delivery) error {
				if d.Attempt == 1 && d.ID == "f1" {
					defer func() { unwound++ }()
				}
				Point(ctx, "here")
				after++
				return nil
			}
		}), Effects: func(context.Context, *World) (any, error) {
			seen = unwound
			return nil, nil
		}}
		story(t, c, "1:crash@1")
		if seen != 2 || unwound != 3 || killed != 1 {
			t.Errorf("unwound %d times before the effects were seen and %d in all, killed %d times, "+
				"want 2 (clean runs), 3 and 1", seen, unwound, killed)
		}
		if after != 9 {
			t.Errorf("%d handlings came past the point, want 9: three messages, three times", after)
		}
	})
}

// TestWhatBecomesOfMessagesIsCompared has handlers whose effects are right, and whose messages are
// not.
func TestWhatBecomesOfMessagesIsCompared(t *testing.T) {
	for text, again := range map[string]error{
		"message 1 (f1): want settled, got not settled":   ackwise.Snooze(time.Second),
		"message 1 (f1): want settled, got a dead letter": ackwise.Reject(errors.New("seen")),
	} {
		v := judge(t, consumer{kind: "again", c: Case{Effects: theCharges, New: handler(
			func(w *World) ackwise.HandlerFunc {
				return func(ctx context.Context, d *ackwise.Delivery) error {
					if booksOf(w).has("charged " + d.ID) {
						return again
					}
					return set(ctx, w, d)
				}
			})}})
		if !strings.Contains(v.text, text) || strings.Contains(v.text, "Effects that differ") {
			t.Errorf("got %s\nwant %s, and no other effects", v.text, text)
		}
	}
}

// TestEveryFaultHappens counts, for each single fault, what the handler saw of it.
func TestEveryFaultHappens(t *testing.T) {
	calls, failures := 0, 0
	c := Case{Messages: flights(), Effects: theCharges, New: handler(
		func(w *World) ackwise.HandlerFunc {
			return func(ctx context.Context, d *ackwise.Delivery) error {
				calls++
				err := set(ctx, w, d)
				if err != nil {
					failures++
				}
				return err
			}
		})}
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	p := &proof{c: &c}
	if v, err := p.start(t.Context()); v != nil || err != nil {
		t.Fatal(v, err)
	}
	happened := make(map[kind]int)
	all, left := p.singles()
	for _, f := range all {
		calls, failures = 0, 0
		r, err := p.run(t.Context(), schedule{f})
		if err != nil {
			t.Fatal(err)
		}
		wantCalls, wantFailures := 4, 0
		switch {
		case f.kind == crash && f.point == 0, f.kind == beside:
			wantCalls = 3
		case f.kind == fail || f.kind == unsure || f.kind == down:
			wantFailures = 1
		}
		if calls != wantCalls || failures != wantFailures {
			t.Errorf("%s: the handler was called %d times and failed %d times, want %d and %d\n%s", f,
				calls, failures, wantCalls, wantFailures, r.story())
		}
		happened[f.kind]++
	}
	for _, k := range kinds() {
		if happened[k] == 0 {
			t.Errorf("no fault of the kind %s was tried", k)
		}
	}
	if left != 0 {
		t.Errorf("%d faults were left out", left)
	}
}

// TestTheScheduleOfTheEnvironmentIsRepeated runs Run as a user does.
func TestTheScheduleOfTheEnvironmentIsRepeated(t *testing.T) {
	c := wrongMarkers()[0].c
	c.Messages = flights()
	t.Setenv(Variable, "")
	all := &fakeT{name: "TestSum/small"}
	Run(all, c)
	command := Variable + "='1:again' go test -run '^TestSum$/^small$'"
	if !all.failed || !strings.Contains(all.text, command) {
		t.Errorf("failed is %t, want the command %s in\n%s", all.failed, command, all.text)
	}
	t.Setenv(Variable, "2:again+late")
	one := &fakeT{name: "TestSum"}
	Run(one, c)
	if !one.failed || !strings.Contains(one.text, "2:again+late\n") ||
		!strings.Contains(one.text, "want 142, got 184") {
		t.Errorf("failed is %t, and the text:\n%s", one.failed, one.text)
	}
	t.Setenv(Variable, "seed=7 schedules=90")
	c.New = rightByHand()[0].c.New
	c.Effects = theCharges
	seeded := &fakeT{name: "TestSum"}
	Run(seeded, c)
	if seeded.failed || !strings.Contains(seeded.text, "90 schedules") ||
		!strings.Contains(seeded.text, "seed 7") {
		t.Errorf("failed is %t, and the text:\n%s", seeded.failed, seeded.text)
	}
	t.Setenv(Variable, "seed=x")
	bad := &fakeT{name: "TestSum"}
	Run(bad, c)
	if !bad.failed || !strings.Contains(bad.text, `read ACKWISE_PROVE: invalid seed "x"`) {
		t.Errorf("failed is %t, and the text:\n%s", bad.failed, bad.text)
	}
}

// TestARightScheduleIsTold shows what a given schedule did where nothing differs.
func TestARightScheduleIsTold(t *testing.T) {
	c := wrongMarkers()[0].c
	c.Messages = flights()
	t.Setenv(Variable, "3:crash@0")
	right := &fakeT{name: "TestSum"}
	Run(right, c)
	if right.failed || !strings.Contains(right.text, "KILLED before the handler began") {
		t.Errorf("failed is %t, and the text:\n%s", right.failed, right.text)
	}
}

func TestCasesThatCannotBeProvedSayWhy(t *testing.T) {
	ok := func(context.Context, *ackwise.Delivery) error { return nil }
	answer := func(h ackwise.HandlerFunc) Case {
		return Case{Messages: flights(), Effects: theBooks, New: handler(
			func(*World) ackwise.HandlerFunc { return h })}
	}
	with := func(change func(*Case)) Case {
		c := answer(ok)
		change(&c)
		return c
	}
	runs := 0
	for _, x := range []struct {
		name string
		c    Case
		want string
	}{
		{"empty", Case{Schedules: -1}, "Case.Messages: there are none\n" +
			"invalid Case.New: it is needed: it makes the handler\n" +
			"invalid Case.Effects: it is needed: it shows what the handler has done\n" +
			"invalid Case.Schedules: it is negative"},
		{"an ID twice", with(func(c *Case) { c.Messages[1].ID = "f1" }),
			`the ID "f1" stands there twice`},
		{"a bad schedule", with(func(c *Case) { c.Schedule = "9:again" }), "there are 3 messages"},
		{"New fails", with(func(c *Case) {
			c.New = func(context.Context, *World) (ackwise.Handler, error) {
				return nil, errors.New("no database")
			}
		}), "start consumer 1 (Case.New): no database"},
		{"transactional without a source", with(func(c *Case) {
			c.New = handlerOf(func(*World) ackwise.Handler { return queue.Transact(sum) })
		}), "settles by its own commit: Case.Source is needed"},
		{"no handler", with(func(c *Case) {
			c.New = func(context.Context, *World) (ackwise.Handler, error) { return nil, nil }
		}), "start consumer 1 (Case.New): it returned no handler"},
		{"Reset fails", with(func(c *Case) {
			c.Reset = func(context.Context, *World) error { return errors.New("no database") }
		}), "reset the world (Case.Reset): no database"},
		{"Effects fails", with(func(c *Case) {
			c.Effects = func(context.Context, *World) (any, error) { return nil, errors.New("gone") }
		}), "read the effects (Case.Effects): gone"},
		{"effects that never are the same", with(func(c *Case) {
			c.Effects = func(context.Context, *World) (any, error) { runs++; return runs, nil }
		}), "two clean runs differ at effects (first 1, then 2): leave out of Case.Effects what"},
		{"fails without a fault", answer(func(context.Context, *ackwise.Delivery) error {
			return errors.New("no network")
		}), "clean run: the handler does not settle message 1 (f1): nack: no network"},
		{"panics", answer(func(context.Context, *ackwise.Delivery) error { panic("ouch") }),
			"nack: the handler panicked: ouch"},
		{"leaves its goroutine", answer(func(context.Context, *ackwise.Delivery) error {
			runtime.Goexit()
			return nil
		}), "the handler of message 1 left its goroutine"},
		{"waits for ever", with(func(c *Case) {
			c.Patience = 100 * time.Millisecond
			c.New = answer(func(ctx context.Context, _ *ackwise.Delivery) error {
				<-ctx.Done()
				return nil
			}).New
		}), "the handler of message 1, consumer 1, has neither ended nor reached a point for 100ms"},
	} {
		t.Run(x.name, func(t *testing.T) {
			f := &fakeT{name: "TestX"}
			Run(f, x.c)
			if !f.failed || !strings.Contains(f.text, x.want) {
				t.Errorf("failed is %t, got %s\nwant %s", f.failed, f.text, x.want)
			}
		})
	}
}

// TestWorkAfterTheAckIsRefused has a handler leave its work to a goroutine.
func TestWorkAfterTheAckIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		f := &fakeT{name: "TestX"}
		Run(f, Case{Messages: flights(), Effects: theBooks, New: handler(
			func(*World) ackwise.HandlerFunc {
				return func(ctx context.Context, _ *ackwise.Delivery) error {
					time.Sleep(2 * time.Millisecond) // virtual: the goroutine of the message before goes on
					wg.Go(func() {
						time.Sleep(time.Millisecond) // virtual: the handler has returned
						Point(ctx, "late")
					})
					return nil
				}
			})})
		wg.Wait()
		const want = "the handler of message 1 goes on in a goroutine after it has returned"
		if !f.failed || !strings.Contains(f.text, want) {
			t.Errorf("failed is %t, got %s\nwant %s", f.failed, f.text, want)
		}
	})
}

func TestAWrongCleanRunIsShownWhereItIsKnown(t *testing.T) {
	c := wrongKeys()[0] // takes two messages with one body for one
	c.c.Effects = theMiles
	c.c.Want = map[string]int{"N1": 100, "N2": 100}
	v, err := prove(t.Context(), &c.c)
	if err != nil || !v.convicted {
		t.Fatal(v, err)
	}
	golden(t, "wrong without a fault", v.text)
}

// theMiles shows the aircraft of the books.
func theMiles(_ context.Context, w *World) (any, error) {
	all := booksOf(w).copied()
	for name := range all {
		if strings.HasPrefix(name, "seen ") {
			delete(all, name)
		}
	}
	return all, nil
}

// TestAHeldConsumerGoesOnWhenAnotherWaitsForIt has the handler hold a database's row at a point.
func TestAHeldConsumerGoesOnWhenAnotherWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Case{Messages: flights(), Effects: theCharges, New: handler(
			func(w *World) ackwise.HandlerFunc {
				row := Keep(w, "row", func() chan struct{} { return make(chan struct{}, 1) })
				return func(ctx context.Context, d *ackwise.Delivery) error {
					row <- struct{}{}
					defer func() { <-row }()
					return set(ctx, w, d)
				}
			})}
		r := story(t, c, "1:race@1")
		if !strings.Contains(r.story(), "WAITS, so consumer 1 goes on") || r.differs() {
			t.Errorf("differs is %t:\n%s", r.differs(), r.story())
		}
	})
}

func TestKeysKeepTheirOrderWhereTheSourceDoes(t *testing.T) {
	for order, want := range map[ackwise.Order]string{
		ackwise.OrderNone:      "f1 f2 f3 f1",
		ackwise.OrderKey:       "f1 f3 f1 f2",
		ackwise.OrderPartition: "f1 f1 f2 f3",
	} {
		var got []string
		c := Case{Messages: flights(), Effects: theBooks, Order: order, New: handler(
			func(w *World) ackwise.HandlerFunc {
				return func(_ context.Context, d *ackwise.Delivery) error {
					got = append(got, d.ID)
					return nil
				}
			})}
		story(t, c, "1:lost+late")
		if got := strings.Join(got[6:], " "); got != want {
			t.Errorf("order %d: got %s, want %s", order, got, want)
		}
		got = nil
		story(t, c, "1:again+late")
		again := map[ackwise.Order]string{ackwise.OrderNone: "f1 f2 f3 f1",
			ackwise.OrderKey: "f1 f2 f3 f1 f2", ackwise.OrderPartition: "f1 f2 f3 f1 f2 f3"}[order]
		if got := strings.Join(got[6:], " "); got != again {
			t.Errorf("order %d, acked ones again: got %s, want %s", order, got, again)
		}
	}
}

func TestAHandlerWithoutPointsIsTold(t *testing.T) {
	v := judge(t, consumer{c: Case{Effects: theBooks, Schedules: 50, New: handler(
		func(*World) ackwise.HandlerFunc {
			return func(context.Context, *ackwise.Delivery) error { return nil }
		})}})
	const text = "3 messages, 0 points, "
	if !strings.Contains(v.text, text) || !strings.Contains(v.text, "The handler came to no point") {
		t.Errorf("got %s, want %s and what to do about it", v.text, text)
	}
}

func TestManyMessagesAreSampledBySeed(t *testing.T) {
	c := rightByHand()[0].c
	c.Schedules = 200
	for i := range 50 {
		c.Messages = append(c.Messages, flight(fmt.Sprint("g", i), "N3", "1", ""))
	}
	sampled := func(seed uint64) []int {
		c.Seed = seed
		v, err := prove(t.Context(), &c)
		if err != nil || v.convicted || v.tried != 200 {
			t.Fatal(v, err)
		}
		const text = "50 messages, 100 points, 200 schedules\n" +
			"(150 single faults of 1199, 50 combinations, seed "
		if !strings.Contains(v.text, text) {
			t.Errorf("got %s, want %s", v.text, text)
		}
		p := &proof{c: &c}
		if _, err := p.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, _ := p.singles()
		var messages []int
		for _, f := range all {
			messages = append(messages, f.message)
		}
		return slices.Compact(messages)
	}
	first, second := sampled(1), sampled(2)
	if first[0] != 0 || second[0] != 0 || slices.Equal(first, second) {
		t.Errorf("seeds 1 and 2 try the messages %v and %v, want the first and then others each", first,
			second)
	}
}

// TestOneAckSettlesARace has the second consumer put the message off while the first is at it.
func TestOneAckSettlesARace(t *testing.T) {
	r := story(t, Case{Messages: flights(), Effects: theCharges, New: handler(claimWithoutFence)},
		"1:race@1")
	if r.lives[0].attempt != 2 || r.differs() ||
		!strings.Contains(r.story(), "(lease-expired) to consumer 2\n      snooze for 10s") {
		t.Errorf("differs is %t, %d deliveries of the first message, want two\n%s", r.differs(),
			r.lives[0].attempt, r.story())
	}
}

func TestRealTimeIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		var at []time.Duration
		c := Case{Messages: flights()[:1], Effects: theBooks, RealTime: true,
			Lease: 3 * time.Second, New: handler(func(w *World) ackwise.HandlerFunc {
				return func(context.Context, *ackwise.Delivery) error {
					at = append(at, w.Now().Sub(begun))
					return nil
				}
			})}
		story(t, c, "1:crash@1")
		if want := []time.Duration{0, 0, 0, 3 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("handled after %v, want %v", at, want)
		}
	})
}

func TestOutsideOfAProverPointsDoNothing(t *testing.T) {
	Point(t.Context(), "nothing")
	wrong := errors.New("wrong")
	err := Call(t.Context(), "call", func(context.Context) error { return wrong })
	if !errors.Is(err, wrong) {
		t.Errorf("got %v, want what the call said", err)
	}
}

func TestTheWorldKeepsOneType(t *testing.T) {
	w := newWorld(1, &Case{})
	first := Keep(w, "n", func() *int { return new(int) })
	if again := Keep(w, "n", func() *int { return new(int) }); first != again {
		t.Error("what the world keeps was made twice")
	}
	for _, misuse := range []func(){
		func() { Keep(w, "n", func() string { return "" }) },
		func() { w.AtKill(func() {}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("misuse is not refused")
				}
			}()
			misuse()
		}()
	}
}
