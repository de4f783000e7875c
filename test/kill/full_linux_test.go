package kill

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// askFree is how long the store goes by what it last heard of the free space.
const askFree = 100 * time.Millisecond

// TestDrainWithoutAByte takes the last byte of the disk, before the consumer starts and while it
// works. Publish is refused and says so; the consumer gets and acks everything from the reserve;
// and when space returns, publish goes on by itself.
func TestDrainWithoutAByte(t *testing.T) {
	t.Parallel()
	for name, disk := range map[string]func(t *testing.T) string{
		"tmpfs": func(t *testing.T) string { return mount(t, "96m") },
		"ext4":  func(t *testing.T) string { return newDisk(t, 128<<20).dir },
	} {
		t.Run(name+", full at start", func(t *testing.T) {
			t.Parallel()
			drainFull(t, disk(t), true)
		})
		t.Run(name+", full under way", func(t *testing.T) {
			t.Parallel()
			drainFull(t, disk(t), false)
		})
	}
}

func drainFull(t *testing.T, small string, atStart bool) {
	w := newWorld(t)
	w.dir = filepath.Join(small, "store")
	p := &pair{world: w, batch: 256, conc: 8, syncAcks: true}
	p.lines = w.add(3000, 10)
	w.publish(t, p.lines[:2000])
	if !atStart {
		p.startConsumer(t)
		until(t, "some are done", func() bool { return p.ack.count() >= 200 })
		p.consumer.signal(syscall.SIGSTOP) // so that it has something left to do
		until(t, "it is halted", func() bool { return stateOf(p.consumer.cmd.Process.Pid) == "T" })
	}
	filler := fill(t, small, 1<<40)
	if atStart {
		p.startConsumer(t)
	} else {
		if n := p.ack.count(); n == 2000 {
			t.Fatal("all was acked before the disk was full")
		}
		p.consumer.signal(syscall.SIGCONT)
	}
	filled := time.Now()
	until(t, "the store asks again how much is free", func() bool {
		return time.Since(filled) > 2*askFree
	})
	out, said := run(t, lines(p.lines[2000:]), 1, w.publishArgs("--full-wait", "1ms")...)
	if out != "" || !strings.Contains(said, "full") {
		t.Errorf("publish to a disk without a byte printed %q and said:\n%s", out, said)
	}
	p.startPublisher(t) // it waits for room
	until(t, "all is acked on the full disk", func() bool { return p.ack.count() == 2000 })
	if n := len(texts(w.pub)); n != 2000 || !p.publisher.alive() {
		t.Errorf("%d printed as published on a full disk; publish waits: %t", n, p.publisher.alive())
	}
	if b := audit(t, w.dir); !b.Balanced || b.Accepted != 2000 || b.Acked != 2000 {
		t.Errorf("the books on the full disk: %+v", b)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.finish(t)
	p.publisher.wantSaid(t, "waiting for room")
	w.judge(t)
}
