package kill

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// ownerVar makes this test binary the owner of a directory, as its value says. The command has no
// flags for what these tests need.
const ownerVar = "KILL_TEST_OWNER"

// ownerOptions say how an owner opens its directory.
type ownerOptions struct {
	Dir          string
	SegmentBytes int64 // 0 = the default
	NoSync       bool
}

// own opens a directory and serves it, until standard input ends.
func own(text string) error {
	var o ownerOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	store := queue.Options{SegmentBytes: o.SegmentBytes}
	if o.NoSync {
		store.Sync = queue.SyncNever
	}
	begin := time.Now()
	c, err := client.Open(context.Background(), o.Dir, client.Options{Create: true, Store: store,
		Serve: server.Local, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	fmt.Printf("serving after %s\n", time.Since(begin))
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return c.Close()
}

// owner is a running owner. Closing stop asks it to end softly.
type owner struct {
	*process
	stop io.WriteCloser
}

// startOwner starts this test binary as an owner.
func startOwner(t *testing.T, o ownerOptions) *owner {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := prepare(t, []string{ownerVar + "=" + string(text), "GORACE=atexit_sleep_ms=0"}, "owner")
	p.cmd.Path = path
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.launch(t)
	go func() { // ends with the process
		p.readLines()
		p.end()
	}()
	return &owner{process: p, stop: in}
}

// serves waits until it serves its directory.
func (o *owner) serves(t *testing.T) {
	t.Helper()
	until(t, "the owner serves, or ends", func() bool { return o.prints() || !o.alive() })
	if !o.prints() {
		t.Fatalf("the owner does not serve; it said:\n%s", o.said())
	}
}

// begins waits until it holds the directory, which it is then about to open.
func (o *owner) begins(t *testing.T, dir string) {
	t.Helper()
	until(t, "the owner begins to open, or ends", func() bool {
		return lockedBy(dir) == o.cmd.Process.Pid || !o.alive()
	})
}

// close ends it softly.
func (o *owner) close(t *testing.T) {
	t.Helper()
	o.stop.Close()
	o.wantExit(t, 0)
}

// lockedBy returns the process that the lock file names; 0 = nobody.
func lockedBy(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, "LOCK"))
	var info struct{ PID int }
	if err != nil || json.Unmarshal(b, &info) != nil {
		return 0
	}
	return info.PID
}
