package dynamostreams

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/test/servers"
)

func TestRealConformance(t *testing.T) {
	servers.Address(t, "ACKWISE_TEST_DYNAMODB")
	adaptertest.Run(t, realHarness())
}

// realHarness is the reader on DynamoDB Local, which has one shard and does not split it.
func realHarness() adaptertest.Harness {
	return adaptertest.Harness{Name: "dynamodb streams", Source: features(),
		OpenSource: openURL, Undo: undo, New: realBed}
}

// realBed is tables of their own on the shared server. A check that kills or freezes the server
// gets one of its own, and a lease that is longer than a server takes to start.
func realBed(t *testing.T) *adaptertest.Bed {
	t.Helper()
	bed := &adaptertest.Bed{Patience: time.Minute}
	direct, lease := "", "5s"
	if strings.Contains(t.Name(), "broker") {
		server, proxy := servers.StartBehindProxy(t, "dynamodb")
		bed.Server, bed.Proxy, direct, lease = server, proxy, server.Address, "30s"
	} else {
		direct = servers.Address(t, "ACKWISE_TEST_DYNAMODB")
		bed.Proxy = servers.StartProxy(t, strings.TrimPrefix(direct, "http://"))
	}
	db, table := client(direct), fresh("orders")
	makeTable(t, db, table, "S")
	bed.Source = address("http://"+bed.Proxy.(*servers.Proxy).Address, table, fresh("leases"),
		lease) + "&create=true"
	bed.Write = func(ctx context.Context, ms []ackwise.Message) error {
		for i := range ms {
			if err := putMessage(ctx, db, table, &ms[i]); err != nil {
				return err
			}
		}
		return nil
	}
	return bed
}

// makeTable makes a table with a stream; its key "id" is of a type.
func makeTable(t *testing.T, db *dynamodb.Client, name string, kind types.ScalarAttributeType) {
	t.Helper()
	_, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &name,
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"),
			AttributeType: kind}},
		KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("id"),
			KeyType: types.KeyTypeHash}},
		StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true),
			StreamViewType: types.StreamViewTypeNewAndOldImages}})
	if err != nil {
		t.Fatal(err)
	}
}

// fresh returns a name that no other run on the server has.
func fresh(what string) string { return fmt.Sprint(what, "-", time.Now().UnixNano()) }
