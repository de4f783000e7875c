package servers

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proxy stands between clients and a server of one address, and cuts their connections on order.
type Proxy struct {
	Address string // HOST:PORT where it listens

	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex // guards all below; not held during I/O
	target  string     // HOST:PORT
	pairs   map[*pair]bool
	replies int  // answers that are still to be cut
	down    bool // no connection is made
	fired   int
	closed  bool
}

// pair is a connection through the proxy.
type pair struct{ client, server net.Conn }

func (p *pair) close() {
	_ = p.client.Close()
	_ = p.server.Close()
}

// StartProxy starts a proxy for the server at target, HOST:PORT, which may be "" until Retarget. It
// ends with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for a proxy: %v", err)
	}
	p := &Proxy{Address: l.Addr().String(), listener: l, target: target, pairs: map[*pair]bool{}}
	p.wg.Go(p.accept) // ends when the listener is closed
	t.Cleanup(p.close)
	return p
}

// StartBehindProxy starts a server as Start does, and a proxy in front of it. The server's own
// address goes around the proxy.
func StartBehindProxy(t testing.TB, kind string) (*Server, *Proxy) {
	t.Helper()
	p := StartProxy(t, "")
	if kind != "kafka" {
		s := Start(t, kind)
		_, target, _ := strings.Cut(s.Address, "://")
		p.Retarget(target)
		return s, p
	}
	// A broker tells its clients where it is: those that come through the proxy have to hear its port.
	_, port, _ := net.SplitHostPort(p.Address)
	s := Start(t, kind, port)
	inner, err := os.ReadFile(filepath.Join(s.dir, "kafka-proxied.port"))
	if err != nil {
		t.Fatal(err)
	}
	p.Retarget("127.0.0.1:" + strings.TrimSpace(string(inner)))
	return s, p
}

// Retarget leads connections that are made from now on to another address.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// CutReplies has the next n answers end after their first bytes, and their connections with them.
func (p *Proxy) CutReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replies = n
}

// CutAll ends every connection, and lets none be made until Heal.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	p.down = true
	var open []*pair
	for c := range p.pairs {
		open = append(open, c)
	}
	p.fired += len(open)
	p.mu.Unlock()
	for _, c := range open {
		c.close()
	}
}

// Heal lets connections be made again, and cuts no more answers.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down, p.replies = false, 0
}

// Fired returns how many connections were cut, or not made.
func (p *Proxy) Fired() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fired
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	p.CutAll()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.connect(c) }) // ends with its connections
	}
}

const dialLimit = 10 * time.Second

func (p *Proxy) connect(client net.Conn) {
	p.mu.Lock()
	target, down := p.target, p.down
	if down && !p.closed { // a client that keeps no connection meets the fault here
		p.fired++
	}
	p.mu.Unlock()
	if down || target == "" {
		_ = client.Close()
		return
	}
	d := net.Dialer{Timeout: dialLimit}
	server, err := d.DialContext(context.Background(), "tcp", target)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &pair{client, server}
	if !p.add(c) {
		c.close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(c, c.client, c.server, false) }) // ends when either connection ends
	wg.Go(func() { p.copy(c, c.server, c.client, true) })  // as well
	wg.Wait()
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

func (p *Proxy) add(c *pair) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || p.closed {
		return false
	}
	p.pairs[c] = true
	return true
}

// copy passes bytes on until one side ends, and ends both then. Of an answer that is cut, half
// arrives.
func (p *Proxy) copy(c *pair, from, to net.Conn, answers bool) {
	defer c.close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		cut := answers && n > 0 && p.takeCut()
		if cut {
			n = (n + 1) / 2
		}
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil || cut {
			return
		}
	}
}

func (p *Proxy) takeCut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.replies == 0 {
		return false
	}
	p.replies--
	p.fired++
	return true
}
