package idempotency

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Once makes an effect once in the store's window and returns its result: that of the effect, or,
// to a duplicate, the stored one of the first, with again set. The result is kept as JSON, at most
// MaxResultBytes of it. A Lease of zero is 30 s; it is extended while the effect is made, for up to
// an hour.
//
// Its errors may be returned by a handler as they are: a snooze while another one makes the effect,
// a rejection where the key is known with another payload (Ask.Sum), a nack where the store is full
// or away. An effect that returns an error gives the claim back. Where the effect was made, and
// that could not be kept, its result is returned beside the error.
func Once[T any](ctx context.Context, s Store, ask Ask,
	effect func(ctx context.Context) (T, error)) (result T, again bool, err error) {
	ask.Lease = cmp.Or(ask.Lease, defaultLease)
	held := &holder{s: s, lease: ask.Lease, most: max(time.Hour, ask.Lease),
		until: time.Now().Add(ask.Lease), failed: func(error) {}}
	answers, err := askAll(ctx, s, []Ask{ask})
	if err != nil {
		return result, false, err
	}
	a := answers[0]
	switch {
	case a.Status == Done && len(a.Result) == 0:
		return result, true, fmt.Errorf("read result of %.80q: it was made, and no result was kept",
			ask.Key)
	case a.Status == Done:
		if err := json.Unmarshal(a.Result, &result); err != nil {
			return result, true, fmt.Errorf("read result of %.80q: %w", ask.Key, err)
		}
		return result, true, nil
	case a.Status != Claimed:
		return result, false, turnedDown(ask.Key, a, defaultBusyDelay, s.Window())
	}
	claim := Claim{Key: ask.Key, Fence: a.Fence, Takeover: a.Takeover}
	held.claims = []Claim{claim}
	early := held.during(ctx, func(ctx context.Context) { result, err = effect(ctx) })
	if err == nil && early != nil {
		err = fmt.Errorf("claim %.80q: %w", ask.Key, early)
	}
	if err != nil {
		// Where this does not come through the claim runs out; the effect's error counts.
		held.settle(ctx, []Settlement{giveBack(claim)})
		return result, false, err
	}
	kept, keepErr := keptResult(result)
	end := Settlement{Key: ask.Key, Fence: a.Fence, Verb: Complete, Result: kept}
	if err := held.settle(ctx, []Settlement{end})[0]; err != nil {
		return result, false, unknown(ask.Key, err)
	}
	if keepErr != nil {
		return result, false, fmt.Errorf("keep result of %.80q: its effect was made: %w", ask.Key,
			keepErr)
	}
	return result, false, nil
}

// keptResult is what a completion keeps of a result. One that cannot be kept is none: the effect
// was made, and must not be made again for the sake of its result.
func keptResult(result any) ([]byte, error) {
	data, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxResultBytes {
		return nil, fmt.Errorf("%d bytes of JSON, at most %d are kept", len(data), MaxResultBytes)
	}
	return data, nil
}
