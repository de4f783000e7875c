package dynamostreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
)

// row is what the leases' table holds of one shard.
//
//	reader    partition key: GROUP/TABLE
//	shard     sort key: the shard's ID; "#stream" is the row of the reader as a whole
//	parent    the shard whose changes come before
//	first     where to begin while there is no position; absent: the oldest that is left
//	since     while there is no position, older changes than this are passed over (Unix, ms)
//	owner     who has the lease; absent: nobody
//	wanted    who asks the owner for it
//	fence     grows with each change of the owner, and guards every write
//	beat      grows with each word of the owner: one that stands still for a lease is dead
//	writes    grows with each position that this owner writes: a late one is refused
//	lease     the owner's lease in milliseconds
//	position  everything up to this sequence number is settled
//	note      the journal of package logsource
//	state     open, or done: read to its end and settled
type row struct {
	shard, parent string
	first         ackwise.Position
	sinceMillis   int64
	owner, wanted string
	fence, beat   int64
	writes        int64
	lease         time.Duration
	position      ackwise.Position
	note          []byte
	done          bool
}

// whole is the name of the row of the reader as a whole.
const whole = "#stream"

// about is that row.
type about struct {
	arn   string
	ready bool // all shards that were there at the start have a row
}

type item map[string]types.AttributeValue

func (i item) text(name string) string {
	v, _ := i[name].(*types.AttributeValueMemberS)
	if v == nil {
		return ""
	}
	return v.Value
}

func (i item) number(name string) int64 {
	v, _ := i[name].(*types.AttributeValueMemberN)
	if v == nil {
		return 0
	}
	n, _ := strconv.ParseInt(v.Value, 10, 64) // another's rubbish counts as 0: nothing is lost by it
	return n
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func readRow(i item) (row, error) {
	r := row{shard: i.text("shard"), parent: i.text("parent"), sinceMillis: i.number("since"),
		owner: i.text("owner"), wanted: i.text("wanted"), fence: i.number("fence"),
		beat: i.number("beat"), writes: i.number("writes"), done: i.text("state") == "done",
		lease: time.Duration(i.number("lease")) * time.Millisecond}
	if b, _ := i["note"].(*types.AttributeValueMemberB); b != nil {
		r.note = b.Value
	}
	for _, p := range []struct {
		into *ackwise.Position
		name string
	}{{&r.position, "position"}, {&r.first, "first"}} {
		sequence := i.text(p.name)
		if sequence == "" {
			continue
		}
		var err error
		if *p.into, err = positionOf(sequence); err != nil {
			return r, fmt.Errorf("read the %s of shard %s: %w", p.name, r.shard, err)
		}
	}
	return r, nil
}

// rows are the rows of one reader in the leases' table. Each write is one conditional call.
type rows struct {
	api     *dynamodb.Client
	table   string
	reader  string
	timeout time.Duration // of one call
}

// refusal is what a write answers whose condition did not hold.
type refusal struct{ there row }

func (*refusal) Error() string { return "the row was changed by another member" }

func (t *rows) key(shard string) item {
	return item{"reader": text(t.reader), "shard": text(shard)}
}

// call bounds one call.
func (t *rows) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, t.timeout,
		fmt.Errorf("no answer within %s", t.timeout))
}

// load reads all rows.
func (t *rows) load(ctx context.Context) (map[string]row, about, error) {
	var a about
	all := map[string]row{}
	pages := dynamodb.NewQueryPaginator(t.api, &dynamodb.QueryInput{TableName: &t.table,
		ConsistentRead:            aws.Bool(true),
		KeyConditionExpression:    aws.String("#reader = :reader"),
		ExpressionAttributeNames:  map[string]string{"#reader": "reader"},
		ExpressionAttributeValues: item{":reader": text(t.reader)}})
	for pages.HasMorePages() {
		c, cancel := t.call(ctx)
		page, err := pages.NextPage(c)
		cancel()
		if err != nil {
			return nil, a, err
		}
		for _, i := range page.Items {
			if item(i).text("shard") == whole {
				a = about{arn: item(i).text("arn"), ready: item(i).text("state") == "ready"}
				continue
			}
			r, err := readRow(i)
			if err != nil {
				return nil, a, err
			}
			all[r.shard] = r
		}
	}
	return all, a, nil
}

// begin notes which stream this reader reads, unless it is noted.
func (t *rows) begin(ctx context.Context, arn string) error {
	i := t.key(whole)
	i["arn"], i["state"] = text(arn), text("new")
	return t.put(ctx, i)
}

// ready notes that the shards of the start have their rows.
func (t *rows) ready(ctx context.Context) error {
	_, err := t.update(ctx, whole, edit{set: "#state = :ready",
		values: item{":ready": text("ready")}})
	return err
}

// register makes the row of a shard, unless there is one.
func (t *rows) register(ctx context.Context, r row) error {
	i := t.key(r.shard)
	i["state"], i["fence"], i["beat"], i["writes"] = text("open"), number(0), number(0), number(0)
	if r.done {
		i["state"] = text("done")
	}
	if r.parent != "" {
		i["parent"] = text(r.parent)
	}
	if r.first != "" {
		i["first"] = text(sequenceOf(r.first))
	}
	if r.sinceMillis != 0 {
		i["since"] = number(r.sinceMillis)
	}
	return t.put(ctx, i)
}

func (t *rows) put(ctx context.Context, i item) error {
	ctx, cancel := t.call(ctx)
	defer cancel()
	_, err := t.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: &t.table, Item: i,
		ConditionExpression:      aws.String("attribute_not_exists(#shard)"),
		ExpressionAttributeNames: map[string]string{"#shard": "shard"}})
	if _, there := errors.AsType[*types.ConditionalCheckFailedException](err); there {
		return nil
	}
	return err
}

// edit is one conditional update.
type edit struct {
	set, remove, when string
	values            item
}

var namePattern = regexp.MustCompile(`#[a-z]+`)

// update carries out an edit and returns the row as it is then. Where the condition does not hold
// it answers a *refusal.
func (t *rows) update(ctx context.Context, shard string, e edit) (row, error) {
	ctx, cancel := t.call(ctx)
	defer cancel()
	expression := "SET " + e.set
	if e.remove != "" {
		expression += " REMOVE " + e.remove
	}
	in := &dynamodb.UpdateItemInput{TableName: &t.table, Key: t.key(shard),
		UpdateExpression: &expression, ExpressionAttributeValues: e.values,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ExpressionAttributeNames:            map[string]string{}}
	if e.when != "" {
		in.ConditionExpression = &e.when
	}
	for _, name := range namePattern.FindAllString(expression+e.when, -1) {
		in.ExpressionAttributeNames[name] = name[1:]
	}
	out, err := t.api.UpdateItem(ctx, in)
	if refused, ok := errors.AsType[*types.ConditionalCheckFailedException](err); ok {
		there, err := readRow(refused.Item)
		if err != nil {
			return row{}, err
		}
		return row{}, &refusal{there: there}
	}
	if err != nil {
		return row{}, err
	}
	return readRow(out.Attributes)
}

// acquire takes the lease of a row that is as it was seen.
func (t *rows) acquire(ctx context.Context, seen row, me string, lease time.Duration) (row, error) {
	got, err := t.update(ctx, seen.shard, edit{
		set:  "#owner = :me, #lease = :lease, #fence = :next, #beat = :beat, #writes = :none",
		when: "#fence = :fence AND #beat = :seen AND #state = :open",
		values: item{":me": text(me), ":lease": number(lease.Milliseconds()),
			":fence": number(seen.fence), ":next": number(seen.fence + 1), ":seen": number(seen.beat),
			":beat": number(seen.beat + 1), ":none": number(0), ":open": text("open")},
		remove: "#wanted"})
	var no *refusal
	if errors.As(err, &no) && no.there.owner == me && no.there.fence == seen.fence+1 {
		return no.there, nil // an earlier try of the client, whose answer was lost
	}
	return got, err
}

// beat says that the owner lives.
func (t *rows) beat(ctx context.Context, shard, me string, fence int64) (row, error) {
	return t.update(ctx, shard, edit{set: "#beat = #beat + :one",
		when:   "#owner = :me AND #fence = :fence",
		values: item{":me": text(me), ":fence": number(fence), ":one": number(1)}})
}

// begun keeps the first number of a shard that was begun at its oldest, while nothing is settled.
func (t *rows) begun(ctx context.Context, shard, me string, fence int64,
	first ackwise.Position) error {
	_, err := t.update(ctx, shard, edit{set: "#first = :first",
		when:   "#owner = :me AND #fence = :fence AND attribute_not_exists(#position)",
		values: item{":me": text(me), ":fence": number(fence), ":first": text(sequenceOf(first))}})
	return err
}

// mark is one position on its way.
type mark struct {
	shard, me     string
	fence, writes int64
	position      ackwise.Position
	note          []byte
	done          bool
}

// write keeps a position and its note. One that comes later than the next one is refused.
func (t *rows) write(ctx context.Context, m mark) error {
	e := edit{set: "#beat = #beat + :one, #writes = :writes, #note = :note",
		when: "#owner = :me AND #fence = :fence AND #writes < :writes",
		values: item{":me": text(m.me), ":fence": number(m.fence), ":one": number(1),
			":writes": number(m.writes), ":note": &types.AttributeValueMemberB{Value: m.note}}}
	if m.position != "" {
		e.set += ", #position = :position"
		e.values[":position"] = text(sequenceOf(m.position))
	}
	if m.done {
		e.set += ", #state = :done"
		e.values[":done"] = text("done")
	}
	_, err := t.update(ctx, m.shard, e)
	var no *refusal
	if errors.As(err, &no) && no.there.owner == m.me && no.there.fence == m.fence &&
		no.there.writes == m.writes {
		return nil // an earlier try of the client
	}
	return err
}

// ask asks the owner for a row.
func (t *rows) ask(ctx context.Context, r row, me string) error {
	_, err := t.update(ctx, r.shard, edit{set: "#wanted = :me",
		when:   "#owner = :owner AND #fence = :fence AND attribute_not_exists(#wanted)",
		values: item{":me": text(me), ":owner": text(r.owner), ":fence": number(r.fence)}})
	return err
}

// unask takes back what ask said.
func (t *rows) unask(ctx context.Context, shard, me string) error {
	_, err := t.update(ctx, shard, edit{set: "#beat = #beat + :one", remove: "#wanted",
		when: "#wanted = :me", values: item{":me": text(me), ":one": number(1)}})
	return err
}

// giveUp passes the lease on to who asked for it, or to nobody.
func (t *rows) giveUp(ctx context.Context, h handOver, me string) error {
	e := edit{set: "#fence = #fence + :one, #beat = #beat + :one", remove: "#wanted, #owner",
		when:   "#owner = :me AND #fence = :fence",
		values: item{":me": text(me), ":fence": number(h.fence), ":one": number(1)}}
	if h.heir != "" {
		e.set, e.remove = e.set+", #owner = :heir", "#wanted"
		e.values[":heir"] = text(h.heir)
	}
	_, err := t.update(ctx, h.shard, e)
	if _, refused := errors.AsType[*refusal](err); refused {
		return nil // it went already
	}
	return err
}

// remove deletes the row of a shard that is done.
func (t *rows) remove(ctx context.Context, shard string) error {
	ctx, cancel := t.call(ctx)
	defer cancel()
	_, err := t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &t.table,
		Key: t.key(shard), ConditionExpression: aws.String("#state = :done"),
		ExpressionAttributeNames:  map[string]string{"#state": "state"},
		ExpressionAttributeValues: item{":done": text("done")}})
	if _, refused := errors.AsType[*types.ConditionalCheckFailedException](err); refused {
		return nil
	}
	return err
}

// sorted returns the rows in the order of their shards' IDs.
func sorted(all map[string]row) []row {
	out := make([]row, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[id])
	}
	return out
}
