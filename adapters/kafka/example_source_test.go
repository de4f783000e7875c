package kafka_test

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
)

// The URL of a source, and what is wrong with another one. OpenSource then joins the group.
func ExampleParseSource() {
	o, err := kafka.ParseSource("kafka://broker-1,broker-2:9093/orders,refunds?group=billing" +
		"&tls=true&sasl=scram-sha-512&user=billing&password=env:KAFKA_PASSWORD&start=latest")
	fmt.Println(o.Brokers, o.Topics, o.Group, o.Latest, err)
	_, err = kafka.ParseSource("kafka://broker-1/orders?gruop=billing&mode=shared")
	fmt.Println(err)
	// Output:
	// [broker-1 broker-2:9093] [orders refunds] billing true <nil>
	// mode=shared: it is group or share; did you mean "share"?
	// invalid group: a source needs one: it remembers what is settled
	// there is no option "gruop"; did you mean "group"?; it is kafka://HOST[:PORT][,HOST…]/TOPIC[,TOPIC…]?group=NAME
}

// A message is read, settled, and not read again.
func ExampleOpenSource() {
	ctx := context.Background()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cluster.Close()
	broker := cluster.ListenAddrs()[0]
	producer, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DefaultProduceTopic("orders"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer producer.Close()
	producer.ProduceSync(ctx, kgo.StringRecord("one"), kgo.StringRecord("two"))

	for range 2 {
		source, err := kafka.OpenSource(ctx, kafka.SourceOptions{
			Conn: kafka.Conn{Brokers: []string{broker}}, Topics: []string{"orders"}, Group: "billing"})
		if err != nil {
			fmt.Println(err)
			return
		}
		ds, err := source.Receive(ctx, 1)
		if err != nil {
			fmt.Println(err)
			return
		}
		source.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token}})
		fmt.Printf("%s: %s, %s\n", ds[0].ID, ds[0].Body, ds[0].Cause)
		source.Close()
	}
	// Output:
	// orders/0/0: one, first
	// orders/0/1: two, first
}
