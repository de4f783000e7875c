package kill

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mount mounts a small file system in memory for one test, or skips it.
func mount(t *testing.T, size string) string {
	t.Helper()
	needs(t, smallDisks)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill fills a file system, or so many bytes of it, and returns the file that does.
func fill(t *testing.T, dir string, bytes int) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<16); len(block) > 0 && bytes > 0; {
		n, err := f.Write(block)
		bytes -= n
		if errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// leave fills a file system until only so many bytes are free, and returns the file that does.
func leave(t *testing.T, dir string, bytes int) string {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return fill(t, dir, int(s.Bavail)*int(s.Bsize)-bytes)
}

// TestFullDisk lets the disk run full under a publisher. It says so and waits; what it printed is
// consumed meanwhile; one that may not wait ends with 1; and when space returns, all goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, disk := range map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string { return mount(t, "64m") },
		"ext4":  func(t *testing.T) string { return newDisk(t, 96<<20).dir },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runsFull(t, disk(t))
		})
	}
}

func runsFull(t *testing.T, small string) {
	w := newWorld(t)
	w.dir = filepath.Join(small, "store")
	filler := leave(t, small, 36<<20)
	p := &pair{world: w, batch: 16, conc: 8}
	p.lines = w.add(500, 10)
	p.bodyBytes = 64 << 10
	p.startPublisher(t)
	until(t, "publish waits for room", func() bool {
		return strings.Contains(p.publisher.said(), "waiting for room")
	})
	n, looks := 0, 0 // it waits once nothing more is printed for a while
	until(t, "nothing more is published", func() bool {
		if now := len(texts(w.pub)); now != n {
			n, looks = now, 0
		}
		looks++
		return looks > 500
	})
	if n == 0 || n == len(p.lines) {
		t.Fatalf("%d of %d published: the disk was not full under way", n, len(p.lines))
	}
	large := strings.Repeat(bodied(input{ID: "large"}, 1_000_000), 4)
	if _, said := run(t, large, 1, "publish", "--dir", w.dir, "--create", "--full-wait", "1ms",
		"other"); !strings.Contains(said, "full") {
		t.Errorf("publish to a full disk said:\n%s", said)
	}
	p.startConsumer(t)
	until(t, "what was published is done while the disk is full", func() bool {
		return p.undone() == len(p.lines)-n
	})
	if !p.publisher.alive() || len(texts(w.pub)) != n {
		t.Errorf("publish went on while the disk was full: %d, then %d", n, len(texts(w.pub)))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.finish(t)
	p.judge(t)
}

// TestNoByteLeft takes the last byte of the disk away. Publish says that it is full; a consumer
// opens the store, is killed, opens it again and drains it, all on the full disk; and when space
// returns, the publisher that waits goes on by itself.
func TestNoByteLeft(t *testing.T) {
	t.Parallel()
	for name, disk := range map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string { return mount(t, "96m") },
		"ext4":  func(t *testing.T) string { return newDisk(t, 96<<20).dir },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drainsFull(t, disk(t))
		})
	}
}

func drainsFull(t *testing.T, small string) {
	w := newWorld(t)
	w.dir = filepath.Join(small, "store")
	p := &pair{world: w, batch: 256, conc: 8}
	p.lines = w.add(4000, 10)
	w.publish(t, p.lines[:3000])
	filler := fill(t, small, 1<<40)
	if out, said := run(t, lines(p.lines[3000:]), 1, "publish", "--dir", w.dir, "--full-wait", "1ms",
		topic); out != "" || !strings.Contains(said, "full") {
		t.Errorf("publish printed %q and said:\n%s", out, said)
	}
	p.startConsumer(t)
	until(t, "some are done", func() bool { return p.undone() < 3500 })
	p.consumer.kill(t)
	if p.undone() == 1000 {
		t.Fatal("the consumer was done before it was killed")
	}
	p.startConsumer(t)
	until(t, "all that was published is done", func() bool { return p.undone() == 1000 })
	p.startPublisher(t)
	until(t, "publish waits for room", func() bool {
		return strings.Contains(p.publisher.said(), "waiting for room")
	})
	if n := p.unpublished(); n != 1000 {
		t.Errorf("%d of 1000 were published on a full disk", 1000-n)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.finish(t)
	p.judge(t)
}

// TestReadOnly uses a directory on a file system that becomes read-only. Every command says so, and
// all goes on when it is writable again.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	small := mount(t, "96m")
	w.dir = filepath.Join(small, "store")
	all := w.add(200, 10)
	w.publish(t, all[:100])
	if err := syscall.Mount("none", small, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{w.publishArgs(), {"consume", "--dir", w.dir, "--create",
		"--until-empty", pipeline}, {"audit", "--dir", w.dir}} {
		out, said := run(t, lines(all[100:]), 1, args...)
		if !strings.Contains(said, "read-only file system") || out != "" {
			t.Errorf("%s printed %q and said:\n%s", args[0], out, said)
		}
	}
	if err := syscall.Mount("none", small, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	w.publish(t, all[100:])
	w.drain(t)
	w.judge(t)
}
