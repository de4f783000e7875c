// Command cache keeps the newest price of each article, whatever order the messages come in. It
// promises that after any number of redeliveries the cache holds what the last write of each key
// said, by its producer's clock (idempotency.Upsert): an older price that comes late loses, and a
// deletion leaves a tombstone, so that a late price does not bring the article back.
//
// It needs no server: the cache is a table in memory. With another Table, such as the one of
// adapters/redis/redisstore, nothing else changes.
package main

import (
	"context"
	"fmt"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// price is a message as its producer writes it: the stamp says when the price was set.
func price(id, article, text string, millis int64) *ackwise.Delivery {
	stamp := ackwise.Stamp{Millis: millis, Node: "shop"}
	m := ackwise.Message{ID: id, Topic: "prices", Key: article, Headers: []ackwise.Header{
		{Name: ackwise.HeaderStamp, Value: []byte(stamp.String())}}}
	if text != "" {
		m.Body = []byte(text)
	}
	return &ackwise.Delivery{Message: m, Attempt: 1, Cause: ackwise.CauseFirst}
}

func main() {
	ctx := context.Background()
	table := memstore.OpenTable(memstore.TableOptions{})
	handler := idempotency.Upsert(table, func(d *ackwise.Delivery) (idempotency.Row, error) {
		for _, h := range d.Headers {
			if h.Name == ackwise.HeaderStamp {
				stamp, err := ackwise.ParseStamp(string(h.Value))
				return idempotency.Row{Key: d.Key, Stamp: stamp, Data: d.Body}, err
			}
		}
		return idempotency.Row{}, ackwise.Reject(fmt.Errorf("message %s has no stamp", d.ID))
	}, idempotency.UpsertOptions{})

	monday := price("m-1", "tea", "3.10", 1_000)
	tuesday := price("m-2", "tea", "3.40", 2_000)
	coffee := price("m-3", "coffee", "7.00", 1_500)
	gone := price("m-4", "coffee", "", 2_500) // a nil body: the article is not sold any more
	for _, d := range []*ackwise.Delivery{
		tuesday, monday, // out of order
		gone, coffee, // out of order, with a deletion
		monday, tuesday, monday, coffee, gone, // redelivered, in any order
	} {
		if err := handler.Handle(ctx, d); err != nil {
			panic(err)
		}
	}

	for _, article := range []string{"tea", "coffee"} {
		e, err := table.Get(ctx, article)
		if err != nil {
			panic(err)
		}
		if e.Data == nil {
			fmt.Println(article, "is not sold")
			continue
		}
		fmt.Printf("%s costs %s\n", article, e.Data)
	}
}
