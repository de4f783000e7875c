package kill

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// stateOf returns the state letter of a process as the kernel tells it; "" = unknown.
func stateOf(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	return string(f[0])
}

// TestFrozenOwner halts the owner under load for less than a lease, for about one, and for longer.
// Nothing is lost, and nothing is done again that was not in flight.
func TestFrozenOwner(t *testing.T) {
	t.Parallel()
	if stateOf(os.Getpid()) == "" {
		t.Skip("needs /proc to see that a process is halted")
	}
	t.Logf("repeat with: go test ./test/kill -run TestFrozenOwner -seed %d", *seed)
	for i, d := range []time.Duration{200 * time.Millisecond, 900 * time.Millisecond,
		2600 * time.Millisecond} {
		t.Run(fmt.Sprintf("for %s", d), func(t *testing.T) {
			p := newPair(newWorld(t), rand.New(rand.NewPCG(*seed, uint64(1000+i))))
			p.start(t)
			until(t, "acks are printed", func() bool { return p.ack.count() > len(p.lines)/10 })
			var owner *process
			until(t, "there is an owner", func() bool {
				owner = p.owner()
				return owner != nil
			})
			owner.signal(syscall.SIGSTOP)
			until(t, "it is halted", func() bool { return stateOf(owner.cmd.Process.Pid) == "T" })
			busy, acked := p.inFlight(t), p.ack.count()
			if p.undone() == 0 {
				t.Fatal("the work was done before the owner was halted")
			}
			pass(t, d)
			if got := stateOf(owner.cmd.Process.Pid); got != "T" {
				t.Fatalf("the owner's state is %q, want T", got)
			}
			owner.signal(syscall.SIGCONT)
			p.finish(t)
			p.judge(t)
			_, again := p.journal.count()
			t.Logf("%s: %s halted after %d acks with %d in flight, then %d done again", p, owner.name,
				acked, busy, again)
			if again > p.conc || d < time.Second/2 && again > 0 {
				t.Errorf("%d messages were done again, with %d in flight at most", again, p.conc)
			}
		})
	}
}

// TestStartTogether starts both processes at the same instant on a directory that does not exist,
// again and again: one becomes the owner, neither fails.
func TestStartTogether(t *testing.T) {
	t.Parallel()
	n := 5
	if long() {
		n = 50
	}
	owners := map[string]int{}
	for i := range n {
		w := newWorld(t)
		p := &pair{world: w, rng: rand.New(rand.NewPCG(*seed, uint64(i))), batch: 256, conc: 4}
		p.lines = w.add(50, 5)
		p.start(t)
		until(t, "there is an owner", func() bool {
			if o := p.owner(); o != nil {
				owners[o.name]++
				return true
			}
			return p.undone() == 0
		})
		p.finish(t)
		p.judge(t)
	}
	t.Logf("who became the owner: %v", owners)
}
