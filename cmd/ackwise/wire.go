package main

import (
	"context"
	"log/slog"

	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/queue"
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

// logger writes warnings for a person to read.
func (a *app) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
