package ddbstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise/idempotency"
)

// Settle carries out each settlement. The whole call fails where none of them could be.
func (s *Store) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	results := make([]error, len(claims))
	failed := make([]bool, len(claims)) // by DynamoDB, not by what is asked
	s.each(len(claims), func(i int) string { return claims[i].Key }, func(i int) {
		if results[i] = claims[i].Validate(); results[i] != nil {
			return
		}
		if err := s.settle(ctx, claims[i]); err != nil {
			failed[i] = !errors.Is(err, idempotency.ErrFence)
			results[i] = fmt.Errorf("settle in dedup store %s: %w", s.o.Name, cause(ctx, err))
		}
	})
	if len(claims) == 0 || slices.Contains(failed, false) {
		s.flush(ctx)
		return results, nil
	}
	return nil, results[0] // the others are like it
}

// settle carries out one settlement: a write that wants the claim as it was given.
func (s *Store) settle(ctx context.Context, c idempotency.Settlement) error {
	now := s.now()
	end, set := now, ""
	values := item{":claimed": text(claimed), ":fence": number(int64(c.Fence))}
	bucket := int64(0)
	switch c.Verb {
	case idempotency.Complete:
		bucket = s.count.bucket(now)
		set = "dstate = :done, doneMs = :now, counted = :bucket"
		values[":done"], values[":now"] = text(done), number(now.UnixMilli())
		values[":bucket"] = number(bucket)
		if c.Result != nil {
			set += ", reply = :result"
			values[":result"] = octets(c.Result)
		}
	case idempotency.Release:
		set = "dstate = :free"
		values[":free"] = text(free)
	case idempotency.Extend:
		end = now.Add(c.Lease)
		set = "beat = beat + :one, leaseMs = :lease"
		values[":one"], values[":lease"] = number(1), number(millis(c.Lease))
	}
	values[":expires"] = number(s.expiry(end))
	out, err := s.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &s.o.Table,
		Key:                                 keyOf(s.pk(c.Key)),
		UpdateExpression:                    aws.String("SET expires = :expires, " + set),
		ConditionExpression:                 aws.String("dstate = :claimed AND fence = :fence"),
		ExpressionAttributeValues:           values,
		ReturnValues:                        types.ReturnValueAllOld,
		ReturnValuesOnConditionCheckFailure: keepItem,
	})
	if there, ok := refusal(err); ok {
		return s.again(c, readClaim(there))
	}
	if err != nil {
		return err
	}
	old := readClaim(out.Attributes)
	if c.Verb == idempotency.Extend {
		old.beat, old.lease = old.beat+1, c.Lease
		s.watch.left(c.Key, old, s.now())
		return nil
	}
	s.watch.forget(c.Key)
	s.count.move(old.bucket, bucket)
	return nil
}

// again tells a settlement that was carried out before from one that is refused.
func (s *Store) again(c idempotency.Settlement, there claim) error {
	isDone := there.state == done && !s.past(there, s.now())
	switch {
	case c.Verb == idempotency.Complete && isDone && there.fence == int64(c.Fence):
		return nil
	case c.Verb == idempotency.Release && !isDone && there.state != claimed:
		return nil // it is free, by this claim's release or by a later one's
	}
	return idempotency.ErrFence
}
