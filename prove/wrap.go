package prove

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// provedStore is an idempotency.Store each call of which has a point before and after it.
type provedStore struct{ to idempotency.Store }

// Bind belongs to the start of a consumer, where there are no points.
func (s provedStore) Bind(ctx context.Context, rule string) error { return s.to.Bind(ctx, rule) }

func (s provedStore) Claim(ctx context.Context, asks []idempotency.Ask) (
	answers []idempotency.Answer, err error) {
	keys := make([]string, len(asks))
	for i := range asks {
		keys[i] = asks[i].Key
	}
	err = Call(ctx, "claim "+named(keys), func(ctx context.Context) error {
		answers, err = s.to.Claim(ctx, asks)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

func (s provedStore) Settle(ctx context.Context, claims []idempotency.Settlement) (
	results []error, err error) {
	keys := make([]string, len(claims))
	verb := "settle"
	for i := range claims {
		keys[i] = claims[i].Key
		verb = verbWord(claims[i].Verb)
	}
	err = Call(ctx, verb+" "+named(keys), func(ctx context.Context) error {
		results, err = s.to.Settle(ctx, claims)
		return err
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (s provedStore) Window() time.Duration { return s.to.Window() }

func (s provedStore) Close() error { return s.to.Close() }

func verbWord(v idempotency.Verb) string {
	switch v {
	case idempotency.Complete:
		return "complete"
	case idempotency.Release:
		return "release"
	case idempotency.Extend:
		return "extend"
	}
	return "settle"
}

// provedTable is an idempotency.Table each call of which has a point before and after it.
type provedTable struct{ to idempotency.Table }

func (t provedTable) Get(ctx context.Context, key string) (e idempotency.Entry, err error) {
	err = Call(ctx, "get "+named([]string{key}), func(ctx context.Context) error {
		e, err = t.to.Get(ctx, key)
		return err
	})
	if err != nil {
		return idempotency.Entry{}, err
	}
	return e, nil
}

func (t provedTable) Put(ctx context.Context, key string, data []byte) error {
	return Call(ctx, "put "+named([]string{key}), func(ctx context.Context) error {
		return t.to.Put(ctx, key, data)
	})
}

func (t provedTable) Swap(ctx context.Context, key string, old uint64, data []byte) (
	version uint64, err error) {
	err = Call(ctx, "swap "+named([]string{key}), func(ctx context.Context) error {
		version, err = t.to.Swap(ctx, key, old, data)
		return err
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

func (t provedTable) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	wrote bool, err error) {
	err = Call(ctx, "upsert "+named([]string{key}), func(ctx context.Context) error {
		wrote, err = t.to.Upsert(ctx, key, stamp, data)
		return err
	})
	if err != nil {
		return false, err
	}
	return wrote, nil
}

func (t provedTable) Purge(ctx context.Context, age time.Duration) (n int, err error) {
	err = Call(ctx, "purge", func(ctx context.Context) error {
		n, err = t.to.Purge(ctx, age)
		return err
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// named shows keys in the name of a point: the first, cut, and how many more.
func named(keys []string) string {
	const most = 24
	if len(keys) == 0 {
		return "nothing"
	}
	first := strings.ToValidUTF8(keys[0], "?")
	if r := []rune(first); len(r) > most {
		first = string(r[:most]) + "…"
	}
	if len(keys) > 1 {
		return fmt.Sprintf("%s and %d more", first, len(keys)-1)
	}
	return first
}
