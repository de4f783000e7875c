package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/deliver"
)

// All that is wrong with a URL is told at once.
func ExampleParseSink() {
	o, err := kafka.ParseSink("kafka://a:9092,b/orders?compression=zstd&linger=5ms")
	fmt.Println(o.Brokers, o.Topic, o.Compression, o.Linger, err)
	// Output: [a:9092 b] orders zstd 5ms <nil>
}

// A sink says of each message what became of it.
func ExampleOpenSink() {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	ctx := context.Background()
	sink, err := kafka.OpenSink(ctx, kafka.SinkOptions{Topic: "orders",
		Conn: kafka.Conn{Brokers: cluster.ListenAddrs()}})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range sink.Publish(ctx, []ackwise.Message{
		{ID: "UA1545", Key: "N14228", Body: []byte("take-off")},
		{ID: "UA1546", Topic: "orders", Body: make([]byte, 2<<20)},
	}) {
		fmt.Println(r.ID, r.Class)
	}
	fmt.Println(sink.Close())
	// Output:
	// UA1545 accepted
	// UA1546 rejected
	// <nil>
}

// What a batch publishes and its own acks are one transaction.
func ExampleTransact() {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in", "out"))
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	conn := kafka.Conn{Brokers: cluster.ListenAddrs()}
	sink, err := kafka.OpenSink(ctx, kafka.SinkOptions{Topic: "in", Conn: conn})
	if err != nil {
		log.Fatal(err)
	}
	sink.Publish(ctx, []ackwise.Message{{ID: "1", Body: []byte("one")}})
	source, err := kafka.OpenSource(ctx,
		kafka.SourceOptions{Conn: conn, Topics: []string{"in"}, Group: "upper"})
	if err != nil {
		log.Fatal(err)
	}
	upper := kafka.Transact(func(_ context.Context, tx *kafka.Tx, ds []*ackwise.Delivery) error {
		for _, d := range ds {
			fmt.Println(d.ID, d.Cause)
			tx.Publish(ackwise.Message{ID: "upper-" + d.ID,
				Body: []byte(strings.ToUpper(string(d.Body)))})
		}
		return nil
	}, kafka.SinkOptions{Topic: "out"})
	err = deliver.RunBatch(ctx, source, upper, deliver.Options{NoDeadLetters: true,
		Guarantee: deliver.ExactlyOnce, Concurrency: 1, Observe: func(e ackwise.Event) {
			if e.Kind == "settled" {
				stop()
			}
		}})
	fmt.Println(errors.Join(err, source.Close(), upper.Close(), sink.Close()))
	// Output:
	// 1 first
	// <nil>
}
