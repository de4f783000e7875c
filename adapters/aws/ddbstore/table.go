package ddbstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// Table is an idempotency.Table in DynamoDB. It has no bound: DynamoDB's tables have none.
//
//	pk       "table#NAME#KEY"
//	vers     the version: 63 random bits, so that none comes again, also after a removal, and so
//	         that it is the nonce of its write
//	stamp    as ackwise.Stamp.String writes it; missing = written without
//	body     the value; missing = a tombstone
//	gone     whether it is a tombstone; missing where stamp is
//	gname, gtime  of a tombstone: the table's name, and when it was written in milliseconds, by
//	         the clock of who wrote it
type Table struct {
	api    API
	o      TableOptions
	now    func() time.Time
	closed atomic.Bool
}

// OpenTable opens the table of a name in a DynamoDB table, which must be there: see CreateTable.
func OpenTable(ctx context.Context, api API, o TableOptions) (*Table, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	if err := checkTable(ctx, api, o.Table, true); err != nil {
		return nil, fmt.Errorf("open table %s: %w", o.Name, err)
	}
	return &Table{api: api, o: o, now: time.Now}, nil
}

func (t *Table) pk(key string) string { return pk("table", t.o.Name, key) }

// Get reads a key.
func (t *Table) Get(ctx context.Context, key string) (idempotency.Entry, error) {
	if err := t.enter(ctx); err != nil {
		return idempotency.Entry{}, err
	}
	out, err := t.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: &t.o.Table,
		Key: keyOf(t.pk(key)), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return idempotency.Entry{}, t.fault("read", key, cause(ctx, err))
	}
	if len(out.Item) == 0 {
		return idempotency.Entry{}, nil
	}
	i := item(out.Item)
	e := idempotency.Entry{Data: i.bytes("body"), Version: uint64(i.number("vers")),
		Deleted: i.flag("gone")}
	if stamp := i.text("stamp"); stamp != "" {
		if e.Stamp, err = ackwise.ParseStamp(stamp); err != nil {
			return idempotency.Entry{}, t.fault("read", key, err)
		}
	}
	return e, nil
}

// Put sets a key, whatever it holds; nil data removes it.
func (t *Table) Put(ctx context.Context, key string, data []byte) error {
	_, err := t.plain(ctx, "put", key, condition{text: "attribute_not_exists(stamp)", tries: often},
		data)
	return err
}

// Swap sets a key if its version still is old, and returns the new one. It is sent once: where the
// answer is lost that is an error, and whether it wrote is unknown.
func (t *Table) Swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error) {
	c := condition{text: "attribute_not_exists(pk)", tries: once}
	if old != 0 {
		c.text = "vers = :old AND attribute_not_exists(stamp)"
		c.values = item{":old": &types.AttributeValueMemberN{Value: strconv.FormatUint(old, 10)}}
	}
	return t.plain(ctx, "swap", key, c, data)
}

// condition is what a write wants of what is there, and how often the client may try it.
type condition struct {
	text   string
	values item
	tries  func(*dynamodb.Options)
}

// often leaves it to the client's options.
func often(*dynamodb.Options) {}

// plain writes without a stamp.
func (t *Table) plain(ctx context.Context, verb, key string, c condition, data []byte) (
	uint64, error) {
	if err := t.enter(ctx); err != nil {
		return 0, err
	}
	version := newVersion()
	var err error
	if data == nil {
		version = 0
		_, err = t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &t.o.Table,
			Key:                                 keyOf(t.pk(key)),
			ConditionExpression:                 &c.text,
			ExpressionAttributeValues:           c.values,
			ReturnValuesOnConditionCheckFailure: keepItem,
		}, c.tries)
	} else {
		_, err = t.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: &t.o.Table,
			Item: item{"pk": text(t.pk(key)), "vers": number(version),
				"body": &types.AttributeValueMemberB{Value: data}},
			ConditionExpression:                 &c.text,
			ExpressionAttributeValues:           c.values,
			ReturnValuesOnConditionCheckFailure: keepItem,
		}, c.tries)
	}
	there, refused := refusal(err)
	switch {
	case refused && there.text("stamp") != "":
		err = idempotency.ErrStamped
	case refused && version != 0 && there.number("vers") == version:
		err = nil // an earlier try of the client wrote it, and the answer was lost
	case refused:
		err = idempotency.ErrChanged
	case err != nil:
		err = cause(ctx, err)
	}
	if err != nil {
		return 0, t.fault(verb, key, err)
	}
	return uint64(version), nil
}

// Upsert sets a key if the write wins over what is there, see idempotency.Wins. It is one write,
// whose condition is that rule: DynamoDB compares texts and binaries byte by byte.
func (t *Table) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	bool, error) {
	if err := t.enter(ctx); err != nil {
		return false, err
	}
	if err := idempotency.ValidateStamp(stamp); err != nil {
		return false, t.fault("upsert", key, err)
	}
	version := newVersion()
	row := item{"pk": text(t.pk(key)), "vers": number(version), "stamp": text(stamp.String()),
		"gone": flag(data == nil)}
	values := item{":stamp": row["stamp"], ":false": flag(false)}
	wins := "attribute_not_exists(pk) OR stamp < :stamp OR stamp = :stamp AND gone = :false"
	if data == nil {
		row["gname"], row["gtime"] = text(t.o.Name), number(t.now().UnixMilli())
	} else {
		row["body"] = &types.AttributeValueMemberB{Value: data}
		values[":body"] = row["body"]
		wins += " AND body < :body"
	}
	_, err := t.api.PutItem(ctx, &dynamodb.PutItemInput{TableName: &t.o.Table,
		Item:                                row,
		ConditionExpression:                 &wins,
		ExpressionAttributeValues:           values,
		ReturnValuesOnConditionCheckFailure: keepItem,
	})
	there, refused := refusal(err)
	switch {
	case err == nil:
		return true, nil
	case !refused:
		return false, t.fault("upsert", key, cause(ctx, err))
	case there.text("stamp") == "":
		return false, t.fault("upsert", key, idempotency.ErrStamped)
	}
	// An earlier try of the client may have written it, and the answer was lost.
	return there.number("vers") == version, nil
}

// newVersion draws a version.
func newVersion() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return int64(binary.BigEndian.Uint64(b[:])>>1) | 1
}

// Purge removes tombstones that were written more than age ago. The index that it finds them by may
// be a little behind: what it misses it finds the next time.
func (t *Table) Purge(ctx context.Context, age time.Duration) (int, error) {
	if err := t.enter(ctx); err != nil {
		return 0, err
	}
	removed := 0
	before := number(t.now().Add(-age).UnixMilli())
	in := &dynamodb.QueryInput{TableName: &t.o.Table, IndexName: aws.String(graves),
		KeyConditionExpression:    aws.String("gname = :name AND gtime < :before"),
		ExpressionAttributeValues: item{":name": text(t.o.Name), ":before": before}}
	for {
		out, err := t.api.Query(ctx, in)
		if err != nil {
			return removed, fmt.Errorf("purge table %s: %w", t.o.Name, cause(ctx, err))
		}
		for _, i := range out.Items {
			ok, err := t.bury(ctx, i, before)
			if err != nil {
				return removed, fmt.Errorf("purge table %s: %w", t.o.Name, cause(ctx, err))
			}
			if ok {
				removed++
			}
		}
		if len(out.LastEvaluatedKey) == 0 {
			return removed, nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// bury removes one tombstone, if it still is that.
func (t *Table) bury(ctx context.Context, i item, before types.AttributeValue) (bool, error) {
	_, err := t.api.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: &t.o.Table,
		Key:                       keyOf(i.text("pk")),
		ConditionExpression:       aws.String("gtime < :before"),
		ExpressionAttributeValues: item{":before": before}})
	if _, refused := refusal(err); refused {
		return false, nil
	}
	return err == nil, err
}

func (t *Table) enter(ctx context.Context) error { return enter(ctx, &t.closed, "table "+t.o.Name) }

func (t *Table) fault(verb, key string, err error) error {
	return fmt.Errorf("%s key %.80q of table %s: %w", verb, key, t.o.Name, err)
}

// Close ends the table in this process.
func (t *Table) Close() error {
	t.closed.Store(true)
	return nil
}
