package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise/adapters/aws/lambda/lambdatest"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/test/lambdahost"
)

const region = "eu-central-1"

func static() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("test", "test", "")
}

// build compiles the commands of this repository, the Lambda function as bootstrap.
func build(t *testing.T) (ackwise, bootstrap string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "../../cmd/ackwise",
		"../../cmd/ackwise-lambda")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the commands: %v\n%s", err, out)
	}
	bootstrap = filepath.Join(dir, "bootstrap")
	if err := os.Rename(filepath.Join(dir, "ackwise-lambda"), bootstrap); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "ackwise"), bootstrap
}

// makeTable makes the table of orders with its stream, and returns the stream's ARN.
func makeTable(t *testing.T, api *dynamodb.Client, table string) string {
	t.Helper()
	out, err := api.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: &table,
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"),
			AttributeType: types.ScalarAttributeTypeS}},
		KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("id"),
			KeyType: types.KeyTypeHash}},
		StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true),
			StreamViewType: types.StreamViewTypeNewAndOldImages}})
	if err != nil {
		t.Fatal(err)
	}
	return *out.TableDescription.LatestStreamArn
}

// sqsQueue is a queue as its operator sees it.
type sqsQueue struct {
	api *awssqs.Client
	url string
}

func makeQueue(t *testing.T, endpoint, name string) *sqsQueue {
	t.Helper()
	q := &sqsQueue{api: awssqs.New(awssqs.Options{Region: region, BaseEndpoint: &endpoint,
		Credentials: static()})}
	out, err := q.api.CreateQueue(t.Context(), &awssqs.CreateQueueInput{QueueName: &name,
		Attributes: map[string]string{"VisibilityTimeout": "10"}})
	if err != nil {
		t.Fatal(err)
	}
	q.url = *out.QueueUrl
	return q
}

func (q *sqsQueue) attributes(ctx context.Context) (map[string]string, error) {
	out, err := q.api.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &q.url,
		AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameAll}})
	if err != nil {
		return nil, err
	}
	return out.Attributes, nil
}

// letters is how many messages the queue has, those in flight included; -1 = it does not answer.
func (q *sqsQueue) letters(ctx context.Context) int {
	a, err := q.attributes(ctx)
	if err != nil {
		return -1
	}
	total := 0
	for _, name := range []string{"", "NotVisible", "Delayed"} {
		var n int
		if _, err := fmt.Sscan(a["ApproximateNumberOfMessages"+name], &n); err == nil {
			total += n
		}
	}
	return total
}

// fanOut makes the topic and subscribes two queues to it: one raw, one with SNS's envelope.
func fanOut(t *testing.T, moto, prefix string) {
	t.Helper()
	o := sns.SinkOptions{Region: region, Topic: prefix + "orders-events", Endpoint: moto,
		Credentials: static(), Create: true}
	sink, err := sns.OpenSink(t.Context(), o)
	if err == nil {
		err = sink.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]bool{"orders-miles": true, "orders-legs": false} {
		a, err := makeQueue(t, moto, prefix+name).attributes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sns.Subscribe(t.Context(), o, sns.Subscription{Queue: a["QueueArn"], Raw: raw,
			Create: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// stream is the table's stream as Lambda's poller reads it.
type stream struct {
	api *dynamodbstreams.Client
	arn string

	mu    sync.Mutex // guards known
	known []lambdahost.Shard
}

// Shards implements lambdahost.Shards. While the server is away nothing is new.
func (s *stream) Shards(ctx context.Context) ([]lambdahost.Shard, error) {
	out, err := s.api.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: &s.arn})
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		return s.known, nil
	}
	s.known = nil
	for _, sh := range out.StreamDescription.Shards {
		s.known = append(s.known, lambdahost.Shard{ID: aws.ToString(sh.ShardId),
			Parent: aws.ToString(sh.ParentShardId)})
	}
	return s.known, nil
}

// Read implements lambdahost.Shards.
func (s *stream) Read(ctx context.Context, shard, after string, max int) ([]lambdahost.Record, bool,
	error) {
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
	out, err := s.api.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{Limit: aws.Int32(int32(max)),
		ShardIterator: at.ShardIterator})
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

// relay is what brings changes to Nakadi.
type relay interface {
	kill(t *testing.T) int // returns how many had work in flight
	end()
}

// asProcess is `ackwise run`.
type asProcess struct{ *process }

func (r asProcess) kill(t *testing.T) int {
	t.Helper()
	r.process.kill(t)
	return 1
}

func (r asProcess) end() { r.process.end(sigterm) }

// asLambda is the bootstrap, fed as its event source mapping would.
type asLambda struct {
	host      *lambdahost.Host
	stop      context.CancelFunc
	wg        sync.WaitGroup // the mapping; ended by stop
	mu        sync.Mutex     // guards discarded
	discarded int
}

func startLambda(t *testing.T, p *pass, bootstrap string) *asLambda {
	t.Helper()
	f := readTemplate(t)
	var log bytes.Buffer
	env := append(p.aws(), "AWS_REGION="+region, "NAKADI_TOKEN="+token)
	for name, value := range f.variables("orders") {
		if strings.HasPrefix(name, "ACKWISE_") {
			env = append(env, name+"="+p.adapt(value))
		}
	}
	m := f.mapping()
	host, err := lambdahost.New(lambdahost.Options{Command: []string{bootstrap}, Env: env, Log: &log,
		Timeout: 20 * time.Second, Processes: m.Parallel})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &asLambda{host: host, stop: cancel}
	m.Invoke = host.Invoke
	m.Discarded = func(d lambdahost.Discarded) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.discarded += d.Records
	}
	src := &stream{arn: p.streamARN, api: dynamodbstreams.New(dynamodbstreams.Options{Region: region,
		BaseEndpoint: &p.toDynamo.url, Credentials: static()})}
	l.wg.Go(func() {
		if err := m.RunStream(ctx, src); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		l.end()
		if t.Failed() {
			text := log.String()
			t.Logf("bootstrap printed:\n%s", text[max(0, len(text)-2000):])
		}
		if l.discarded > 0 {
			t.Errorf("the mapping gave up %d changes", l.discarded)
		}
	})
	return l
}

func (l *asLambda) kill(*testing.T) int { return l.host.Kill() }

func (l *asLambda) end() {
	l.stop()
	_ = l.host.Close() // it says nothing
	l.wg.Wait()
}

// cronJob starts the requeue job again and again.
type cronJob struct {
	make func() *exec.Cmd
	wg   sync.WaitGroup // the goroutine that starts it; ended by end

	mu       sync.Mutex // guards all below
	cmd      *exec.Cmd
	stop     bool
	runs     int
	accepted int64
	codes    map[int]int
	empty    int // runs in a row that found nothing
	broken   []string
}

func startCronJob(t *testing.T, mk func() *exec.Cmd) *cronJob {
	t.Helper()
	j := &cronJob{make: mk, codes: map[int]int{}}
	j.wg.Go(j.run)
	t.Cleanup(j.end)
	return j
}

func (j *cronJob) run() {
	for {
		var out, errs bytes.Buffer
		j.mu.Lock()
		if j.stop {
			j.mu.Unlock()
			return
		}
		cmd := j.make()
		cmd.Stdout, cmd.Stderr = &out, &errs
		j.cmd = cmd
		err := cmd.Start()
		j.mu.Unlock()
		if err == nil {
			err = cmd.Wait()
		}
		var sum struct {
			Accepted, Left int64
			Drained        bool
		}
		_ = json.Unmarshal(out.Bytes(), &sum) // a killed run has none
		j.mu.Lock()
		j.runs++
		j.codes[cmd.ProcessState.ExitCode()]++
		j.accepted += sum.Accepted
		j.empty++
		if err != nil || sum.Accepted > 0 || !sum.Drained {
			j.empty = 0
		}
		if cmd.ProcessState.ExitCode() == 1 {
			j.broken = append(j.broken, out.String()+errs.String())
		}
		j.mu.Unlock()
		pause(200 * time.Millisecond)
	}
}

// signal reaches the run that is under way.
func (j *cronJob) signal(s syscall.Signal) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.cmd != nil {
		_ = j.cmd.Process.Signal(s) // one that has ended needs none
	}
}

// emptyRuns is how many runs in a row have found nothing.
func (j *cronJob) emptyRuns() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.empty
}

func (j *cronJob) end() {
	j.mu.Lock()
	j.stop = true
	if j.cmd != nil {
		_ = j.cmd.Process.Kill() // one that has ended needs none
	}
	j.mu.Unlock()
	j.wg.Wait()
}
