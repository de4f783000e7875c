package memstore_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

func ExampleOpen() {
	store, err := memstore.Open(memstore.Options{MaxKeys: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	answers, err := store.Claim(context.Background(), []idempotency.Ask{
		{Key: "a", Lease: time.Minute}, {Key: "a", Lease: time.Minute}, {Key: "b", Lease: time.Minute},
	})
	for _, a := range answers {
		fmt.Println(a.Status, a.Err)
	}
	fmt.Println(err)
	// Output:
	// claimed <nil>
	// busy <nil>
	// none claim in dedup store memory: it holds 1 keys: full
	// <nil>
}

func ExampleOpenTable() {
	table := memstore.OpenTable(memstore.TableOptions{})
	ctx := context.Background()
	first, err := table.Swap(ctx, "seat 12A", 0, []byte("Ann")) // only if nobody has it
	fmt.Println(first, err)
	_, err = table.Swap(ctx, "seat 12A", 0, []byte("Bob"))
	fmt.Println(err)
	// Output:
	// 1 <nil>
	// the value was changed meanwhile
}
