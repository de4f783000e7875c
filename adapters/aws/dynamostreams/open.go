package dynamostreams

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streamtypes "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/nearest"
)

// newestMargin is how far this machine's clock may be ahead of DynamoDB's when a group begins with
// the newest changes.
const newestMargin = time.Minute

// OpenSource joins the group and returns a source of the table's changes. It checks the table, its
// stream and the table of the leases.
func OpenSource(ctx context.Context, o SourceOptions) (ackwise.Source, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open DynamoDB stream: %w", err)
	}
	c, err := awsconn.Load(ctx, awsconn.Options{Region: o.Region, Endpoint: o.Endpoint,
		Credentials: o.Credentials})
	if err != nil {
		return nil, fmt.Errorf("open DynamoDB stream: %w", err)
	}
	s, err := openWith(ctx, o, dynamodb.NewFromConfig(c), dynamodbstreams.NewFromConfig(c))
	if err != nil {
		return nil, fmt.Errorf("open the stream of table %s: %w", o.Table, err)
	}
	return s, nil
}

// source is what OpenSource returns.
type source struct {
	*logsource.Source
	stream *stream
}

func openWith(ctx context.Context, o SourceOptions, db *dynamodb.Client,
	streams *dynamodbstreams.Client) (*source, error) {
	l, err := join(ctx, o, db, streams)
	if err != nil {
		return nil, err
	}
	s, err := logsource.New(l, l.o.Log)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &source{Source: s, stream: l}, nil
}

// Lag tells when the oldest change was made that this member has read and that is not settled. How
// many there are is not known. It is now where this member has read all of its shards to where they
// are, and zero, not known, before.
func (s *source) Lag(context.Context) (records int64, oldest time.Time, err error) {
	return -1, s.stream.oldest(time.Now()), nil
}

// join makes a member of the group.
func join(ctx context.Context, o SourceOptions, db *dynamodb.Client,
	streams *dynamodbstreams.Client) (*stream, error) {
	me := newName(o.Log.Consumer)
	o.Log.Consumer = cmp.Or(o.Log.Consumer, me)
	run, cancel := context.WithCancel(context.Background())
	l := &stream{o: o, me: me, streams: streams, cancel: cancel,
		rows:    &rows{api: db, table: o.Leases, reader: o.Group + "/" + o.Table, timeout: callPatience},
		planner: newPlanner(me, o.Lease, o.MaxShards), kick: make(chan struct{}, 1),
		held: map[string]*held{}, problems: map[string]*problem{}, changed: make(chan struct{})}
	if err := l.prepare(ctx); err != nil {
		cancel()
		return nil, err
	}
	l.wg.Go(func() { l.keep(run) })  // until stop
	l.wg.Go(func() { l.beat(run) })  // until stop
	l.wg.Go(func() { l.watch(run) }) // until stop
	l.wg.Go(func() { l.alarm(run) }) // until stop
	return l, nil
}

// newName returns a name that no other member has, and that a person can find. Two members that
// were given one name are told apart: the fence is the name's, too.
func newName(given string) string {
	if given == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "member"
		}
		given = fmt.Sprintf("%.60s-%d", host, os.Getpid())
	}
	var b [6]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return given + "-" + hex.EncodeToString(b[:])
}

// prepare checks what is there, and makes what is to be made.
func (l *stream) prepare(ctx context.Context) error {
	if err := l.findStream(ctx); err != nil {
		return err
	}
	if err := l.findLeases(ctx); err != nil {
		return err
	}
	_, about, err := l.rows.load(ctx)
	if err == nil && about.arn == "" {
		if err = l.rows.begin(ctx, l.arn); err == nil {
			_, about, err = l.rows.load(ctx) // somebody else may have been faster
		}
	}
	switch {
	case err != nil:
		return l.explain(err, "dynamodb:Query, PutItem and UpdateItem", "the table "+l.o.Leases)
	case about.arn != l.arn:
		return &ackwise.HintError{Err: fmt.Errorf("the group %s has read the stream %s, and this is "+
			"another one, %s: the stream was disabled and made anew", l.o.Group, about.arn, l.arn),
			Hint: "What the old one still has can be read for 24 hours with stream=" + about.arn +
				". Read the new one with another group; what was written between the two is in neither."}
	case about.ready:
		return nil
	}
	return l.explain(l.start(ctx), "dynamodb:PutItem", "the table "+l.o.Leases)
}

// start gives a row to every shard that is there, and says where to begin. Members that do so at
// the same time do no harm: the first row stays, and each was made from a list that was read before
// anybody's OpenSource has returned.
func (l *stream) start(ctx context.Context) error {
	shards, _, err := l.list(ctx)
	if err != nil {
		return err
	}
	since := time.Now().Add(-newestMargin).Truncate(time.Second)
	for _, s := range inOrder(shards) {
		r := row{shard: s.id, parent: s.parent}
		if _, listed := shards[s.parent]; listed {
			r.first = s.first // what its parent has left behind is there from the first change on
		}
		if l.o.Start == StartNewest {
			// A closed one got its last change before the list was made. An open one is read from its
			// oldest: a newest one would be another at each try, until a first change is settled.
			r.done, r.first, r.sinceMillis = s.last != "", "", since.UnixMilli()
		}
		if err := l.rows.register(ctx, r); err != nil {
			return err
		}
	}
	return l.rows.ready(ctx)
}

// findStream finds the table's stream and checks that it has what is asked for.
func (l *stream) findStream(ctx context.Context) error {
	l.arn = l.o.Stream
	if l.arn == "" {
		arn, err := l.latest(ctx)
		if err != nil {
			return err
		}
		l.arn = arn
	}
	about, err := await(ctx, "the stream "+l.arn, l.describeStream)
	switch {
	case err != nil:
		return err
	case about.StreamViewType == streamtypes.StreamViewTypeKeysOnly && !l.o.KeysOnly:
		return &ackwise.HintError{Err: errors.New("its stream has the view KEYS_ONLY: changes come " +
			"without images"), Hint: "Say keys_only=true if keys are enough. Else disable the stream and " +
			"enable it with the view NEW_AND_OLD_IMAGES: the view of a stream cannot be changed."}
	}
	return nil
}

// describeStream says what the stream is like, and its state while it is not ready: one that the
// table names was enabled just now where it is not there.
func (l *stream) describeStream(ctx context.Context) (*streamtypes.StreamDescription, string,
	error) {
	ctx, cancel := context.WithTimeout(ctx, l.rows.timeout)
	defer cancel()
	out, err := l.streams.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{
		StreamArn: &l.arn, Limit: aws.Int32(1)})
	_, missing := errors.AsType[*streamtypes.ResourceNotFoundException](err)
	switch {
	case missing && l.o.Stream == "":
		return nil, "not there yet", nil
	case missing:
		return nil, "", &ackwise.HintError{Err: &ackwise.NotFoundError{Kind: "stream", Name: l.arn},
			Hint: "A stream that was disabled is gone after 24 hours."}
	case err == nil && out.StreamDescription == nil:
		err = awsconn.ErrEmpty
	}
	if err != nil {
		return nil, "", l.explain(err, "dynamodb:DescribeStream", "the stream "+l.arn)
	}
	if s := out.StreamDescription.StreamStatus; s == streamtypes.StreamStatusEnabling {
		return nil, string(s), nil
	}
	return out.StreamDescription, "", nil
}

// latest returns the ARN of the table's stream, which must be enabled.
func (l *stream) latest(ctx context.Context) (string, error) {
	// A table that is made, and one that is changed, takes no change. The stream of any other can be
	// read, even while the table is deleted.
	table, err := l.awaitTable(ctx, l.o.Table, func(t *types.TableDescription) string {
		made := t.TableStatus == types.TableStatusCreating
		if made || t.TableStatus == types.TableStatusUpdating && l.o.Create && !enabled(t) {
			return string(t.TableStatus)
		}
		return ""
	})
	if err != nil {
		return "", err
	}
	if enabled(table) {
		return aws.ToString(table.LatestStreamArn), nil
	}
	if !l.o.Create {
		return "", &ackwise.HintError{Err: errors.New("it has no stream, or its stream is disabled"),
			Hint: "Enable it: aws dynamodb update-table --table-name " + l.o.Table +
				" --stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES - or " +
				"say create=true. Changes that were made before are in no stream."}
	}
	if err := l.enable(ctx); err != nil {
		return "", err
	}
	table, err = l.awaitTable(ctx, l.o.Table, func(t *types.TableDescription) string {
		if enabled(t) {
			return ""
		}
		return string(t.TableStatus) + " and has no stream yet"
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(table.LatestStreamArn), nil
}

// enable enables the table's stream. Another member may be faster.
func (l *stream) enable(ctx context.Context) error {
	c, cancel := l.rows.call(ctx)
	defer cancel()
	_, err := l.rows.api.UpdateTable(c, &dynamodb.UpdateTableInput{TableName: &l.o.Table,
		StreamSpecification: &types.StreamSpecification{StreamEnabled: aws.Bool(true),
			StreamViewType: types.StreamViewTypeNewAndOldImages}})
	if _, busy := errors.AsType[*types.ResourceInUseException](err); busy {
		return nil // somebody changes the table just now
	}
	if isInvalid(err) { // also where it has a stream
		if table, again := l.describe(ctx, l.o.Table); again == nil && enabled(table) {
			return nil
		}
	}
	return l.explain(err, "dynamodb:UpdateTable", "the table "+l.o.Table)
}

func enabled(t *types.TableDescription) bool {
	return t.StreamSpecification != nil && aws.ToBool(t.StreamSpecification.StreamEnabled) &&
		t.LatestStreamArn != nil
}

// findLeases checks the table of the leases, which somebody may be making just now.
func (l *stream) findLeases(ctx context.Context) error {
	table, err := l.awaitTable(ctx, l.o.Leases, closed)
	if isMissing(err) && l.o.Create {
		if err := l.createLeases(ctx); err != nil {
			return err
		}
		table, err = l.awaitMade(ctx, l.o.Leases)
	}
	if err != nil {
		return err
	}
	want := map[types.KeyType]string{types.KeyTypeHash: "reader", types.KeyTypeRange: "shard"}
	if len(table.KeySchema) != len(want) || slices.ContainsFunc(table.KeySchema,
		func(k types.KeySchemaElement) bool { return want[k.KeyType] != aws.ToString(k.AttributeName) }) {
		return &ackwise.HintError{Err: fmt.Errorf("the table %s is not one of leases", l.o.Leases),
			Hint: `Its partition key has to be the text "reader", its sort key the text "shard". ` +
				"Name another with leases=TABLE; create=true makes it."}
	}
	return nil
}

func (l *stream) createLeases(ctx context.Context) error {
	in := &dynamodb.CreateTableInput{TableName: &l.o.Leases,
		BillingMode: types.BillingModePayPerRequest}
	for name, kind := range map[string]types.KeyType{
		"reader": types.KeyTypeHash, "shard": types.KeyTypeRange} {
		in.AttributeDefinitions = append(in.AttributeDefinitions, types.AttributeDefinition{
			AttributeName: aws.String(name), AttributeType: types.ScalarAttributeTypeS})
		in.KeySchema = append(in.KeySchema,
			types.KeySchemaElement{AttributeName: aws.String(name), KeyType: kind})
	}
	slices.SortFunc(in.KeySchema, func(a, b types.KeySchemaElement) int {
		return cmp.Compare(a.KeyType, b.KeyType) // HASH, then RANGE
	})
	ctx, cancel := l.rows.call(ctx)
	defer cancel()
	_, err := l.rows.api.CreateTable(ctx, in)
	if _, there := errors.AsType[*types.ResourceInUseException](err); there {
		return nil // somebody else was faster
	}
	return l.explain(err, "dynamodb:CreateTable", "the table "+l.o.Leases)
}

func (l *stream) describe(ctx context.Context, table string) (*types.TableDescription, error) {
	ctx, cancel := context.WithTimeout(ctx, l.rows.timeout)
	defer cancel()
	out, err := l.rows.api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &table})
	if _, missing := errors.AsType[*types.ResourceNotFoundException](err); missing {
		return nil, l.missing(ctx, table)
	}
	if err == nil && out.Table == nil {
		err = awsconn.ErrEmpty
	}
	if err != nil {
		return nil, l.explain(err, "dynamodb:DescribeTable", "the table "+table)
	}
	return out.Table, nil
}

// missing says that a table is not there, and which one may have been meant.
func (l *stream) missing(ctx context.Context, table string) error {
	e := &ackwise.NotFoundError{Kind: "table", Name: table}
	hint := "Is the region " + l.o.Region + " the right one?"
	if table == l.o.Leases {
		hint = `Say create=true, or make it: partition key "reader", sort key "shard", both texts.`
	}
	if table != l.o.Leases || !l.o.Create {
		e.Nearest = nearest.Of(table, l.tables(ctx))
	}
	return &ackwise.HintError{Err: e, Hint: hint}
}

// tablePages bounds how many pages of names are looked through, of 100 each.
const tablePages = 2

// tables returns names of tables. Who may not list them gets none: it is only a help.
func (l *stream) tables(ctx context.Context) (names []string) {
	in := &dynamodb.ListTablesInput{}
	for range tablePages {
		out, err := l.rows.api.ListTables(ctx, in, func(o *dynamodb.Options) {
			o.Retryer = aws.NopRetryer{}
		})
		if err != nil {
			break
		}
		names = append(names, out.TableNames...)
		if in.ExclusiveStartTableName = out.LastEvaluatedTableName; in.ExclusiveStartTableName == nil {
			break
		}
	}
	return names
}

// callPatience bounds one call, with the client's own repetitions.
const callPatience = 10 * time.Second

// teller passes on what happened, one at a time.
type teller struct{ mu sync.Mutex } // guards the order of calls

// tell passes on what happened to a shard.
func (l *stream) tell(kind, shard string, err error) {
	l.teller.mu.Lock()
	defer l.teller.mu.Unlock()
	if l.o.Observe != nil {
		l.o.Observe(ackwise.Event{Kind: kind, Time: time.Now(), Pipeline: l.o.Log.Pipeline,
			ID: shard, Err: err})
	}
	if l.o.Logger != nil && err != nil {
		l.o.Logger.Warn("dynamodb stream "+kind, "table", l.o.Table, "shard", shard, "error", err)
	}
}
