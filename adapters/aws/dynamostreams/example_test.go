package dynamostreams

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/ackwise/ackwise"
)

func ExampleParseSource() {
	o, err := ParseSource("dynamodb-streams://eu-central-1/orders?group=relay&start=newest")
	fmt.Println(o.Region, o.Table, o.Group, o.Start == StartNewest, err)
	_, err = ParseSource("dynamodb-streams://eu-central-1/orders?group=relay&on_trimed=skip")
	fault, _, _ := strings.Cut(err.Error(), "; it is")
	fmt.Println(fault)
	// Output:
	// eu-central-1 orders relay true <nil>
	// read URL: there is no option "on_trimed"; did you mean "on_trimmed"?
}

// A change of a table is received and acked. The server here stands in for DynamoDB.
func ExampleOpenSource() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	table := newFake(1)
	server := httptest.NewServer(table)
	defer server.Close()
	table.put("N14228", "IAH")

	source, err := OpenSource(ctx, SourceOptions{Region: "eu-central-1", Table: "orders",
		Group: "relay", Leases: "leases", Endpoint: server.URL,
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")})
	if err != nil {
		log.Fatal(err)
	}
	ds, err := source.Receive(ctx, 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ds[0].Topic, ds[0].Key, ds[0].Cause)
	fmt.Printf("%s\n", ds[0].Body)
	source.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token, Outcome: ackwise.OutcomeAck}})
	if err := source.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// orders {"id":{"S":"N14228"}} first
	// {"Keys":{"id":{"S":"N14228"}},"NewImage":{"id":{"S":"N14228"},"value":{"S":"IAH"}}}
}
