package servers

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Listen is the address, HOST:PORT, of a server that does so with each connection, one after the
// other, and closes it: for servers that are not what a client takes them for. It ends with the
// test.
func Listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { // until the listener is closed
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// Fixed is an address, HOST:PORT, for a server that is ended and started again: the system gives
// its port to nobody by chance meanwhile, as it does with those that it has chosen itself.
func Fixed(t testing.TB) string {
	t.Helper()
	var lc net.ListenConfig
	for range 50 {
		address := fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(12_000))
		if l, err := lc.Listen(t.Context(), "tcp", address); err == nil {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			return address
		}
	}
	t.Fatal("no port was free in 50 tries")
	return ""
}
