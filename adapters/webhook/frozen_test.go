package webhook

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// frozen is a connection that can stop: what is written goes nowhere, and nothing comes.
type frozen struct {
	net.Conn
	stop   chan struct{} // closed: it stands still
	closed chan struct{}
	once   sync.Once
}

func (c *frozen) Write(b []byte) (int, error) {
	select {
	case <-c.stop:
		return len(b), nil
	default:
		return c.Conn.Write(b)
	}
}

func (c *frozen) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.stop:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *frozen) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestConnectionThatDied: a connection of HTTP/2 that has died without a word is found out, and
// another one is made; requests do not go on dying in it until TCP gives up.
func TestConnectionThatDied(t *testing.T) {
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the protocol is %s", r.Proto)
		}
	}))
	h.EnableHTTP2 = true
	h.StartTLS()
	defer h.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, h.URL+"?timeout=10s&ca="+ca)
	transport := s.c.Transport.(*http.Transport)
	transport.HTTP2.SendPingTimeout /= 100
	transport.HTTP2.PingTimeout /= 100
	stop := make(chan struct{})
	dial, dials := transport.DialContext, atomic.Int32{}
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if dials.Add(1) > 1 || err != nil {
			return c, err
		}
		return &frozen{Conn: c, stop: stop, closed: make(chan struct{})}, nil
	}
	if r := publish(t, s, ackwise.Message{ID: "1"}); r.Class != ackwise.ResultAccepted {
		t.Fatalf("got %+v", r)
	}
	s.o.Timeout = 300 * time.Millisecond
	close(stop)
	end := time.Now().Add(30 * time.Second)
	for n := 0; ; n++ {
		if r := publish(t, s, ackwise.Message{ID: "2"}); r.Class == ackwise.ResultAccepted {
			if dials.Load() < 2 {
				t.Error("the connection did not die")
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d requests died in the connection", n)
		}
	}
}
