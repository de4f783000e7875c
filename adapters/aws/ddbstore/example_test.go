package ddbstore_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/idempotency"
)

func ExampleOpen() {
	ctx := context.Background()
	client := exampleClient() // dynamodb.NewFromConfig(…)
	store, err := ddbstore.Open(ctx, client, ddbstore.Options{
		Table:  "ackwise",
		Name:   "charges", // each handler has a name of its own
		Window: 48 * time.Hour,
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

func ExampleOpenRegion() {
	store, err := ddbstore.OpenRegion(context.Background(),
		ddbstore.Region{Name: "eu-central"}, // a slip
		ddbstore.Options{Table: "ackwise", Name: "charges", Window: 48 * time.Hour})
	if err != nil {
		_, near, _ := strings.Cut(err.Error(), "; ")
		fmt.Println(near)
		return
	}
	defer store.Close()
	// Output: did you mean "eu-central-1"?
}

func ExampleOpenTable() {
	ctx := context.Background()
	client := exampleClient() // dynamodb.NewFromConfig(…)
	table, err := ddbstore.OpenTable(ctx, client,
		ddbstore.TableOptions{Table: "ackwise", Name: "aircraft"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer table.Close()
	fmt.Println(table.Put(ctx, "N102UW", []byte("CLT")))
	// Output: <nil>
}

func ExampleCreateTable() {
	client := exampleClient() // dynamodb.NewFromConfig(…)
	err := ddbstore.CreateTable(context.Background(), client, "ackwise")
	fmt.Println(err)
	// Output: <nil>
}

// exampleClient makes a client of a server in this process that has the table and no item.
func exampleClient() *dynamodb.Client {
	server := httptest.NewServer(http.HandlerFunc(answer)) // ends with the test's process
	return dynamodb.New(dynamodb.Options{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String(server.URL),
		Credentials:  credentials.NewStaticCredentialsProvider("local", "local", ""),
	})
}

func answer(w http.ResponseWriter, r *http.Request) {
	_, call, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	body := map[string]string{
		"DescribeTable": `{"Table":{"TableStatus":"ACTIVE",
			"AttributeDefinitions":[{"AttributeName":"pk","AttributeType":"S"},
				{"AttributeName":"gname","AttributeType":"S"},
				{"AttributeName":"gtime","AttributeType":"N"}],
			"KeySchema":[{"AttributeName":"pk","KeyType":"HASH"}],
			"GlobalSecondaryIndexes":[{"IndexName":"graves","KeySchema":[
				{"AttributeName":"gname","KeyType":"HASH"},
				{"AttributeName":"gtime","KeyType":"RANGE"}]}]}}`,
		"DescribeTimeToLive": `{"TimeToLiveDescription":
			{"AttributeName":"expires","TimeToLiveStatus":"ENABLED"}}`,
		"UpdateItem":  `{"Attributes":{"dwindow":{"S":"48h0m0s"}}}`,
		"CreateTable": `{}`, "GetItem": `{}`, "PutItem": `{}`,
	}[call]
	if body == "" {
		w.WriteHeader(http.StatusBadRequest)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_, _ = io.WriteString(w, body) // a broken connection is the client's to report
}
