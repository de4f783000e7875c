package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/client/wire/claims"
	"github.com/ackwise/ackwise/idempotency"
)

// OpenSet makes the dedup set of a name where it is missing, see queue.Store.OpenSet.
func (c *Client) OpenSet(ctx context.Context, name string, window time.Duration,
	maxKeys int) error {
	return tell(ctx, c, wire.OpenSet,
		claims.SetRequest{Set: name, Window: window, MaxKeys: maxKeys})
}

// BindSet says by which rule the keys and sums of a dedup set are made, see queue.Store.BindSet.
func (c *Client) BindSet(ctx context.Context, name, rule string) error {
	return tell(ctx, c, wire.BindSet, claims.SetRequest{Set: name, Rule: wire.Bytes(rule)})
}

// Claim asks for the right to make the effects of keys, see queue.Store.Claim. The call has a
// number from its first sending on: sent again after a hand-over, it gets the claims that it has
// got.
func (c *Client) Claim(ctx context.Context, set string, asks []idempotency.Ask) (
	[]idempotency.Answer, error) {
	return c.answers(ctx, wire.Claim, claims.AsksOf(set, rand.Uint64()|1, asks))
}

// Look tells what Claim would say of a key, and claims nothing, see queue.Store.Look.
func (c *Client) Look(ctx context.Context, set string, ask idempotency.Ask) (
	idempotency.Answer, error) {
	answers, err := c.answers(ctx, wire.Look, claims.AsksOf(set, 0, []idempotency.Ask{ask}))
	if err != nil {
		return idempotency.Answer{}, err
	}
	return answers[0], answers[0].Err
}

func (c *Client) answers(ctx context.Context, name wire.Call, q claims.Asks) (
	[]idempotency.Answer, error) {
	got, err := ask[claims.Answers](ctx, c, name, q)
	if err == nil && len(got.Answers) != len(q.Asks) {
		err = fmt.Errorf("read answer: %d answers to %d asks", len(got.Answers), len(q.Asks))
	}
	if err != nil {
		return nil, err
	}
	return got.Values(), nil
}

// SettleClaims ends or extends claims, see queue.Store.SettleClaims. Sent again after a hand-over,
// it is answered alike.
func (c *Client) SettleClaims(ctx context.Context, set string,
	settlements []idempotency.Settlement) ([]error, error) {
	got, err := ask[claims.Settled](ctx, c, wire.SettleClaims,
		claims.SettlementsOf(set, settlements))
	if err == nil && len(got.Errors) != len(settlements) {
		err = fmt.Errorf("read answer: %d results for %d settlements", len(got.Errors),
			len(settlements))
	}
	if err != nil {
		return nil, err
	}
	return got.Values(), nil
}
