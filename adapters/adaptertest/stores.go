package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/pgstore"
	"github.com/ackwise/ackwise/adapters/redis/redisstore"
	"github.com/ackwise/ackwise/idempotency"
)

// Backend is one kind of store.
type Backend struct {
	Name     string
	Variable string // the environment variable that holds its server's address
	// Prepare makes what a server has to have before Open. It may be called again.
	Prepare func(ctx context.Context, address string) error
	// Open opens the store and the table of a name.
	Open func(ctx context.Context, address, name string, window time.Duration) (*Opened, error)
}

// Opened is what a Backend has opened.
type Opened struct {
	Store idempotency.Store
	Table idempotency.Table
	end   func() error // of the client
}

// Close closes the store and its client.
func (o *Opened) Close() error { return errors.Join(o.Store.Close(), o.end()) }

// Backends returns every kind.
func Backends() []Backend {
	return []Backend{
		{"postgres", "ACKWISE_TEST_POSTGRES", preparePostgres, openPostgres},
		{"redis", "ACKWISE_TEST_REDIS", func(context.Context, string) error { return nil }, openRedis},
		{"dynamodb", "ACKWISE_TEST_DYNAMODB", prepareDynamo, openDynamo},
	}
}

func preparePostgres(ctx context.Context, address string) error {
	pool, err := pgxpool.New(ctx, address)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer pool.Close()
	_, err = postgres.Migrate(ctx, postgres.PGX(pool), false)
	return err
}

func openPostgres(ctx context.Context, address, name string, window time.Duration) (
	*Opened, error) {
	pool, err := pgxpool.New(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	end := func() error { pool.Close(); return nil }
	s, err := pgstore.Open(ctx, postgres.PGX(pool), pgstore.Options{Name: name, Window: window})
	if err != nil {
		return nil, errors.Join(err, end())
	}
	t, err := pgstore.OpenTable(ctx, postgres.PGX(pool), name)
	if err != nil {
		return nil, errors.Join(err, s.Close(), end())
	}
	return &Opened{s, t, end}, nil
}

func openRedis(ctx context.Context, address, name string, window time.Duration) (*Opened, error) {
	o, err := redis.ParseURL(address)
	if err != nil {
		return nil, fmt.Errorf("read the address of Redis: %w", err)
	}
	o.ContextTimeoutEnabled = true
	client := redis.NewClient(o)
	s, err := redisstore.Open(ctx, client, redisstore.Options{Name: name, Window: window,
		Persist: redisstore.PersistAlways})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	t, err := redisstore.OpenTable(ctx, client, redisstore.TableOptions{Name: name,
		Persist: redisstore.PersistAlways})
	if err != nil {
		return nil, errors.Join(err, s.Close(), client.Close())
	}
	return &Opened{s, t, client.Close}, nil
}

// dynamoTable is the DynamoDB table that all names share.
const dynamoTable = "ackwise"

func dynamo(address string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{Region: "eu-central-1", BaseEndpoint: aws.String(address),
		Credentials: credentials.NewStaticCredentialsProvider("local", "local", "")})
}

func prepareDynamo(ctx context.Context, address string) error {
	return ddbstore.CreateTable(ctx, dynamo(address), dynamoTable)
}

func openDynamo(ctx context.Context, address, name string, window time.Duration) (*Opened, error) {
	api := dynamo(address)
	s, err := ddbstore.Open(ctx, api, ddbstore.Options{Table: dynamoTable, Name: name,
		Window: window, MaxSkew: time.Second})
	if err != nil {
		return nil, err
	}
	t, err := ddbstore.OpenTable(ctx, api, ddbstore.TableOptions{Table: dynamoTable, Name: name})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &Opened{s, t, func() error { return nil }}, nil
}
