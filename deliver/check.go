package deliver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ackwise/ackwise"
)

// minLease is the shortest lease that heartbeats can hold on to: an eighth of it is the time
// between two looks at what is held.
const minLease = 100 * time.Millisecond

// withDefaults fills the defaults in, for a source of these features. batch says whether calls take
// more than one delivery.
func (o Options) withDefaults(f ackwise.Features, batch bool) Options {
	setDefault(&o.Concurrency, 16)
	setDefault(&o.BatchSize, 100)
	if !batch {
		o.BatchSize = 1
	}
	setDefault(&o.MaxInFlight, max(16*o.Concurrency, o.Concurrency*o.BatchSize))
	setDefault(&o.MaxFailures, 10)
	setDefault(&o.MaxCrashes, 3)
	setDefault(&o.MaxHandOuts, 30)
	setDefault(&o.MaxCounted, 100_000)
	setDefault(&o.MaxHandle, max(time.Hour, f.Lease))
	setDefault(&o.RevokeGrace, 10*time.Second)
	setDefault(&o.StopGrace, 30*time.Second)
	setDefault(&o.CancelGrace, 5*time.Second)
	setDefault(&o.SettleTimeout, 10*time.Second)
	setDefault(&o.Margin, 2*time.Second)
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	o.Backoff = o.Backoff.withDefaults()
	o.RetryBudget = o.RetryBudget.withDefaults()
	o.Breaker = o.Breaker.withDefaults()
	return o
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// check returns every fault of the filled options at once, nil = none.
func (o *Options) check(f ackwise.Features) error {
	faults := []error{o.checkNumbers(), o.checkTimes(), o.checkMachines(), o.checkLease(f)}
	if o.Guarantee != AtMostOnce {
		faults = append(faults, o.checkDead(f))
	}
	return errors.Join(faults...)
}

func (o *Options) checkNumbers() error {
	var faults []error
	atLeast := func(field string, value, least int) {
		if value < least {
			faults = append(faults, invalid(field, value, fmt.Sprintf("it is at least %d", least)))
		}
	}
	atLeast("Concurrency", o.Concurrency, 1)
	atLeast("BatchSize", o.BatchSize, 1)
	atLeast("MaxFailures", o.MaxFailures, 1)
	atLeast("MaxCrashes", o.MaxCrashes, 1)
	atLeast("MaxHandOuts", o.MaxHandOuts, 1)
	atLeast("MaxCounted", o.MaxCounted, 1)
	if need := o.Concurrency * o.BatchSize; len(faults) == 0 && o.MaxInFlight < need {
		faults = append(faults, invalid("MaxInFlight", o.MaxInFlight, fmt.Sprintf(
			"Concurrency × BatchSize = %d handler calls' deliveries do not fit", need)))
	}
	return errors.Join(faults...)
}

func (o *Options) checkTimes() error {
	var faults []error
	for _, t := range []struct {
		field string
		value time.Duration
		grace bool
	}{
		{"MaxHandle", o.MaxHandle, false}, {"SettleTimeout", o.SettleTimeout, false},
		{"Linger", o.Linger, false},
		{"Margin", o.Margin, false}, {"RevokeGrace", o.RevokeGrace, true},
		{"StopGrace", o.StopGrace, true}, {"CancelGrace", o.CancelGrace, true},
	} {
		switch {
		case t.value >= 0 || t.grace && t.value == NoGrace:
		case t.grace:
			faults = append(faults, invalid(t.field, t.value, "it is negative (none is NoGrace)"))
		default:
			faults = append(faults, invalid(t.field, t.value, "it is negative"))
		}
	}
	return errors.Join(faults...)
}

func (o *Options) checkMachines() error {
	var faults []error
	bad := func(wrong bool, field string, value any, reason string) {
		if wrong {
			faults = append(faults, invalid(field, value, reason))
		}
	}
	b, r, k := o.Backoff, o.RetryBudget, o.Breaker
	bad(b.First < 0, "Backoff.First", b.First, "it is negative")
	bad(!(b.Factor >= 1), "Backoff.Factor", b.Factor, "it is at least 1")
	bad(b.Cap < b.First, "Backoff.Cap", b.Cap, fmt.Sprintf("it is less than First (%s)", b.First))
	bad(!(r.Share >= 0), "RetryBudget.Share", r.Share, "it is not 0 or more")
	bad(!(r.PerSecond > 0), "RetryBudget.PerSecond", r.PerSecond, "it is not positive")
	bad(r.Burst < 0, "RetryBudget.Burst", r.Burst, "it is negative")
	bad(r.MaxStretch < 0, "RetryBudget.MaxStretch", r.MaxStretch, "it is negative")
	bad(k.Failures < 1, "Breaker.Failures", k.Failures, "it is at least 1")
	bad(!(k.Ratio > 0 && k.Ratio <= 1), "Breaker.Ratio", k.Ratio, "it is above 0 and at most 1")
	bad(k.MinResults < 1, "Breaker.MinResults", k.MinResults, "it is at least 1")
	bad(k.Window <= 0, "Breaker.Window", k.Window, "it is not positive")
	bad(k.OpenFor <= 0, "Breaker.OpenFor", k.OpenFor, "it is not positive")
	bad(k.MaxOpen < k.OpenFor, "Breaker.MaxOpen", k.MaxOpen,
		fmt.Sprintf("it is less than OpenFor (%s)", k.OpenFor))
	return errors.Join(faults...)
}

// checkLease holds the options against the source's leases.
func (o *Options) checkLease(f ackwise.Features) error {
	if f.Lease <= 0 {
		return nil
	}
	var faults []error
	if f.Lease < minLease {
		faults = append(faults, invalid("lease", f.Lease, fmt.Sprintf(
			"the source's lease is shorter than %s, too short for heartbeats", minLease)))
	}
	if o.MaxHandle > 0 && o.MaxHandle < f.Lease {
		faults = append(faults, invalid("MaxHandle", o.MaxHandle, fmt.Sprintf(
			"it is less than the source's lease (%s), which would outlast it", f.Lease)))
	}
	if o.Linger >= f.Lease && !f.Extend {
		faults = append(faults, invalid("Linger", o.Linger, fmt.Sprintf(
			"it is not less than the source's lease (%s), which cannot be extended", f.Lease)))
	}
	held := o.Guarantee != AtMostOnce && f.MaxNackDelay < o.Backoff.Cap
	if held && !f.Extend && f.Lease < o.Backoff.Cap {
		faults = append(faults, invalid("Backoff.Cap", o.Backoff.Cap, fmt.Sprintf(
			"the source delays a nack by at most %s and cannot extend its lease of %s, so that a "+
				"longer retry can neither be given back nor held; lower Cap to one of the two",
			f.MaxNackDelay, f.Lease)))
	}
	return errors.Join(faults...)
}

// checkDead sees to it that a spent budget has somewhere to go.
func (o *Options) checkDead(f ackwise.Features) error {
	switch {
	case o.DeadLetters != nil && o.NoDeadLetters:
		return invalid("NoDeadLetters", true, "DeadLetters is set too")
	case o.DeadLetters != nil && f.Dead:
		return invalid("DeadLetters", "", "the source keeps dead letters of its own, in one step "+
			"with the settlement: leave it out")
	case o.DeadLetters == nil && !o.NoDeadLetters && !f.Dead:
		return &ackwise.HintError{
			Err: invalid("DeadLetters", "", "the source keeps no dead letters, so a message whose "+
				"budget is spent has nowhere to go"),
			Hint: "Set Options.DeadLetters to a store, or Options.NoDeadLetters to try such " +
				"messages again for ever.",
		}
	case o.NoDeadLetters && f.MaxHandOuts > 0:
		return &ackwise.HintError{
			Err: invalid("NoDeadLetters", true, fmt.Sprintf("the source itself gives a message up "+
				"after %d hand-outs, so that it cannot be tried again for ever", f.MaxHandOuts)),
			Hint: "Set Options.DeadLetters to a store.",
		}
	}
	return nil
}

func invalid(field string, value any, reason string) error {
	return &ackwise.InvalidError{Field: field, Value: fmt.Sprint(value), Reason: reason}
}
