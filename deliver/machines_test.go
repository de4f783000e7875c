package deliver

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func TestBackoffDelay(t *testing.T) {
	for _, tc := range []struct {
		b        Backoff
		failures int
		r        float64
		want     time.Duration
	}{
		{Backoff{}, 1, 1, time.Second},
		{Backoff{}, 0, 1, time.Second},
		{Backoff{}, 2, 1, 2 * time.Second},
		{Backoff{}, 9, 1, 256 * time.Second},
		{Backoff{}, 10, 1, 5 * time.Minute},
		{Backoff{}, math.MaxInt, 1, 5 * time.Minute},
		{Backoff{}, 3, 0.25, time.Second},
		{Backoff{}, 3, 0, 0},
		{Backoff{First: time.Minute, Factor: 1, Cap: time.Hour}, 50, 1, time.Minute},
		{Backoff{First: time.Hour}, 1, 1, time.Hour},
		{Backoff{First: 10 * time.Millisecond, Factor: 10, Cap: time.Second}, 3, 0.5,
			500 * time.Millisecond},
	} {
		if got := tc.b.Delay(tc.failures, tc.r); got != tc.want {
			t.Errorf("%+v.Delay(%d, %v) = %s, want %s", tc.b, tc.failures, tc.r, got, tc.want)
		}
	}
}

func TestRetryBudget(t *testing.T) {
	start := time.Unix(1e9, 0)
	o := RetryBudget{Share: 0.2, PerSecond: 10, Burst: 5, MaxStretch: time.Minute}.withDefaults()
	t.Run("the burst is free, then each waits its turn", func(t *testing.T) {
		b := newRetryBudget(o, start)
		for i := range 5 {
			if d := b.take(start); d != 0 {
				t.Errorf("retry %d of the burst stretched by %s", i, d)
			}
		}
		for i := 1; i <= 3; i++ {
			want := time.Duration(i) * 100 * time.Millisecond
			if d := b.take(start); (d - want).Abs() > time.Microsecond {
				t.Errorf("retry %d beyond stretched by %s, want %s", i, d, want)
			}
		}
		if d := b.take(start.Add(500 * time.Millisecond)); d != 0 {
			t.Errorf("after half a second stretched by %s, want 0", d)
		}
	})
	t.Run("five successes pay for one retry", func(t *testing.T) {
		for _, every := range []int{5, 4} {
			b := newRetryBudget(o, start)
			free, retries := 0, 0
			for i := 1; i <= 1000; i++ {
				b.success()
				if i%every != 0 {
					continue
				}
				retries++
				if b.take(start) == 0 {
					free++
				}
			}
			if allFree := free == retries; allFree != (every == 5) {
				t.Errorf("one retry in %d: %d of %d free", every, free, retries)
			}
		}
	})
	t.Run("stretching is bounded, and so is the debt", func(t *testing.T) {
		b := newRetryBudget(o, start)
		var d time.Duration
		for range 100_000 {
			d = b.take(start)
		}
		if d != time.Minute {
			t.Errorf("stretched by %s, want 1m", d)
		}
		if d := b.take(start.Add(62 * time.Second)); d != 0 {
			t.Errorf("a minute later still stretched by %s", d)
		}
	})
	t.Run("a clock that goes back gives nothing", func(t *testing.T) {
		b := newRetryBudget(o, start)
		for range 5 {
			b.take(start)
		}
		if d := b.take(start.Add(-time.Hour)); d <= 0 {
			t.Errorf("stretched by %s, want more than 0", d)
		}
	})
	t.Run("off", func(t *testing.T) {
		b := newRetryBudget(RetryBudget{Off: true}.withDefaults(), start)
		for range 10_000 {
			if d := b.take(start); d != 0 {
				t.Fatalf("stretched by %s", d)
			}
		}
	})
}

func TestBreaker(t *testing.T) {
	start := time.Unix(1e9, 0)
	o := Breaker{Failures: 3, Ratio: 0.5, MinResults: 10, Window: 10 * time.Second,
		OpenFor: time.Second, MaxOpen: 5 * time.Second}
	at := func(d time.Duration) time.Time { return start.Add(d) }
	t.Run("failures in a row open it, and each failed probe doubles the pause", func(t *testing.T) {
		b := breaker{o: o}
		b.record(start, true)
		b.record(start, true)
		b.record(start, false)
		b.record(start, true)
		b.record(start, true)
		if b.state != breakerClosed {
			t.Fatal("open after two in a row")
		}
		b.record(start, true)
		now := start
		for _, pause := range []time.Duration{1, 2, 4, 5, 5} {
			if want := now.Add(pause * time.Second); b.state != breakerOpen || !b.until.Equal(want) {
				t.Fatalf("state %s until %s, want open until %s", b.state.event(), b.until, want)
			}
			b.advance(b.until.Add(-1))
			b.record(now, false) // of a call that had begun before
			if b.state != breakerOpen {
				t.Fatal("left the open state early")
			}
			now = b.until
			b.advance(now)
			if b.state != breakerHalfOpen {
				t.Fatal("not half-open when the pause is over")
			}
			b.record(now, true)
		}
		b.advance(b.until)
		b.record(b.until, false)
		if b.state != breakerClosed || b.row != 0 {
			t.Errorf("a good probe leaves it %s", b.state.event())
		}
	})
	t.Run("a bad ratio opens it", func(t *testing.T) {
		b := breaker{o: o}
		for i := range 9 {
			b.record(at(time.Duration(i)*time.Second/2), i%2 == 0)
		}
		if b.state != breakerClosed {
			t.Fatal("open before MinResults")
		}
		b.record(at(5*time.Second), true)
		if b.state != breakerOpen {
			t.Error("closed with 6 failures in 10 results")
		}
	})
	t.Run("what is older than the window does not count", func(t *testing.T) {
		b := breaker{o: o}
		for i := range 100 {
			b.record(at(time.Duration(i)*2*time.Second), i%2 == 0)
		}
		if b.state != breakerClosed {
			t.Error("open with 5 results in the window")
		}
	})
	t.Run("off", func(t *testing.T) {
		b := breaker{o: Breaker{Off: true, Failures: 1}}
		b.record(start, true)
		if b.state != breakerClosed {
			t.Error("open")
		}
	})
}

func TestFailureCountsAreBounded(t *testing.T) {
	c := failureCounts{max: 100}
	for i := range 100_000 {
		if n := c.add(id(i)); n != 1 {
			t.Fatalf("%s counted %d times", id(i), n)
		}
		if i%3 == 0 {
			c.forget(id(i))
		}
		if len(c.counts) > 100 || len(c.order) > 300 {
			t.Fatalf("%d counts, %d in order", len(c.counts), len(c.order))
		}
	}
	if n := c.add(id(99_998)); n != 2 {
		t.Errorf("a recent one counted %d times, want 2", n)
	}
	c.forget(id(99_998))
	if n := c.add(id(99_998)); n != 1 {
		t.Errorf("a forgotten one counted %d times, want 1", n)
	}
	for i := range 99 { // the new count is the youngest, though its ID is in the order twice
		c.add(id(i))
	}
	if n := c.add(id(99_998)); n != 2 {
		t.Errorf("it was forgotten early: counted %d times, want 2", n)
	}
}

func TestOptionsAreRefusedWithEveryFaultAtOnce(t *testing.T) {
	f := ackwise.Features{Lease: 50 * time.Millisecond, MaxNackDelay: time.Second}
	o := Options{Concurrency: -1, BatchSize: -2, MaxInFlight: -3, MaxFailures: -4, MaxCrashes: -5,
		MaxHandle: time.Millisecond, StopGrace: -7, SettleTimeout: -8,
		Backoff:     Backoff{First: time.Minute, Factor: 0.5, Cap: time.Second},
		Breaker:     Breaker{Ratio: 2, OpenFor: time.Minute, MaxOpen: time.Second},
		RetryBudget: RetryBudget{Share: math.NaN(), PerSecond: -1},
	}.withDefaults(f, true)
	err := o.check(f)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"Concurrency", "BatchSize", "MaxFailures",
		"MaxCrashes", "MaxHandle", "StopGrace", "SettleTimeout", "Backoff.Factor", "Backoff.Cap",
		"Breaker.Ratio", "Breaker.MaxOpen", "RetryBudget.Share", "RetryBudget.PerSecond",
		"invalid lease", "DeadLetters", "hint: Set Options.DeadLetters to a store"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 16 {
		t.Errorf("%d lines, want one a fault and the hint:\n%v", n, err)
	}
}

func TestOptionsThatContradictTheSource(t *testing.T) {
	short := ackwise.Features{Lease: time.Minute, Dead: true, MaxNackDelay: time.Second}
	store := DeadLetterFunc(nil)
	for _, tc := range []struct {
		name string
		f    ackwise.Features
		o    Options
		want string // "" = accepted
	}{
		{"the zero value with dead letters of the source", leases(), Options{}, ""},
		{"no dead letters anywhere", logLike(), Options{}, "has nowhere to go"},
		{"no dead letters at most once", logLike(), Options{Guarantee: AtMostOnce}, ""},
		{"no dead letters by order", logLike(), Options{NoDeadLetters: true}, ""},
		{"a store", logLike(), Options{DeadLetters: store}, ""},
		{"two stores", leases(), Options{DeadLetters: store}, "of its own"},
		{"a store and none", logLike(), Options{DeadLetters: store, NoDeadLetters: true}, "set too"},
		{"a retry that can be neither given back nor held", short, Options{}, "neither"},
		{"a retry that can be held", short, Options{Backoff: Backoff{Cap: 30 * time.Second}}, ""},
		{"a lease that outlasts MaxHandle", leases(), Options{MaxHandle: time.Second}, "outlast"},
		{"room for fewer than Concurrency", leases(), Options{MaxInFlight: 15}, "do not fit"},
	} {
		o := tc.o.withDefaults(tc.f, false)
		err := o.check(tc.f)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: refused: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: error %v, want one with %q", tc.name, err, tc.want)
		}
		var invalid *ackwise.InvalidError
		if err != nil && !errors.As(err, &invalid) {
			t.Errorf("%s: %T holds no *InvalidError", tc.name, err)
		}
	}
}
