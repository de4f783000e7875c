package ddbstore

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

// Region says where DynamoDB is, for those who bring no client.
type Region struct {
	// Name is the region's name, such as eu-central-1. Required.
	Name string
	// Endpoint is the address of a server that stands in for AWS, such as http://127.0.0.1:8000.
	// Default: "", the region's own.
	Endpoint string
	// Create makes the table where it is missing. Default: a missing table is an error.
	Create bool
}

// Client makes a client for the region with the credentials that AWS's default chain finds. It
// speaks to nobody.
func (r Region) Client(ctx context.Context) (*dynamodb.Client, error) {
	c, err := awsconn.Load(ctx, awsconn.Options{Region: r.Name, Endpoint: r.Endpoint})
	if err != nil {
		return nil, err
	}
	return dynamodb.NewFromConfig(c), nil
}

// OpenRegion opens a store with a client of its own, see Region.Client. Its errors say what was
// asked for and, where that is known, what to do.
func OpenRegion(ctx context.Context, r Region, o Options) (*Store, error) {
	api, err := r.Client(ctx)
	if err != nil {
		return nil, err
	}
	if r.Create {
		if err := CreateTable(ctx, api, o.Table); err != nil {
			return nil, r.explain(err, "dynamodb:CreateTable", o.Table)
		}
	}
	s, err := Open(ctx, api, o)
	if err != nil {
		return nil, r.explain(err, "dynamodb:DescribeTable", o.Table)
	}
	return s, nil
}

// explain says what to do about an error that does not say so itself.
func (r Region) explain(err error, action, table string) error {
	_, says := errors.AsType[*ackwise.HintError](err)
	_, invalid := errors.AsType[*ackwise.InvalidError](err)
	if says || invalid {
		return err
	}
	return awsconn.Explain(err, awsconn.Asked{Action: action, Resource: "the table " + table,
		Region: r.Name, Endpoint: r.Endpoint})
}
