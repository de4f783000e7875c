package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/adapters/aws/dynamostreams"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/adapters/aws/sqs"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/adapters/nakadi"
	"github.com/ackwise/ackwise/adapters/postgres/pgstore"
	"github.com/ackwise/ackwise/adapters/redis/redisstore"
	"github.com/ackwise/ackwise/adapters/webhook"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/internal/reach"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
	"github.com/ackwise/ackwise/server"
)

// directory is an open data directory, whoever owns it.
type directory struct{ *client.Client }

// openDirectory opens dir, as its owner where it has none.
func (a *app) openDirectory(ctx context.Context, dir string, create bool) (*directory, error) {
	c, err := client.Open(ctx, dir, client.Options{Create: create, Serve: server.Local,
		Logger: a.logger()})
	if err != nil {
		return nil, err
	}
	return &directory{c}, nil
}

// session opens a consumer's session.
func (d *directory) session(ctx context.Context, p pipeline, o queue.ReceiverOptions) (
	process.Session, error) {
	r, err := d.Receiver(ctx, p.topic, p.sub, o)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// systems are the endpoints that adapters bring. A new system is one row here.
func systems() []scheme {
	hook := adapter(webhook.ParseSink, webhook.OpenSink, nil)
	return []scheme{
		system("kafka://", "kafka://HOST[,HOST]/TOPIC",
			adapter(kafka.ParseSource, kafka.OpenSource,
				func(o *kafka.SourceOptions, w opening) {
					o.Create, o.Log.Observe = o.Create || w.create, w.warn
				}),
			adapter(kafka.ParseSink, kafka.OpenSink,
				func(o *kafka.SinkOptions, w opening) {
					o.Create = o.Create || w.create
					o.DeadLetters = o.DeadLetters || w.dead && o.Topic != ""
				})),
		system("sqs://", "sqs://REGION/QUEUE",
			adapter(sqs.ParseSource, sqs.OpenSource,
				func(o *sqs.SourceOptions, w opening) { o.Create = o.Create || w.create }),
			adapter(sqs.ParseSink, sqs.OpenSink,
				func(o *sqs.SinkOptions, w opening) {
					o.Create, o.Logger = o.Create || w.create, w.log
					o.DeadLetters = o.DeadLetters || w.dead
				})),
		system("sns://", "sns://REGION/TOPIC", nil,
			adapter(sns.ParseSink, sns.OpenSink,
				func(o *sns.SinkOptions, w opening) { o.Create = o.Create || w.create })),
		system("dynamodb-streams://", "dynamodb-streams://REGION/TABLE",
			adapter(dynamostreams.ParseSource, dynamostreams.OpenSource,
				func(o *dynamostreams.SourceOptions, w opening) {
					o.Create, o.Logger = o.Create || w.create, w.log
				}), nil),
		system("nakadi://", "nakadi://HOST/EVENT-TYPE",
			adapter(nakadi.ParseSource, nakadi.OpenSource,
				func(o *nakadi.SourceOptions, w opening) {
					o.Create, o.Log.Observe = o.Create || w.create, w.warn
				}),
			adapter(nakadi.ParseSink, nakadi.OpenSink, nil)),
		system("https://", "https://HOST/PATH", nil, hook),
		system("http://", "http://HOST/PATH", nil, hook),
	}
}

// renew copies the letters of a queue of SQS that it would delete within a time, and returns how
// many are new.
func renew(ctx context.Context, address string, before time.Duration) (int, error) {
	o, err := sqs.ParseSource(address)
	if err != nil {
		return 0, err
	}
	r, err := sqs.KeepForward(ctx, sqs.ForwardOptions{From: o.Queue, Before: before})
	if err == nil && r.Err != nil {
		err = fmt.Errorf("renew letters: %d of %d could not be: %w", r.Failed+r.Twice,
			r.Failed+r.Twice+r.Forwarded, r.Err)
	}
	return r.Forwarded + r.Twice, err
}

// storePatience is how long a server may take to answer at the start.
const storePatience = 15 * time.Second

// openStore opens a dedup store, or says why it cannot be reached.
func openStore(ctx context.Context, u storeURL, o storeOptions) (idempotency.Store, error) {
	s, err := reach.Within(ctx, storePatience, func(ctx context.Context) (idempotency.Store, error) {
		return u.scheme.open(ctx, u, o)
	})
	if err != nil {
		return nil, fmt.Errorf("open the dedup store %s: %w", u.key(), err)
	}
	return s, nil
}

// openedStore is a store with the client that was opened for it.
type openedStore struct {
	idempotency.Store
	end func() error
}

// Close closes both.
func (s openedStore) Close() error { return joinClose(s.Store.Close(), s.end) }

// opened joins a store with its client, which is closed where there is no store.
func opened[S idempotency.Store](s S, err error, end func() error) (idempotency.Store, error) {
	if err != nil {
		return nil, joinClose(err, end)
	}
	return openedStore{s, end}, nil
}

// joinClose closes what is not needed any more.
func joinClose(err error, closers ...func() error) error {
	for _, end := range closers {
		err = errors.Join(err, end())
	}
	return err
}

func openMemoryStore(_ context.Context, u storeURL, o storeOptions) (idempotency.Store, error) {
	return memstore.Open(memstore.Options{Name: u.name, Window: o.window,
		MaxKeys: o.maxKeys})
}

func openQueueStore(ctx context.Context, u storeURL, o storeOptions) (idempotency.Store, error) {
	d, err := o.directory(u.dir)
	if err != nil {
		return nil, err
	}
	return queuestore.Open(ctx, d.Client, u.name, queuestore.Options{Window: o.window,
		MaxKeys: o.maxKeys})
}

func openPostgresStore(ctx context.Context, u storeURL, o storeOptions) (idempotency.Store, error) {
	return pgstore.OpenURL(ctx, u.server, pgstore.Options{Name: u.name, Window: o.window,
		MaxKeys: o.maxKeys, Password: u.password})
}

func openRedisStore(ctx context.Context, u storeURL, o storeOptions) (idempotency.Store, error) {
	c, err := redisClient(ctx, u)
	if err != nil {
		return nil, err
	}
	s, err := redisstore.Open(ctx, c, redisstore.Options{Name: u.name, Window: o.window,
		MaxKeys: o.maxKeys})
	return opened(s, err, c.Close)
}

func redisClient(ctx context.Context, u storeURL) (*redis.Client, error) {
	o, err := redis.ParseURL(u.server)
	if err != nil {
		return nil, errors.New("the URL has a part that Redis does not know")
	}
	if u.password != nil {
		if _, err := u.password(ctx); err != nil { // whether or not the server answers
			return nil, err
		}
		user := o.Username
		o.CredentialsProviderContext = func(ctx context.Context) (string, string, error) {
			password, err := u.password(ctx)
			return user, password, err
		}
	}
	o.ContextTimeoutEnabled = true
	logging.Disable() // what fails is in the errors of the calls
	return redis.NewClient(o), nil
}

func openDynamoStore(ctx context.Context, u storeURL, o storeOptions) (idempotency.Store, error) {
	s, err := ddbstore.OpenRegion(ctx,
		ddbstore.Region{Name: u.region, Endpoint: u.endpoint, Create: o.create},
		ddbstore.Options{Table: u.table, Name: u.name, Window: o.window, MaxKeys: o.maxKeys})
	if err != nil { // not the nil store in an interface
		return nil, err
	}
	return s, nil
}

// logger writes warnings for a person to read.
func (a *app) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
