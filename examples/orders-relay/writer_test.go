package orders

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise/internal/demo"
)

// writers is how many write at once. An aircraft's orders are written by one of them, in order.
const writers = 8

// orderOf is the order that a flight changes: its aircraft's, else its own.
func orderOf(f *demo.Flight) order {
	o := order{ID: f.Key, Flight: f.ID, Stamp: f.Stamp.String(), Carrier: f.Carrier,
		Place: f.Place(), Seq: int64(f.Seq), Miles: f.Flown()}
	if o.ID == "" {
		o.ID, o.Seq = f.ID, 1
	}
	return o
}

// writer is the application: it writes each change until the table has it.
type writer struct {
	api     *dynamodb.Client
	table   string
	flights []demo.Flight
	wg      sync.WaitGroup // the writers; they end with their flights, or the test

	mu      sync.Mutex // guards all below
	more    *sync.Cond // allowed has grown, or the test is over
	allowed int        // flights that may be written by now
	written int
	again   int // writes whose answer was lost
	over    bool
}

func startWriter(t *testing.T, api *dynamodb.Client, table string, flights []demo.Flight) *writer {
	t.Helper()
	w := &writer{api: api, table: table, flights: flights}
	w.more = sync.NewCond(&w.mu)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	for lane := range writers {
		w.wg.Go(func() { w.lane(ctx, lane) })
	}
	t.Cleanup(func() {
		w.mu.Lock()
		w.over = true
		w.more.Broadcast()
		w.mu.Unlock()
		cancel()
		w.wg.Wait()
	})
	return w
}

// allow lets some more flights be written.
func (w *writer) allow(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed = min(w.allowed+n, len(w.flights))
	w.more.Broadcast()
}

func (w *writer) done() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written
}

// waits reports whether all is written that may be.
func (w *writer) waits() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written == w.allowed
}

func (w *writer) lane(ctx context.Context, lane int) {
	for i := range w.flights {
		o := orderOf(&w.flights[i])
		h := fnv.New32a()
		_, _ = h.Write([]byte(o.ID)) // never fails
		if int(h.Sum32()%writers) != lane {
			continue
		}
		w.mu.Lock()
		for w.allowed <= i && !w.over {
			w.more.Wait()
		}
		over := w.over
		w.mu.Unlock()
		if over || !w.write(ctx, o) {
			return
		}
		w.mu.Lock()
		w.written++
		w.mu.Unlock()
	}
}

// write writes a change until it is there. A write whose answer was lost is refused when it is
// repeated: the table has the number already.
func (w *writer) write(ctx context.Context, o order) bool {
	s := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	n := func(v int64) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: strconv.FormatInt(v, 10)}
	}
	in := &dynamodb.PutItemInput{TableName: &w.table,
		Item: map[string]types.AttributeValue{"id": s(o.ID), "flight": s(o.Flight),
			"stamp": s(o.Stamp), "carrier": s(o.Carrier), "place": s(o.Place), "seq": n(o.Seq),
			"miles": n(o.Miles)},
		ConditionExpression:       aws.String("attribute_not_exists(id) OR seq < :seq"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":seq": n(o.Seq)}}
	for ctx.Err() == nil {
		_, err := w.api.PutItem(ctx, in)
		if err == nil {
			return true
		}
		if _, there := errors.AsType[*types.ConditionalCheckFailedException](err); there {
			w.mu.Lock()
			w.again++
			w.mu.Unlock()
			return true
		}
	}
	return false
}
