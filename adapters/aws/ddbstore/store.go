package ddbstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// Store is an idempotency.Store in DynamoDB.
type Store struct {
	api    API
	o      Options
	now    func() time.Time
	watch  *watch
	count  *counter
	closed atomic.Bool
}

// Open opens the store of a name in a DynamoDB table, which must be there: see CreateTable.
func Open(ctx context.Context, api API, o Options) (*Store, error) {
	o, err := o.check()
	if err != nil {
		return nil, fmt.Errorf("open dedup store: %w", err)
	}
	s := &Store{api: api, o: o, now: time.Now, watch: newWatch(o.MaxWatched), count: newCounter(o)}
	if err := s.open(ctx); err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", o.Name, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	if err := checkTable(ctx, s.api, s.o.Table, false); err != nil {
		return err
	}
	kept, err := s.agree(ctx, "dwindow", s.o.Window.String())
	if err != nil {
		return err
	}
	if kept != s.o.Window.String() {
		return &ackwise.HintError{Err: fmt.Errorf("it has a window of %s, not %s", kept, s.o.Window),
			Hint: "Open it with the same one everywhere, or choose another name."}
	}
	return s.count.sync(ctx, s)
}

// nameKey is the key of the item that holds what all users of a name share.
func (s *Store) nameKey() item { return keyOf(pk("name", s.o.Name, "")) }

// agree keeps what the first user of a name says, and returns it.
func (s *Store) agree(ctx context.Context, attribute, value string) (string, error) {
	set := fmt.Sprintf("SET %[1]s = if_not_exists(%[1]s, :v)", attribute)
	out, err := s.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &s.o.Table,
		Key:                       s.nameKey(),
		UpdateExpression:          &set,
		ExpressionAttributeValues: item{":v": text(value)},
		ReturnValues:              types.ReturnValueAllNew,
	})
	if err != nil {
		return "", cause(ctx, err)
	}
	return item(out.Attributes).text(attribute), nil
}

// Bind keeps the first rule, and refuses another one with an *idempotency.RuleError.
func (s *Store) Bind(ctx context.Context, rule string) error {
	if rule == "" {
		return &ackwise.InvalidError{Field: "rule", Reason: "it is empty"}
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	kept, err := s.agree(ctx, "drule", rule)
	switch {
	case err != nil:
		return fmt.Errorf("bind dedup store %s: %w", s.o.Name, err)
	case kept != rule:
		return &idempotency.RuleError{Store: s.o.Name, Kept: kept, Got: rule}
	}
	return nil
}

// Claim answers each ask. Where one of them cannot be answered, the whole call fails, and what it
// has claimed is held until the lease is over.
func (s *Store) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	if s.count.stale(s.now()) {
		if err := s.count.sync(ctx, s); err != nil {
			return nil, fmt.Errorf("count in dedup store %s: %w", s.o.Name, err)
		}
	}
	answers := make([]idempotency.Answer, len(asks))
	faults := make([]error, len(asks))
	s.each(len(asks), func(i int) string { return asks[i].Key }, func(i int) {
		if err := asks[i].Validate(); err != nil {
			answers[i].Err = err
			return
		}
		answers[i], faults[i] = s.claim(ctx, asks[i])
	})
	for _, err := range faults {
		if err != nil {
			return nil, fmt.Errorf("claim in dedup store %s: %w", s.o.Name, cause(ctx, err))
		}
	}
	s.flush(ctx)
	return answers, nil
}

// flush adds to the count what is ripe. An addition that fails may be lost: see counter.
func (s *Store) flush(ctx context.Context) {
	if s.count.ripe(s.now()) {
		_ = s.count.sync(ctx, s) // the count may be short of it; the call has done its work
	}
}

// each calls do for 0 to n-1, several at once, but those of one key one after the other.
func (s *Store) each(n int, key func(i int) string, do func(i int)) {
	var order [][]int
	place := make(map[string]int)
	for i := range n {
		at, ok := place[key(i)]
		if !ok {
			at = len(order)
			place[key(i)] = at
			order = append(order, nil)
		}
		order[at] = append(order[at], i)
	}
	if len(order) == 1 {
		for _, i := range order[0] {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup // each goroutine ends when there is no key left
	for range min(s.o.Concurrency, len(order)) {
		wg.Go(func() {
			for at := int(next.Add(1)) - 1; at < len(order); at = int(next.Add(1)) - 1 {
				for _, i := range order[at] {
					do(i)
				}
			}
		})
	}
	wg.Wait()
}

// maxTries bounds how often an ask starts again because somebody else was faster.
const maxTries = 16

// claim answers one ask. The first write is for a key that is not there. Where that is refused,
// what is there comes with the refusal, and decides; a claim of it is a write that wants it
// unchanged.
func (s *Store) claim(ctx context.Context, a idempotency.Ask) (idempotency.Answer, error) {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails, see crypto/rand
	want := claim{state: claimed, sum: a.Sum, lease: a.Lease, nonce: nonce}
	full := s.count.full(s.now())
	var there claim // the zero one is a key that is not there
	if full {
		var err error
		if there, err = s.read(ctx, a.Key); throttled(err) {
			return idempotency.Answer{Err: cause(ctx, err)}, nil
		} else if err != nil {
			return idempotency.Answer{}, err
		}
	}
	for range maxTries {
		now := s.now()
		if answer, ok := s.answer(a, there, want.nonce, now); ok {
			return answer, nil
		}
		if full && there.state != claimed {
			return idempotency.Answer{Err: fmt.Errorf("claim in dedup store %s: it holds %d keys or "+
				"more: %w", s.o.Name, s.o.MaxKeys, ackwise.ErrFull)}, nil
		}
		got, err := s.put(ctx, a.Key, want.after(there, now, s.count.bucket(now)), there)
		if refused := err; throttled(refused) {
			// An earlier try of the client may have been carried out, and its answer lost. Where that
			// cannot be known the call fails: "full" says that the key is not claimed.
			if got, err = s.read(ctx, a.Key); err == nil && got.nonce != nonce {
				return idempotency.Answer{Err: cause(ctx, refused)}, nil
			}
		}
		if err != nil {
			return idempotency.Answer{}, err
		}
		if got.nonce == nonce {
			s.count.move(there.countedIn(), got.bucket)
		}
		there = got
	}
	return idempotency.Answer{}, fmt.Errorf("key %.80q was changed by others %d times meanwhile",
		a.Key, maxTries)
}

// answer answers an ask by what is there, and reports whether it does: else the key can be
// claimed.
func (s *Store) answer(a idempotency.Ask, there claim, nonce [16]byte, now time.Time) (
	idempotency.Answer, bool) {
	switch {
	case there.state == claimed && there.nonce == nonce:
		s.watch.left(a.Key, there, now) // a claim of one's own is seen from here on
		return idempotency.Answer{Status: idempotency.Claimed, Fence: uint64(there.fence),
			Takeover: there.takeover}, true
	case there.state == done && !s.past(there, now):
		s.watch.forget(a.Key)
		if !a.Sum.Fits(there.sum) {
			return idempotency.Answer{Status: idempotency.Conflict}, true
		}
		return idempotency.Answer{Status: idempotency.Done, Result: there.result,
			Time: time.UnixMilli(there.doneMillis)}, true
	case there.state == claimed && !a.Sum.Fits(there.sum):
		return idempotency.Answer{Status: idempotency.Conflict}, true
	case there.state == claimed:
		if left := s.watch.left(a.Key, there, now); left > 0 {
			return idempotency.Answer{Status: idempotency.Busy, Wait: left}, true
		}
	}
	return idempotency.Answer{}, false
}

// past reports whether a completion is out of the window.
func (s *Store) past(c claim, now time.Time) bool {
	end := time.UnixMilli(c.doneMillis).Add(s.o.Window + s.o.MaxSkew)
	return !now.Before(end)
}

// put writes a claim in the place of what is there, and returns what is there then: the claim, or
// what somebody else has written meanwhile.
func (s *Store) put(ctx context.Context, key string, c, there claim) (claim, error) {
	in := &dynamodb.PutItemInput{TableName: &s.o.Table,
		Item:                                s.item(key, c),
		ConditionExpression:                 aws.String("attribute_not_exists(pk)"),
		ReturnValuesOnConditionCheckFailure: keepItem,
	}
	if there.state != "" {
		in.ConditionExpression = aws.String("dstate = :state AND fence = :fence AND beat = :beat")
		in.ExpressionAttributeValues = item{":state": text(there.state),
			":fence": number(there.fence), ":beat": number(there.beat)}
	}
	_, err := s.api.PutItem(ctx, in)
	if there, ok := refusal(err); ok {
		return readClaim(there), nil
	}
	return c, err
}

// read returns what is there.
func (s *Store) read(ctx context.Context, key string) (claim, error) {
	out, err := s.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.o.Table,
		Key: keyOf(s.pk(key)), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return claim{}, err
	}
	return readClaim(out.Item), nil
}

func (s *Store) pk(key string) string { return pk("dedup", s.o.Name, key) }

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

// Close ends the store in this process.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}
