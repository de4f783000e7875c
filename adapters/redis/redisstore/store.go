package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// maxRun bounds the keys of one run of a script: the server does nothing else meanwhile.
const maxRun = 128

// Store is an idempotency.Store in Redis.
type Store struct {
	client        redis.UniversalClient
	o             Options
	keys          [][]string // by shard: meta, claims, the ring
	claim, settle script
	closed        atomic.Bool
}

// Open opens the store of a name. The client stays the caller's, who closes it after the store.
func Open(ctx context.Context, client redis.UniversalClient, o Options) (*Store, error) {
	o, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("open dedup store: %w", err)
	}
	s := &Store{client: client, o: o, claim: newScript(claimScript), settle: newScript(settleScript)}
	for shard := range o.Shards {
		p := prefix("dedup", o.Name, shard)
		keys := []string{p + "meta", p + "claims"}
		for i := range ringLength {
			keys = append(keys, p+"done:"+strconv.Itoa(i))
		}
		s.keys = append(s.keys, keys)
	}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", o.Name, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := checkClient(s.client); err != nil {
		return err
	}
	if err := checkServer(ctx, s.client, s.o.Persist); err != nil {
		return err
	}
	window, shards := s.o.Window.String(), strconv.Itoa(s.o.Shards)
	kept, err := agree(ctx, s.client, s.config(), "window", window, "shards", shards)
	if err != nil {
		return err
	}
	if kept[0] != window || kept[1] != shards {
		return &ackwise.HintError{Err: fmt.Errorf("it has a window of %s and %s shards, not %s and %s",
			kept[0], kept[1], window, shards),
			Hint: "Open it with the same ones everywhere, or choose another name."}
	}
	return nil
}

func (s *Store) config() string { return prefix("dedup", s.o.Name, 0) + "config" }

// Bind keeps the first rule, and refuses another one with an *idempotency.RuleError.
func (s *Store) Bind(ctx context.Context, rule string) error {
	if rule == "" {
		return &ackwise.InvalidError{Field: "rule", Reason: "it is empty"}
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	kept, err := agree(ctx, s.client, s.config(), "rule", rule)
	switch {
	case err != nil:
		return fmt.Errorf("bind dedup store %s: %w", s.o.Name, err)
	case kept[0] != rule:
		return &idempotency.RuleError{Store: s.o.Name, Kept: kept[0], Got: rule}
	}
	return nil
}

// Claim answers each ask.
func (s *Store) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	answers := make([]idempotency.Answer, len(asks))
	var nonce [16]byte
	rand.Read(nonce[:12]) // never fails, see crypto/rand
	runs := make(runs, s.o.Shards)
	for i, a := range asks {
		if err := a.Validate(); err != nil {
			answers[i].Err = err
			continue
		}
		binary.BigEndian.PutUint32(nonce[12:], uint32(i))
		runs.add(shardOf(a.Key, s.o.Shards), i, a.Key, string(a.Sum[:]), millis(a.Lease),
			string(nonce[:]))
	}
	err := s.run(ctx, s.claim, runs, []any{s.part()}, func(i int, reply any) (err error) {
		answers[i], err = s.answer(reply)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("claim in dedup store %s: %w", s.o.Name, err)
	}
	return answers, nil
}

// part is a shard's part of MaxKeys.
func (s *Store) part() int { return s.o.MaxKeys / s.o.Shards }

// answer reads one reply of claimScript.
func (s *Store) answer(reply any) (a idempotency.Answer, err error) {
	list, _ := reply.([]any)
	word, _ := at[string](list, 0)
	number, hasNumber := at[int64](list, 1)
	switch word {
	case "claimed":
		takeover, ok := at[int64](list, 2)
		if !hasNumber || !ok {
			return a, strange(reply)
		}
		a.Status, a.Fence, a.Takeover = idempotency.Claimed, uint64(number), takeover == 1
	case "done":
		result, ok := at[string](list, 2)
		if !hasNumber || !ok {
			return a, strange(reply)
		}
		a.Status, a.Time, a.Result = idempotency.Done, time.UnixMilli(number), unpackData(result)
	case "busy":
		if !hasNumber {
			return a, strange(reply)
		}
		a.Status, a.Wait = idempotency.Busy, time.Duration(number)*time.Millisecond
	case "conflict":
		a.Status = idempotency.Conflict
	case "full":
		a.Err = fmt.Errorf("claim in dedup store %s: its shard holds %d keys: %w", s.o.Name, number,
			ackwise.ErrFull)
	case "memory":
		a.Err = fmt.Errorf("claim in dedup store %s: the server has no memory left: %w", s.o.Name,
			ackwise.ErrFull)
	default:
		return a, strange(reply)
	}
	return a, nil
}

func at[T any](list []any, i int) (v T, ok bool) {
	if i < len(list) {
		v, ok = list[i].(T)
	}
	return v, ok
}

// Settle carries out each settlement.
func (s *Store) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	results := make([]error, len(claims))
	words := map[idempotency.Verb]string{idempotency.Complete: "complete",
		idempotency.Release: "release", idempotency.Extend: "extend"}
	runs := make(runs, s.o.Shards)
	for i, c := range claims {
		if results[i] = c.Validate(); results[i] == nil {
			runs.add(shardOf(c.Key, s.o.Shards), i, words[c.Verb], c.Key,
				strconv.FormatUint(c.Fence, 10), millis(c.Lease), packData(c.Result))
		}
	}
	err := s.run(ctx, s.settle, runs, nil, func(i int, reply any) error {
		switch reply {
		case int64(1):
		case int64(0):
			results[i] = fmt.Errorf("settle in dedup store %s: %w", s.o.Name, idempotency.ErrFence)
		default:
			return strange(reply)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("settle in dedup store %s: %w", s.o.Name, err)
	}
	return results, nil
}

// runs are the runs of a script that a call is made of, by shard.
type runs [][]*shardRun

// shardRun is one run: the arguments of up to maxRun keys, and which of the call's they are.
type shardRun struct {
	items []int
	args  []any
}

// add adds the arguments of one item of a call.
func (r runs) add(shard, item int, args ...any) {
	n := len(r[shard])
	if n == 0 || len(r[shard][n-1].items) == maxRun {
		r[shard] = append(r[shard], &shardRun{})
		n++
	}
	last := r[shard][n-1]
	last.items, last.args = append(last.items, item), append(last.args, args...)
}

// run runs a script on what was added, and hands out the reply to each item.
func (s *Store) run(ctx context.Context, sc script, r runs, extra []any,
	reply func(item int, reply any) error) error {
	var calls []call
	var all []*shardRun
	for shard, list := range r {
		for _, one := range list {
			args := append([]any{s.o.width(), s.o.Window.Milliseconds()}, extra...)
			calls = append(calls, call{s.keys[shard], append(args, one.args...)})
			all = append(all, one)
		}
	}
	if len(calls) == 0 {
		return nil
	}
	replies, err := sc.run(ctx, s.client, calls)
	if err != nil {
		return err
	}
	for i, one := range all {
		list, ok := replies[i].([]any)
		if !ok || len(list) != len(one.items) {
			return strange(replies[i])
		}
		for j, item := range one.items {
			if err := reply(item, list[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// millis rounds up, so that no lease is shorter than asked for.
func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// packData writes data so that nil and empty stay apart; unpackData reads it.
func packData(data []byte) string {
	if data == nil {
		return ""
	}
	return "=" + string(data)
}

func unpackData(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(s[1:])
}

// enter refuses a call that must not do anything.
func (s *Store) enter(ctx context.Context) error {
	return enter(ctx, &s.closed, "dedup store "+s.o.Name)
}

func enter(ctx context.Context, closed *atomic.Bool, what string) error {
	switch {
	case closed.Load():
		return fmt.Errorf("use %s: %w", what, ackwise.ErrClosed)
	case ctx.Err() != nil:
		return fmt.Errorf("use %s: %w", what, errors.Join(ctx.Err(), context.Cause(ctx)))
	}
	return nil
}

// Window is how long a key stays done.
func (s *Store) Window() time.Duration { return s.o.Window }

// Close ends the store in this process. It does not close the client.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}
