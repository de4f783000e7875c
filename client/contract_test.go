package client_test

import (
	"context"
	"testing"

	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuetest"
	"github.com/ackwise/ackwise/server"
)

// TestAClientKeepsTheContract runs the engine's own contract through the socket, in the owner and
// in one that is not.
func TestAClientKeepsTheContract(t *testing.T) {
	t.Run("as the owner", func(t *testing.T) {
		queuetest.Run(t, func(t *testing.T, dir string) queuetest.Opened {
			return opened(open(t, dir, owning()))
		})
	})
	t.Run("as another's client", func(t *testing.T) {
		queuetest.Run(t, func(t *testing.T, dir string) queuetest.Opened {
			owner := open(t, dir, owning())
			other := open(t, dir, client.Options{})
			if !owner.Owner() || other.Owner() {
				t.Fatal("the first is to own the directory, the second not")
			}
			o := opened(other)
			o.Queue = closing{Queue: o.Queue, owner: owner}
			return o
		})
	})
}

// closing closes the owner after its client.
type closing struct {
	queuetest.Queue
	owner *client.Client
}

func (c closing) Close() error {
	if err := c.Queue.Close(); err != nil {
		return err
	}
	return c.owner.Close()
}

// owning are the options of a client that may own the directory.
func owning() client.Options {
	return client.Options{Create: true, Serve: server.Local, Store: queue.Options{
		MaxBodyBytes: queuetest.MaxBodyBytes, MaxBatch: queuetest.MaxBatch}}
}

// open opens a client that the test's end closes.
func open(t *testing.T, dir string, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close client: %v", err)
		}
	})
	return c
}

func opened(c *client.Client) queuetest.Opened {
	return queuetest.Opened{Queue: c, Schedule: c.Schedule,
		Receiver: func(ctx context.Context, topic, sub string, o queue.ReceiverOptions) (
			queuetest.Receiver, error) {
			return c.Receiver(ctx, topic, sub, o)
		}}
}
