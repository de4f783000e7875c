package redisstore_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise/adapters/redis/redisstore"
	"github.com/ackwise/ackwise/idempotency"
)

func ExampleOpen() {
	ctx := context.Background()
	// redis.NewClient(&redis.Options{Addr: …, ContextTimeoutEnabled: true})
	client := exampleClient(config(), list(list(bulk("claimed"), ":1\r\n", ":0\r\n")))
	defer client.Close()
	store, err := redisstore.Open(ctx, client, redisstore.Options{
		Name:   "charges", // each handler has a name of its own
		Window: 24 * time.Hour,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	answers, err := store.Claim(ctx, []idempotency.Ask{{Key: "order-1", Lease: time.Minute}})
	fmt.Println(answers[0].Status, err)
	// Output: claimed <nil>
}

func ExampleOpenTable() {
	ctx := context.Background()
	// redis.NewClient(&redis.Options{Addr: …, ContextTimeoutEnabled: true})
	client := exampleClient(list(bulk("1")), list(bulk("wrote"), ":1\r\n"))
	defer client.Close()
	table, err := redisstore.OpenTable(ctx, client, redisstore.TableOptions{Name: "aircraft"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer table.Close()
	fmt.Println(table.Put(ctx, "N102UW", []byte("CLT")))
	// Output: <nil>
}

// exampleClient makes a client of a server that answers its scripts so, one after the other.
func exampleClient(replies ...string) *redis.Client {
	client, _ := fakeClient(func(_ string, n int) string { return replies[n] })
	return client
}
