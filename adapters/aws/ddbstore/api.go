package ddbstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
)

// API is what is used of a *dynamodb.Client.
type API interface {
	Items
	Tables
}

// Items reads and writes items.
type Items interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (
		*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (
		*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (
		*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (
		*dynamodb.DeleteItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (
		*dynamodb.QueryOutput, error)
}

// Tables looks at tables, and makes them.
type Tables interface {
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (
		*dynamodb.DescribeTableOutput, error)
	DescribeTimeToLive(context.Context, *dynamodb.DescribeTimeToLiveInput,
		...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error)
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (
		*dynamodb.CreateTableOutput, error)
	UpdateTimeToLive(context.Context, *dynamodb.UpdateTimeToLiveInput,
		...func(*dynamodb.Options)) (*dynamodb.UpdateTimeToLiveOutput, error)
}

// item is an item's attributes.
type item map[string]types.AttributeValue

func text(s string) types.AttributeValue   { return &types.AttributeValueMemberS{Value: s} }
func octets(b []byte) types.AttributeValue { return &types.AttributeValueMemberB{Value: b} }
func flag(b bool) types.AttributeValue     { return &types.AttributeValueMemberBOOL{Value: b} }
func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

// text reads a text, "" where there is none; the others likewise.
func (i item) text(name string) string {
	if v, ok := i[name].(*types.AttributeValueMemberS); ok {
		return v.Value
	}
	return ""
}

// bytes reads a binary. An empty one is not nil.
func (i item) bytes(name string) []byte {
	v, ok := i[name].(*types.AttributeValueMemberB)
	switch {
	case !ok:
		return nil
	case v.Value == nil:
		return []byte{}
	}
	return v.Value
}

func (i item) flag(name string) bool {
	v, ok := i[name].(*types.AttributeValueMemberBOOL)
	return ok && v.Value
}

func (i item) number(name string) int64 {
	v, ok := i[name].(*types.AttributeValueMemberN)
	if !ok {
		return 0
	}
	n, _ := strconv.ParseInt(v.Value, 10, 64) // what is written here is one
	return n
}

func pk(kind, name, key string) string { return kind + "#" + name + "#" + key }

func keyOf(pk string) item { return item{"pk": text(pk)} }

// refusal returns the item that a write's condition was refused for, nil where it is missing, and
// whether the error is such a refusal.
func refusal(err error) (item, bool) {
	refused, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	if !ok {
		return nil, false
	}
	if len(refused.Item) == 0 {
		return nil, true
	}
	return refused.Item, true
}

// keepItem asks for the item with a refusal.
const keepItem = types.ReturnValuesOnConditionCheckFailureAllOld

// code is how DynamoDB's errors name their class.
func code(err error) string {
	coded, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err)
	if !ok {
		return ""
	}
	return coded.ErrorCode()
}

// once has a write tried once, so that nothing repeats it where its answer is lost.
func once(o *dynamodb.Options) { o.RetryMaxAttempts = 1 }

// throttled reports an error that says to ask less. Nothing was written by the last try; an earlier
// one, whose answer was lost, may have written.
func throttled(err error) bool {
	switch code(err) {
	case "ProvisionedThroughputExceededException", // the table's capacity, or a partition's
		"ThrottlingException", "Throttling", // the control plane, or on-demand capacity
		"RequestLimitExceeded",     // the account's capacity
		"LimitExceededException",   // too many operations on tables at once
		"TooManyRequestsException": // a proxy in between
		return true
	}
	return false
}

// cause makes of an error of the client the one that its caller gets.
func cause(ctx context.Context, err error) error {
	switch c := code(err); {
	case ctx.Err() != nil:
		return errors.Join(ctx.Err(), context.Cause(ctx), err)
	case throttled(err):
		return fmt.Errorf("DynamoDB takes no more now (%s): %w", c, ackwise.ErrFull)
	case c == "ValidationException" && strings.Contains(strings.ToLower(err.Error()), "size"):
		return fmt.Errorf("%w: %w", ackwise.ErrTooLarge, err)
	case c == "ResourceNotFoundException":
		return &ackwise.HintError{Err: err,
			Hint: "Make the table with ddbstore.CreateTable, or check its name, region and account."}
	case c == "AccessDeniedException":
		return &ackwise.HintError{Err: err,
			Hint: "Allow the calls that ddbstore's documentation lists, on the table and its index."}
	}
	return err
}
