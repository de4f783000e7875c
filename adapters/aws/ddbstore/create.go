package ddbstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
)

// graves is the index of tombstones: only they have its attributes.
const graves = "graves"

// CreateTable makes the DynamoDB table that stores and tables are kept in, billed by use, and waits
// until it can be used. One that is there is left as it is.
func CreateTable(ctx context.Context, api API, table string) error {
	if err := createTable(ctx, api, table); err != nil {
		return fmt.Errorf("create DynamoDB table %s: %w", table, err)
	}
	return nil
}

func createTable(ctx context.Context, api API, table string) error {
	attribute := func(name string, t types.ScalarAttributeType) types.AttributeDefinition {
		return types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: t}
	}
	key := func(name string, t types.KeyType) types.KeySchemaElement {
		return types.KeySchemaElement{AttributeName: aws.String(name), KeyType: t}
	}
	_, err := api.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:   aws.String(table),
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			attribute("pk", types.ScalarAttributeTypeS),
			attribute("gname", types.ScalarAttributeTypeS),
			attribute("gtime", types.ScalarAttributeTypeN),
		},
		KeySchema: []types.KeySchemaElement{key("pk", types.KeyTypeHash)},
		GlobalSecondaryIndexes: []types.GlobalSecondaryIndex{{
			IndexName: aws.String(graves),
			KeySchema: []types.KeySchemaElement{key("gname", types.KeyTypeHash),
				key("gtime", types.KeyTypeRange)},
			Projection: &types.Projection{ProjectionType: types.ProjectionTypeKeysOnly},
		}},
	})
	if err != nil && code(err) != "ResourceInUseException" { // it is there, or is being made
		return cause(ctx, err)
	}
	if err := untilActive(ctx, api, table); err != nil {
		return err
	}
	live, err := timeToLive(ctx, api, table)
	if err != nil || live {
		return err
	}
	_, err = api.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{
		TableName: aws.String(table),
		TimeToLiveSpecification: &types.TimeToLiveSpecification{
			AttributeName: aws.String("expires"), Enabled: aws.Bool(true)},
	})
	if err != nil {
		return cause(ctx, err)
	}
	return nil
}

func untilActive(ctx context.Context, api API, table string) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := describe(ctx, api, table)
		if err == nil && out.TableStatus == types.TableStatusActive {
			return nil
		}
		// Right after its creation a table may not be found yet.
		if _, ok := errors.AsType[*types.ResourceNotFoundException](err); err != nil && !ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until it is active: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func describe(ctx context.Context, api API, table string) (*types.TableDescription, error) {
	out, err := api.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: aws.String(table)})
	switch {
	case err != nil:
		return nil, cause(ctx, err)
	case out.Table == nil:
		return nil, errors.New("DynamoDB described no table")
	}
	return out.Table, nil
}

// timeToLive reports whether items are cleaned by the right attribute.
func timeToLive(ctx context.Context, api API, table string) (bool, error) {
	out, err := api.DescribeTimeToLive(ctx,
		&dynamodb.DescribeTimeToLiveInput{TableName: aws.String(table)})
	if err != nil {
		return false, cause(ctx, err)
	}
	d := out.TimeToLiveDescription
	if d == nil || d.TimeToLiveStatus != types.TimeToLiveStatusEnabled &&
		d.TimeToLiveStatus != types.TimeToLiveStatusEnabling {
		return false, nil
	}
	if name := aws.ToString(d.AttributeName); name != "expires" {
		return false, fmt.Errorf("its TTL attribute is %q, not \"expires\"", name)
	}
	return true, nil
}

// checkTable refuses a DynamoDB table without what is needed of it, and names what.
func checkTable(ctx context.Context, api API, table string, index bool) error {
	d, err := describe(ctx, api, table)
	if err != nil {
		return err
	}
	kinds := make(map[string]string)
	for _, a := range d.AttributeDefinitions {
		kinds[aws.ToString(a.AttributeName)] = string(a.AttributeType)
	}
	keys := func(schema []types.KeySchemaElement) string {
		var all []string
		for _, k := range schema {
			name := aws.ToString(k.AttributeName)
			all = append(all, name+" "+kinds[name])
		}
		return strings.Join(all, ", ")
	}
	var missing []string
	if got := keys(d.KeySchema); got != "pk S" {
		missing = append(missing, fmt.Sprintf("the key (pk S), it has (%s)", got))
	}
	live, err := timeToLive(ctx, api, table)
	switch {
	case err != nil:
		return err
	case !live:
		missing = append(missing, `TTL on "expires", without which nothing is ever removed`)
	}
	found := !index
	for _, g := range d.GlobalSecondaryIndexes {
		found = found || aws.ToString(g.IndexName) == graves && keys(g.KeySchema) == "gname S, gtime N"
	}
	if !found {
		missing = append(missing, "the index graves (gname S, gtime N)")
	}
	if missing != nil {
		return &ackwise.HintError{Err: fmt.Errorf("the DynamoDB table %s lacks %s", table,
			strings.Join(missing, "; and ")),
			Hint: "ddbstore.CreateTable makes one that has all of it."}
	}
	return nil
}
