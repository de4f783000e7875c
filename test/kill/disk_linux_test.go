package kill

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mount mounts a small file system in memory for one test, or skips it.
func mount(t *testing.T, size string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("cannot mount a small file system here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill fills a file system to the last byte and returns the file that does.
func fill(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<16); len(block) > 0; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// bodied is a message's line with a long body.
func bodied(m input, size int) string {
	return fmt.Sprintf(`{"id":%q,"key":%q,"body":"%s"}`+"\n", m.ID, m.Key, strings.Repeat("x", size))
}

// TestFullDisk publishes until the disk is full. Publish ends with an error that says so; all that
// was printed is there; what is there is consumed; and when space returns, all goes on.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	small := mount(t, "64m")
	w.dir = filepath.Join(small, "store")
	all := w.add(20_000, 10)
	var in strings.Builder
	for _, m := range all {
		in.WriteString(bodied(m, 8<<10))
	}
	publish := func() *process {
		p := prepare(t, nil, w.publishArgs("--batch", "64", "--full-wait", "200ms")...)
		p.out = w.pub
		p.cmd.Stdin = strings.NewReader(in.String())
		p.launch(t)
		go func() { // ends with the process
			p.readLines()
			p.end()
		}()
		return p
	}
	p := publish()
	p.wantExit(t, 1)
	t.Logf("publish said: %s", p.said())
	n := len(texts(w.pub))
	if n == 0 || n == len(all) {
		t.Fatalf("%d of %d published: the disk was not full under way", n, len(all))
	}
	for i, m := range all[:n] {
		if _, ok := texts(w.pub)[m.ID]; !ok {
			t.Fatalf("%d IDs printed, but not number %d", n, i)
		}
		if i > 10 {
			break
		}
	}
	filler := fill(t, small)
	again := publish()
	again.wantExit(t, 1)
	t.Logf("publish to a disk without a free byte said: %s", again.said())
	w.drain(t)
	handled := w.handled(t)
	done := map[string]bool{}
	for _, h := range handled {
		done[h.ID] = true
	}
	for id := range texts(w.pub) {
		if !done[id] {
			w.fault(t, id, "was printed as published, and not handed out while the disk was full")
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.inputs = all[:len(texts(w.pub))]
	more := w.inputs[len(w.inputs)-1]
	run(t, bodied(more, 8<<10), 0, "publish", "--dir", w.dir, "--id-field", "id", topic)
	w.judge(t)
}

// TestReadOnly uses a directory on a file system that becomes read-only. Every command says so, and
// all goes on when it is writable again.
func TestReadOnly(t *testing.T) {
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
