package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/queue"
)

const (
	// socketName is the socket's name in the data directory.
	socketName = "socket"
	// maxHeaderBytes bounds a request's header.
	maxHeaderBytes = 16 << 10
	// readHeaderTimeout bounds how long a connection may take over a header.
	readHeaderTimeout = 5 * time.Second
	// maxConns bounds the connections of a socket; more wait in the kernel's queue.
	maxConns = 4096
	// drainTimeout bounds how long Close waits for calls under way.
	drainTimeout = 5 * time.Second
)

// Local serves store, which this process owns, on a Unix socket until it is closed: DIR/socket, or
// where that path is too long for a socket, one in the user's runtime directory. The directory's
// lock file says which. Only this user may open it. Close lets calls under way finish, and leaves
// the consumers' sessions to the next owner; close it before the store.
func Local(store *queue.Store) (io.Closer, error) {
	path, err := socketPath(store.Dir())
	if err != nil {
		return nil, err
	}
	ln, err := listen(path)
	if err != nil {
		return nil, err
	}
	l := &local{dir: store.Dir(), handler: newHandler(store, Options{})}
	l.http = &http.Server{Handler: l.handler, MaxHeaderBytes: maxHeaderBytes,
		ReadHeaderTimeout: readHeaderTimeout,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	l.serving.Go(func() { // ends with Close
		l.err = l.http.Serve(&boundedListener{Listener: ln, done: make(chan struct{}),
			slots: make(chan struct{}, maxConns)})
	})
	if err := lockfile.Announce(l.dir, path); err != nil {
		return nil, errors.Join(fmt.Errorf("announce socket: %w", err), l.Close())
	}
	return l, nil
}

// local is a store served on a socket.
type local struct {
	dir     string
	handler *handler
	http    *http.Server
	serving sync.WaitGroup
	err     error // of http.Serve; read when serving is over
	once    sync.Once
	closed  error
}

// Close stops serving.
func (l *local) Close() error {
	l.once.Do(func() { l.closed = l.close() })
	return l.closed
}

func (l *local) close() error {
	l.handler.stop()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := l.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.http.Close()
	}
	l.serving.Wait()
	l.handler.streams.Wait()
	if !errors.Is(l.err, http.ErrServerClosed) {
		err = errors.Join(err, l.err)
	}
	if err != nil {
		return fmt.Errorf("close socket: %w", err)
	}
	return nil
}

// socketPath returns where the socket of dir goes.
func socketPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find directory: %w", err)
	}
	if path := filepath.Join(dir, socketName); len(path) <= maxSocketPath() {
		return path, nil
	}
	base, err := runtimeDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(dir))
	path := filepath.Join(base, "ackwise-"+hex.EncodeToString(sum[:8]))
	if len(path) > maxSocketPath() {
		return "", &ackwise.HintError{
			Err: fmt.Errorf("place socket: %w", &ackwise.InvalidError{Field: "socket path",
				Value: path, Reason: fmt.Sprintf("%d bytes long, the system allows %d",
					len(path), maxSocketPath())}),
			Hint: "use a directory with a shorter path, or set XDG_RUNTIME_DIR to a short one"}
	}
	return path, nil
}

// maxSocketPath is the longest path that fits a sockaddr_un with its closing zero byte.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 107
	}
	return 103
}

// runtimeDir returns a directory that only this user can write: $XDG_RUNTIME_DIR, or one of our own
// among the temporary files, which must not be somebody else's trap.
func runtimeDir() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return dir, nil
	}
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("ackwise-%d", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("make runtime directory: %w", err)
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("make runtime directory: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() || fi.Mode().Perm() != 0o700 || int(st.Uid) != os.Getuid() {
		return "", &ackwise.HintError{
			Err:  fmt.Errorf("make runtime directory: %s is not this user's alone", dir),
			Hint: "remove it, or set XDG_RUNTIME_DIR to a directory of yours with mode 0700"}
	}
	return dir, nil
}

// listen makes the socket. One that is there is stale: whoever owned the directory before us made
// it, and we are the owner now.
func listen(path string) (net.Listener, error) {
	fi, err := os.Lstat(path)
	switch {
	case err == nil && fi.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("make socket: %s is there and is not a socket", path)
	case err == nil:
		err = os.Remove(path)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	ln, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("make socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("make socket: %w", err), ln.Close())
	}
	return ln, nil
}

// bind makes a socket that is this user's from its first moment, where the system can do that.
func bind(path string) (net.Listener, error) {
	// The mode is set before bind makes the file (Linux heeds it), so that nobody else can slip in.
	var lc net.ListenConfig
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}
	return lc.Listen(context.Background(), "unix", path)
}

// boundedListener accepts no more connections than it has slots.
type boundedListener struct {
	net.Listener
	slots chan struct{}
	once  sync.Once
	done  chan struct{}
}

// Accept waits for a slot, then for a connection.
func (b *boundedListener) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.done:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close closes the listener, also one that waits for a slot.
func (b *boundedListener) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.Listener.Close()
}

// boundedConn frees its slot when it is closed.
type boundedConn struct {
	net.Conn
	free func()
}

// Close closes the connection.
func (c *boundedConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
