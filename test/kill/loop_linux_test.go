package kill

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// disk is an ext4 file system in a file, on a loop device. Its plug can be pulled: from then on
// every call to it fails, and what was not synced is gone, apart from what the kernel had written
// by itself.
type disk struct {
	image, dir string
	options    string // of mount, beyond loop
}

// newDisk makes and mounts a disk for one test.
func newDisk(t *testing.T, bytes int64) *disk {
	t.Helper()
	needs(t, loopDisks)
	base := t.TempDir()
	d := &disk{image: filepath.Join(base, "image"), dir: filepath.Join(base, "disk")}
	if err := errors.Join(os.Mkdir(d.dir, 0o700), d.make(bytes), d.mount()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unmount(d.dir); err != nil {
			t.Error(err)
		}
	})
	return d
}

// make makes the file system. The file takes only the room of what is written to it.
func (d *disk) make(bytes int64) error {
	err := os.WriteFile(d.image, nil, 0o600)
	if err == nil {
		err = os.Truncate(d.image, bytes)
	}
	return errors.Join(err, command("mkfs.ext4", "-qF", "-m", "0", d.image))
}

// mount mounts the disk; umount gives its loop device back.
func (d *disk) mount() error {
	options := "loop"
	if d.options != "" {
		options += "," + d.options
	}
	return command("mount", "-t", "ext4", "-o", options, d.image, d.dir)
}

// pull pulls the plug: the journal is not even flushed.
func (d *disk) pull() error {
	const shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
	noFlush := uint32(2)        // EXT4_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(d.dir)
	if err != nil {
		return fmt.Errorf("open disk: %w", err)
	}
	defer f.Close()
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), shutdown,
		uintptr(unsafe.Pointer(&noFlush)))
	if errno != 0 {
		return fmt.Errorf("pull plug: %w", errno)
	}
	return nil
}

// plugIn mounts the disk again, after its plug was pulled.
func (d *disk) plugIn(t *testing.T) {
	t.Helper()
	if err := errors.Join(unmount(d.dir), d.mount()); err != nil {
		t.Fatal(err)
	}
}

// cut pulls the plug of the disk under a store; end then ends the processes that work on it.
//
// What is read of them after the cut has begun does not count as printed. Where the plug is really
// pulled nobody is there to read it; and the kernel's shutdown is not as clean as a plug: a sync
// that is under way meanwhile may return success although its data is gone. (A bare loop of write
// and fdatasync shows that in some of a hundred shutdowns.)
func (w *world) cut(t *testing.T, d *disk, end func()) {
	t.Helper()
	began := time.Now()
	if err := d.pull(); err != nil {
		t.Fatal(err)
	}
	w.notes = append(w.notes, fmt.Sprintf("%d plug pulled", began.UnixNano()))
	end()
	n := w.pub.forget(began) + w.ack.forget(began)
	w.notes = append(w.notes, fmt.Sprintf("%d lines read after the cut had begun", n))
}

// command runs a program to its end.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// unmount unmounts a file system, which a process that was just killed may still hold for a moment.
// It runs in cleanups too, where the test's context has ended.
func unmount(dir string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var err error
	for range 1000 {
		if err = syscall.Unmount(dir, 0); !errors.Is(err, syscall.EBUSY) {
			break
		}
		<-tick.C
	}
	if errors.Is(err, syscall.EBUSY) {
		err = errors.Join(fmt.Errorf("unmount %s: %w", dir, err), syscall.Unmount(dir,
			syscall.MNT_DETACH))
	}
	return err
}
