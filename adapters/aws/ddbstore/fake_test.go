package ddbstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// fake is a DynamoDB table in memory. It knows the expressions that the package uses and no others.
type fake struct {
	t *testing.T
	// fail is asked before each call and after it, when it has been carried out. Nil = never.
	fail func(call string, after bool) error

	mu    sync.Mutex // guards items
	items map[string]item
}

func newFake(t *testing.T) *fake { return &fake{t: t, items: make(map[string]item)} }

// do carries out a call. A call whose answer is lost is made again by the client, as here, unless
// its options say otherwise, or DynamoDB refuses it from then on.
func (f *fake) do(call string, act func() error, with ...func(*dynamodb.Options)) error {
	if f.fail == nil {
		return act()
	}
	if err := f.fail(call, false); err != nil {
		return err
	}
	err := act()
	if err != nil {
		return err
	}
	if err = f.fail(call, true); err != nil {
		var o dynamodb.Options
		for _, change := range with {
			change(&o)
		}
		if o.RetryMaxAttempts != 1 && !throttled(err) {
			return act()
		}
	}
	return err
}

// copied is an item that its caller cannot change.
func copied(i item) item {
	i = maps.Clone(i)
	for name := range i {
		if b := i.bytes(name); b != nil {
			i[name] = octets(bytes.Clone(b))
		}
	}
	return i
}

// refuse checks a condition of an item. The caller holds mu.
func (f *fake) refuse(pk string, condition *string, values item) error {
	there := f.items[pk]
	if condition == nil || f.holds(*condition, there, values) {
		return nil
	}
	return &types.ConditionalCheckFailedException{Item: maps.Clone(there)}
}

func (f *fake) holds(condition string, there, values item) bool {
	for either := range strings.SplitSeq(condition, " OR ") {
		all := true
		for one := range strings.SplitSeq(either, " AND ") {
			all = all && f.holdsOne(one, there, values)
		}
		if all {
			return true
		}
	}
	return false
}

func (f *fake) holdsOne(condition string, there, values item) bool {
	if name, ok := strings.CutPrefix(condition, "attribute_not_exists("); ok {
		return there[strings.TrimSuffix(name, ")")] == nil
	}
	words := strings.Fields(condition)
	if len(words) != 3 || !strings.HasPrefix(words[2], ":") || values[words[2]] == nil {
		f.t.Fatalf("the fake does not know the condition %q", condition)
	}
	left, right := there[words[0]], values[words[2]]
	if left == nil {
		return false
	}
	switch words[1] {
	case "=":
		return f.compare(left, right) == 0
	case "<":
		return f.compare(left, right) < 0
	}
	f.t.Fatalf("the fake does not know the condition %q", condition)
	return false
}

func (f *fake) compare(a, b types.AttributeValue) int {
	switch a := a.(type) {
	case *types.AttributeValueMemberS:
		return strings.Compare(a.Value, b.(*types.AttributeValueMemberS).Value)
	case *types.AttributeValueMemberN:
		return cmp.Compare(f.number(a), f.number(b))
	case *types.AttributeValueMemberB:
		return bytes.Compare(a.Value, b.(*types.AttributeValueMemberB).Value)
	case *types.AttributeValueMemberBOOL:
		if a.Value == b.(*types.AttributeValueMemberBOOL).Value {
			return 0
		}
		return 1
	}
	f.t.Fatalf("the fake does not compare %T", a)
	return 0
}

func (f *fake) number(v types.AttributeValue) int64 {
	n, err := strconv.ParseInt(v.(*types.AttributeValueMemberN).Value, 10, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fake) GetItem(ctx context.Context, in *dynamodb.GetItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	out := &dynamodb.GetItemOutput{}
	return out, f.do("get", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !aws.ToBool(in.ConsistentRead) {
			f.t.Error("a read that is not consistent")
		}
		out.Item = copied(f.items[item(in.Key).text("pk")])
		return ctx.Err()
	})
}

func (f *fake) PutItem(ctx context.Context, in *dynamodb.PutItemInput,
	with ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	return &dynamodb.PutItemOutput{}, f.do("put", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		pk := item(in.Item).text("pk")
		err := f.refuse(pk, in.ConditionExpression, in.ExpressionAttributeValues)
		if err == nil && ctx.Err() == nil {
			f.items[pk] = copied(in.Item)
		}
		return cmp.Or(ctx.Err(), err)
	}, with...)
}

func (f *fake) DeleteItem(ctx context.Context, in *dynamodb.DeleteItemInput,
	with ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error) {
	return &dynamodb.DeleteItemOutput{}, f.do("delete", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		pk := item(in.Key).text("pk")
		err := f.refuse(pk, in.ConditionExpression, in.ExpressionAttributeValues)
		if err == nil && ctx.Err() == nil {
			delete(f.items, pk)
		}
		return cmp.Or(ctx.Err(), err)
	}, with...)
}

func (f *fake) UpdateItem(ctx context.Context, in *dynamodb.UpdateItemInput,
	with ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	out := &dynamodb.UpdateItemOutput{}
	return out, f.do("update", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		pk := item(in.Key).text("pk")
		if err := f.refuse(pk, in.ConditionExpression, in.ExpressionAttributeValues); err != nil {
			return err
		}
		old := f.items[pk]
		updated := maps.Clone(old)
		if updated == nil {
			updated = item{"pk": text(pk)}
		}
		verb, rest, _ := strings.Cut(*in.UpdateExpression, " ")
		// A comma stands within if_not_exists too.
		for one := range strings.SplitSeq(strings.ReplaceAll(rest, ", :v)", " :v)"), ", ") {
			f.update(verb, one, updated, in.ExpressionAttributeValues)
		}
		f.items[pk] = updated
		out.Attributes = maps.Clone(updated)
		if in.ReturnValues == types.ReturnValueAllOld {
			out.Attributes = old
		}
		return ctx.Err()
	}, with...)
}

func (f *fake) update(verb, one string, updated, values item) {
	w := strings.Fields(one)
	value := values[strings.TrimSuffix(w[len(w)-1], ")")]
	switch {
	case verb == "REMOVE" && len(w) == 1:
		delete(updated, w[0])
	case value == nil:
		f.t.Fatalf("the fake finds no value for %s %q", verb, one)
	case verb == "ADD" && len(w) == 2:
		updated[w[0]] = number(updated.number(w[0]) + f.number(value))
	case verb == "SET" && len(w) == 3:
		updated[w[0]] = value
	case verb == "SET" && len(w) == 5 && w[2] == w[0] && w[3] == "+":
		updated[w[0]] = number(updated.number(w[0]) + f.number(value))
	case verb == "SET" && len(w) == 4 && w[2] == "if_not_exists("+w[0]:
		if updated[w[0]] == nil {
			updated[w[0]] = value
		}
	default:
		f.t.Fatalf("the fake does not know %s %q", verb, one)
	}
}

// Query answers what Purge asks, a page of two at a time.
func (f *fake) Query(ctx context.Context, in *dynamodb.QueryInput, _ ...func(*dynamodb.Options)) (
	*dynamodb.QueryOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := item(in.ExclusiveStartKey).text("pk")
	out := &dynamodb.QueryOutput{}
	for _, pk := range slices.Sorted(maps.Keys(f.items)) {
		if i := f.items[pk]; pk > after &&
			f.holds(*in.KeyConditionExpression, i, in.ExpressionAttributeValues) {
			if len(out.Items) == 2 {
				out.LastEvaluatedKey = keyOf(out.Items[1]["pk"].(*types.AttributeValueMemberS).Value)
				break
			}
			out.Items = append(out.Items, maps.Clone(i))
		}
	}
	return out, ctx.Err()
}

// fakeTables describes a table as CreateTable makes it, but for what a test leaves out.
type fakeTables struct {
	*fake
	noTTL, noIndex, otherKey bool
}

func (f fakeTables) DescribeTable(context.Context, *dynamodb.DescribeTableInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
	key := "pk"
	if f.otherKey {
		key = "id"
	}
	d := &types.TableDescription{
		TableStatus: types.TableStatusActive,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: &key, AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("gname"), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String("gtime"), AttributeType: types.ScalarAttributeTypeN}},
		KeySchema: []types.KeySchemaElement{{AttributeName: &key}},
	}
	if !f.noIndex {
		d.GlobalSecondaryIndexes = []types.GlobalSecondaryIndexDescription{{
			IndexName: aws.String("graves"), KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String("gname")}, {AttributeName: aws.String("gtime")}}}}
	}
	return &dynamodb.DescribeTableOutput{Table: d}, nil
}

func (f fakeTables) DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput,
	...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
	d := &types.TimeToLiveDescription{AttributeName: aws.String("expires"),
		TimeToLiveStatus: types.TimeToLiveStatusEnabled}
	if f.noTTL {
		d = &types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusDisabled}
	}
	return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: d}, nil
}

func (f fakeTables) CreateTable(context.Context, *dynamodb.CreateTableInput,
	...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error) {
	return nil, fmt.Errorf("the fake creates no table")
}

func (f fakeTables) UpdateTimeToLive(context.Context, *dynamodb.UpdateTimeToLiveInput,
	...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error) {
	return nil, fmt.Errorf("the fake changes no table")
}
