package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/adapters/aws/lambda/lambdatest"
	"github.com/ackwise/ackwise/adapters/aws/sqs"
	"github.com/ackwise/ackwise/test/lambdahost"
	"github.com/ackwise/ackwise/test/servers"
)

const region = "eu-central-1"

func static() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("test", "test", "")
}

// queue is a real queue as the poller reads it.
type queue struct {
	api      *awssqs.Client
	url, arn string
}

func newQueue(t *testing.T, endpoint, name string, attributes map[string]string) *queue {
	t.Helper()
	q := &queue{arn: "arn:aws:sqs:" + region + ":000000000000:" + name,
		api: awssqs.New(awssqs.Options{Region: region, BaseEndpoint: &endpoint, Credentials: static()})}
	out, err := q.api.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name,
		Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	q.url = *out.QueueUrl
	return q
}

func (q *queue) receive(ctx context.Context, max int) ([]sqstypes.Message, error) {
	out, err := q.api.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &q.url,
		MaxNumberOfMessages: int32(max), WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{"All"}})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

// Receive implements lambdahost.Queue.
func (q *queue) Receive(ctx context.Context, max int) ([]lambdahost.QueueMessage, error) {
	got, err := q.receive(ctx, max)
	ms := make([]lambdahost.QueueMessage, len(got))
	for i := range got {
		data, err := lambdatest.Queued(&got[i], q.arn)
		if err != nil {
			return nil, err
		}
		ms[i] = lambdahost.QueueMessage{ID: *got[i].MessageId, Receipt: *got[i].ReceiptHandle, Data: data}
	}
	return ms, err
}

// Delete implements lambdahost.Queue.
func (q *queue) Delete(ctx context.Context, ms []lambdahost.QueueMessage) error {
	for _, m := range ms {
		if _, err := q.api.DeleteMessage(ctx, &awssqs.DeleteMessageInput{QueueUrl: &q.url,
			ReceiptHandle: &m.Receipt}); err != nil {
			return err
		}
	}
	return nil
}

// drain returns the IDs of all that a queue holds, with their bodies.
func (q *queue) drain(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for {
		got, err := q.receive(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			return all
		}
		for _, m := range got {
			all[*m.MessageAttributes["ackwise-id"].StringValue] = *m.Body
		}
	}
}

// runQueue runs a mapping on a queue until the condition holds.
func runQueue(t *testing.T, m lambdahost.Mapping, q lambdahost.Queue, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.RunQueue(ctx, q); err != nil {
			t.Error(err)
		}
	})
	until(t, ctx, done)
	cancel()
	wg.Wait()
}

func publish(t *testing.T, address string, ms []ackwise.Message) {
	t.Helper()
	o, err := sqs.ParseSink(address)
	if err != nil {
		t.Fatal(err)
	}
	o.Credentials = static()
	s, err := sqs.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, r := range s.Publish(t.Context(), ms) {
		if r.Class != ackwise.ResultAccepted {
			t.Fatalf("publish %s: %v", ms[i].ID, r.Err)
		}
	}
}

// TestRealQueue: messages of a real queue go through the real binary to a target that fails, with
// poison that becomes a dead letter in a real queue, while the process is killed in flight.
func TestRealQueue(t *testing.T) {
	server := servers.Address(t, "ACKWISE_TEST_ELASTICMQ")
	for _, fifo := range []bool{false, true} {
		t.Run(fmt.Sprintf("fifo %t", fifo), func(t *testing.T) {
			t.Parallel()
			const n, items, kills = 40, 4, 3
			name, attributes := "lambda-orders", map[string]string{"VisibilityTimeout": "4"}
			if fifo {
				name += ".fifo"
				attributes["FifoQueue"] = "true"
			}
			in := newQueue(t, server, name, attributes)
			dead := newQueue(t, server, fmt.Sprintf("lambda-dead-%t", fifo), nil)
			var ms []ackwise.Message
			for i := 1; i <= n; i++ {
				ms = append(ms, ackwise.Message{ID: fmt.Sprintf("e%d", i), Key: fmt.Sprint("item ", i%items),
					Body: fmt.Appendf(nil, "body %d", i)})
			}
			publish(t, "sqs://"+region+"/"+name+"?endpoint="+server, ms)

			var h *lambdahost.Host
			var mu sync.Mutex // guards killed
			killed := 0
			a := newTarget(t, func(id string, try int, _ *http.Request) int {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case strings.HasSuffix(id, "9"):
					return http.StatusUnprocessableEntity
				case try == 1 && strings.HasSuffix(id, "5") && killed < kills:
					killed += h.Kill()
				case try < 3 && strings.HasSuffix(id, "3"):
					return http.StatusServiceUnavailable
				}
				return 0
			})
			h = lambdaOf(t, 3*time.Second, "ACKWISE_TO="+a.url+"/in", "ACKWISE_BACKOFF_FIRST=10ms",
				"ACKWISE_DEAD=sqs://"+region+"/lambda-dead-"+fmt.Sprint(fifo)+"?endpoint="+server)
			letters := map[string]string{}
			runQueue(t, lambdahost.Mapping{Invoke: h.Invoke, Report: true}, in, func() bool {
				return distinct(a.accepted()) == n-4
			})
			runQueue(t, lambdahost.Mapping{Invoke: h.Invoke, Report: true}, in, func() bool {
				maps.Copy(letters, dead.drain(t))
				return len(letters) == 4
			})
			got := a.accepted()
			for _, m := range ms {
				poison := strings.HasSuffix(m.ID, "9")
				if slices.Contains(got, m.ID) == poison || poison && letters[m.ID] != string(m.Body) {
					t.Errorf("%s: arrived %t, dead letter %q", m.ID, !poison, letters[m.ID])
				}
			}
			if killed != kills {
				t.Errorf("%d kills hit an event in flight, want %d", killed, kills)
			}
			if err := ordered(got, items); fifo && err != nil {
				t.Error(err)
			}
			t.Logf("%d messages, %d kills in flight, 4 poison: %d arrivals, %d copies, 0 lost, %d dead",
				n, killed, len(got), len(got)-(n-4), len(letters))
		})
	}
}

// realStream is a real stream as the poller reads it.
type realStream struct {
	api *dynamodbstreams.Client
	arn string
}

// Shards implements lambdahost.Shards.
func (s *realStream) Shards(ctx context.Context) ([]lambdahost.Shard, error) {
	out, err := s.api.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: &s.arn})
	if err != nil {
		return nil, err
	}
	var all []lambdahost.Shard
	for _, sh := range out.StreamDescription.Shards {
		all = append(all, lambdahost.Shard{ID: aws.ToString(sh.ShardId),
			Parent: aws.ToString(sh.ParentShardId)})
	}
	return all, nil
}

// Read implements lambdahost.Shards.
func (s *realStream) Read(ctx context.Context, shard, after string, max int) (
	[]lambdahost.Record, bool, error) {
	in := &dynamodbstreams.GetShardIteratorInput{StreamArn: &s.arn, ShardId: &shard,
		ShardIteratorType: streamtypes.ShardIteratorTypeTrimHorizon}
	if after != "" {
		in.ShardIteratorType = streamtypes.ShardIteratorTypeAfterSequenceNumber
		in.SequenceNumber = &after
	}
	at, err := s.api.GetShardIterator(ctx, in)
	if err != nil {
		return nil, false, err
	}
	out, err := s.api.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: at.ShardIterator,
		Limit: aws.Int32(int32(max))})
	if err != nil {
		return nil, false, err
	}
	var all []lambdahost.Record
	for i := range out.Records {
		r := &out.Records[i]
		data, err := lambdatest.Changed(r, s.arn)
		if err != nil {
			return nil, false, err
		}
		key, err := json.Marshal(r.Dynamodb.Keys)
		if err != nil {
			return nil, false, err
		}
		all = append(all, lambdahost.Record{Sequence: *r.Dynamodb.SequenceNumber, Key: string(key),
			Time: aws.ToTime(r.Dynamodb.ApproximateCreationDateTime), Data: data})
	}
	return all, out.NextShardIterator == nil, nil
}

// orders makes a table with a stream and writes changes into it.
func orders(t *testing.T, endpoint, table string, n, items int) *realStream {
	t.Helper()
	db := dynamodb.New(dynamodb.Options{Region: region, BaseEndpoint: &endpoint,
		Credentials: static()})
	out, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &table,
		BillingMode: ddbtypes.BillingModePayPerRequest,
		AttributeDefinitions: []ddbtypes.AttributeDefinition{{AttributeName: aws.String("id"),
			AttributeType: ddbtypes.ScalarAttributeTypeS}},
		KeySchema: []ddbtypes.KeySchemaElement{{AttributeName: aws.String("id"),
			KeyType: ddbtypes.KeyTypeHash}},
		StreamSpecification: &ddbtypes.StreamSpecification{StreamEnabled: aws.Bool(true),
			StreamViewType: ddbtypes.StreamViewTypeNewAndOldImages}})
	if err != nil {
		t.Fatal(err)
	}
	if err := ddbstore.CreateTable(t.Context(), db, table+"-dedup"); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table,
			Item: map[string]ddbtypes.AttributeValue{
				"id": &ddbtypes.AttributeValueMemberS{Value: fmt.Sprint("item ", i%items)},
				"n":  &ddbtypes.AttributeValueMemberN{Value: fmt.Sprint(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	return &realStream{arn: *out.TableDescription.LatestStreamArn,
		api: dynamodbstreams.New(dynamodbstreams.Options{Region: region, BaseEndpoint: &endpoint,
			Credentials: static()})}
}

// numberOf reads the n of a change's body, as e1, e2 …
func numberOf(body []byte) string {
	var c struct {
		NewImage struct{ N struct{ N string } }
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return err.Error()
	}
	return "e" + c.NewImage.N.N
}

// TestRealStream: changes of a real table go through the real binary, which is killed in flight,
// to a target that fails; a store on the same server remembers what succeeded behind a checkpoint.
func TestRealStream(t *testing.T) {
	server := servers.Address(t, "ACKWISE_TEST_DYNAMODB")
	for _, with := range []bool{false, true} {
		t.Run(fmt.Sprintf("dedup %t", with), func(t *testing.T) {
			t.Parallel()
			const n, items, kills = 40, 4, 2
			table := fmt.Sprintf("lambda-orders-%t", with)
			s := orders(t, server, table, n, items)
			var h *lambdahost.Host
			var mu sync.Mutex // guards killed and held
			killed, held := 0, 0
			a := newTarget(t, func(id string, try int, r *http.Request) int {
				mu.Lock()
				defer mu.Unlock()
				switch {
				case try == 1 && (id == "e15" || id == "e25"):
					killed += h.Kill()
				case id == "e3" && held < 2: // given up: a checkpoint in front of successes
					held++
					return http.StatusUnprocessableEntity
				}
				return 0
			})
			a.name = numberOf
			env := []string{"ACKWISE_TO=" + a.url + "/in", "ACKWISE_BACKOFF_FIRST=10ms"}
			if with {
				env = append(env, "ACKWISE_DEDUP=dynamodb://"+region+"/"+table+"-dedup?name=relay&endpoint="+
					server, "ACKWISE_DEDUP_LEASE=5s")
			}
			h = lambdaOf(t, 20*time.Second, env...)
			m := lambdahost.Mapping{Invoke: h.Invoke, Report: true, BatchSize: 10}
			stream(t, m, s, func() bool { return distinct(a.accepted()) == n })
			got := a.accepted()
			if killed != kills || held != 2 {
				t.Errorf("%d kills in flight and %d failures, want %d and 2", killed, held, kills)
			}
			if err := ordered(got, items); err != nil {
				t.Error(err)
			}
			again := 0 // of the other items in e3's batch, which may stand behind the checkpoint
			for _, id := range []string{"e1", "e2", "e4", "e5", "e6", "e8", "e9"} {
				again += a.tried(id) - 1
			}
			if (again == 0) != with {
				t.Errorf("with a store %t: what succeeded behind the checkpoint came %d times more",
					with, again)
			}
			t.Logf("%d changes, %d kills in flight: %d arrivals, %d copies (%d behind a checkpoint), 0 lost",
				n, killed, len(got), len(got)-n, again)
		})
	}
}
