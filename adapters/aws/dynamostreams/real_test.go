package dynamostreams

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/change"
	"github.com/ackwise/ackwise/test/servers"
)

// A number has one form, whatever form it was written in, so that an item has one key; each kind of
// change comes with its images.
func TestRealChanges(t *testing.T) {
	server := servers.Address(t, "ACKWISE_TEST_DYNAMODB")
	db, table := client(server), fresh("numbers")
	makeTable(t, db, table, "N")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	n := func(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
	for i, id := range []string{"1.0", "001"} { // an equal item would be no change
		if _, err := db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &table,
			Item: map[string]types.AttributeValue{"id": n(id), "as": n(id),
				"i": n(fmt.Sprint(i)), "set": &types.AttributeValueMemberSS{Value: []string{"b", "a"}},
				"raw": &types.AttributeValueMemberB{Value: []byte{0, 255}}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &table,
		Key: map[string]types.AttributeValue{"id": n("1e0")}}); err != nil {
		t.Fatal(err)
	}
	source, err := openURL(ctx, address(server, table, fresh("leases"), "5s")+"&create=true")
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	image := func(i string) string {
		return `{"as":{"N":"1"},"i":{"N":"` + i + `"},"id":{"N":"1"},"raw":{"B":"AP8="},` +
			`"set":{"SS":["a","b"]}}`
	}
	var kinds, bodies []string
	for len(kinds) < 3 {
		ds, err := source.Receive(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			kind, _ := d.Header(change.HeaderKind)
			kinds, bodies = append(kinds, string(kind)), append(bodies, string(d.Body))
			if d.Key != `{"id":{"N":"1"}}` || d.Topic != table || d.Time.IsZero() {
				t.Errorf("change %q", d.Message)
			}
			source.Settle(ctx, []ackwise.Settlement{{Token: d.Token}})
		}
	}
	if !slices.Equal(kinds, []string{"INSERT", "MODIFY", "REMOVE"}) {
		t.Errorf("kinds %q", kinds)
	}
	const keys = `{"Keys":{"id":{"N":"1"}},`
	if !slices.Equal(bodies, []string{keys + `"NewImage":` + image("0") + "}",
		keys + `"OldImage":` + image("0") + `,"NewImage":` + image("1") + "}",
		keys + `"OldImage":` + image("1") + "}"}) {
		t.Errorf("bodies\n%s", strings.Join(bodies, "\n"))
	}
}

// The server takes a shard's first sequence number for an iterator, as children are begun.
func TestRealFirstSequenceNumber(t *testing.T) {
	server := servers.Address(t, "ACKWISE_TEST_DYNAMODB")
	db, table := client(server), fresh("first")
	makeTable(t, db, table, "S")
	m := ackwise.Message{ID: "1", Key: "k", Body: []byte("b")}
	if err := putMessage(t.Context(), db, table, &m); err != nil {
		t.Fatal(err)
	}
	o := SourceOptions{Region: "eu-central-1", Table: table, Group: "g", Leases: fresh("leases"),
		Create: true}.withDefaults()
	streams := dynamodbstreams.New(dynamodbstreams.Options{Region: o.Region, BaseEndpoint: &server,
		Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")})
	l, err := join(t.Context(), o, db, streams)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	shards, _, err := l.list(t.Context())
	if err != nil || len(shards) != 1 {
		t.Fatalf("shards %v, %v", shards, err)
	}
	for _, s := range shards {
		at, err := streams.GetShardIterator(t.Context(), &dynamodbstreams.GetShardIteratorInput{
			StreamArn: &l.arn, ShardId: aws.String(s.id), SequenceNumber: aws.String(sequenceOf(s.first)),
			ShardIteratorType: streamtypes.ShardIteratorTypeAtSequenceNumber})
		if err != nil {
			t.Fatal(err)
		}
		out, err := streams.GetRecords(t.Context(),
			&dynamodbstreams.GetRecordsInput{ShardIterator: at.ShardIterator})
		if err != nil || len(out.Records) != 1 {
			t.Errorf("records %v, %v, want the first one", out, err)
		}
	}
}
