package patterns

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
	"github.com/ackwise/ackwise/server"
)

// backend is where a Store and a Table are kept.
type backend struct {
	name string
	// inProcess says that it lives in the memory of one process: consumers are goroutines.
	inProcess bool
	// address returns what consumers open it by. It skips the test where there is no server.
	address func(t *testing.T) string
	slow    bool // it gets a quarter of the deliveries of the others in a sample
	open    func(ctx context.Context, address, name string) (*opened, error)
}

// opened is a backend that is open under one name.
type opened struct {
	store  idempotency.Store
	table  idempotency.Table
	closes []func() error // in the order in which they are called
}

func (o *opened) close() error {
	var errs []error
	for _, c := range o.closes {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// window is how long the stores remember: longer than any test.
const window = time.Hour

func backends() []*backend {
	return []*backend{
		{name: "memory", inProcess: true, address: func(*testing.T) string { return "" },
			open: openMemory},
		{name: "embedded", address: servedDirectory, open: openEmbedded},
	}
}

// servedDirectory is a directory whose owner is this process; consumers come over its socket.
func servedDirectory(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := queue.Open(dir, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	serving, err := server.Local(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(serving.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func openEmbedded(ctx context.Context, dir, name string) (*opened, error) {
	c, err := client.Open(ctx, dir, client.Options{})
	if err != nil {
		return nil, err
	}
	s, err := queuestore.Open(ctx, c, name, queuestore.Options{Window: window})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	t, err := queuestore.OpenTable(c, name)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &opened{s, t, []func() error{s.Close, c.Close}}, nil
}

func backendOf(name string) *backend {
	all := append(backends(), realBackends()...)
	return all[slices.IndexFunc(all, func(b *backend) bool { return b.name == name })]
}

func openMemory(_ context.Context, _, name string) (*opened, error) {
	s, err := memstore.Open(memstore.Options{Name: name, Window: window})
	if err != nil {
		return nil, err
	}
	return &opened{s, memstore.OpenTable(memstore.TableOptions{}),
		[]func() error{s.Close}}, nil
}
