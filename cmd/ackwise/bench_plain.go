package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/internal/bench"
)

// dynamoAtOnce is how many items a call writes at once, as ddbstore does by default.
const dynamoAtOnce = 32

// plainInsert is the least that a server can do with the rows of a dedup store, for bench.
type plainInsert struct {
	insert func(ctx context.Context, rows []bench.DedupRow) error
	close  func() error
}

// insertPostgres inserts the rows of a call with one statement, into a table of its own that is
// dropped at the end.
func insertPostgres(ctx context.Context, u storeURL) (*plainInsert, error) {
	config, err := pgxpool.ParseConfig(u.server)
	if err != nil { // what pgx says of a URL may show a part of it
		return nil, errors.New("the URL has a part that Postgres does not know")
	}
	config.BeforeConnect = beforeConnect(u.password)
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("make the pool of the plain insert: %w", err)
	}
	table := pgx.Identifier{fmt.Sprintf("ackwise_bench_%d_%d", os.Getpid(),
		time.Now().UnixNano())}.Sanitize()
	if _, err := pool.Exec(ctx,
		"CREATE TABLE "+table+" (key text PRIMARY KEY, sum bytea NOT NULL)"); err != nil {
		pool.Close()
		return nil, fmt.Errorf("make the table of the plain insert: %w", err)
	}
	return &plainInsert{
		insert: func(ctx context.Context, rows []bench.DedupRow) error {
			keys, sums := make([]string, len(rows)), make([][]byte, len(rows))
			for i := range rows {
				keys[i], sums[i] = rows[i].Key, rows[i].Sum[:]
			}
			_, err := pool.Exec(ctx, "INSERT INTO "+table+
				" SELECT * FROM unnest($1::text[], $2::bytea[])", keys, sums)
			return err
		},
		close: func() error {
			defer pool.Close()
			_, err := pool.Exec(context.WithoutCancel(ctx), "DROP TABLE "+table)
			return err
		}}, nil
}

// insertRedis sets the rows of a call in one pipeline, under a prefix of its own.
func insertRedis(ctx context.Context, u storeURL) (*plainInsert, error) {
	client, err := redisClient(ctx, u)
	if err != nil {
		return nil, err
	}
	prefix := fmt.Sprintf("ackwise-bench:%s:", u.name)
	return &plainInsert{close: client.Close,
		insert: func(ctx context.Context, rows []bench.DedupRow) error {
			_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
				for i := range rows {
					p.Set(ctx, prefix+rows[i].Key, rows[i].Sum[:], serverWindow)
				}
				return nil
			})
			return err
		}}, nil
}

// insertDynamo puts the rows of a call one by one, as many at once as a store does, into the
// store's own table, where DynamoDB's TTL removes them.
func insertDynamo(ctx context.Context, u storeURL) (*plainInsert, error) {
	client, err := ddbstore.Region{Name: u.region, Endpoint: u.endpoint}.Client(ctx)
	if err != nil {
		return nil, err
	}
	put := func(ctx context.Context, row bench.DedupRow) error {
		expires := strconv.FormatInt(time.Now().Add(serverWindow).Unix(), 10)
		_, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(u.table),
			Item: map[string]types.AttributeValue{
				"pk":      &types.AttributeValueMemberS{Value: "bench#" + u.name + "#" + row.Key},
				"psum":    &types.AttributeValueMemberB{Value: row.Sum[:]},
				"expires": &types.AttributeValueMemberN{Value: expires}}})
		return err
	}
	return &plainInsert{close: func() error { return nil },
		insert: func(ctx context.Context, rows []bench.DedupRow) error {
			errs := make([]error, len(rows))
			room := make(chan struct{}, dynamoAtOnce)
			var wg sync.WaitGroup
			for i, row := range rows {
				room <- struct{}{}
				wg.Go(func() { // ends with its call
					errs[i] = put(ctx, row)
					<-room
				})
			}
			wg.Wait()
			return errors.Join(errs...)
		}}, nil
}
