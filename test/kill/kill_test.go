package kill

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// kind says who is killed.
type kind int

const (
	killPublisher kind = iota
	killConsumer
	killOwner
	killBoth
	kinds
)

func (k kind) String() string { return [kinds]string{"publisher", "consumer", "owner", "both"}[k] }

// tally counts faults where they happen.
type tally struct {
	kills    [kinds]int
	owners   int // kills of any kind that hit the owner
	busy     int // kills with at least one delivery given to the handler and not acked
	looks    int // audits under way
	missed   int // kills that found their target gone, or nothing to do
	handOver spread
	printed  spread
	again    int // how often a message was done beyond the first time
}

// TestKills kills the publisher, the consumer, the owner or both at random moments under load.
func TestKills(t *testing.T) {
	n := 20
	if long() {
		n = 200
	}
	if *rounds > 0 {
		n = *rounds
	}
	t.Logf("repeat with: go test ./test/kill -run 'TestKills$' -seed %d -rounds %d", *seed, n)
	var sum tally
	var w *world
	begin := time.Now()
	for i := range n {
		rng := rand.New(rand.NewPCG(*seed, uint64(i)))
		if i == 0 || rng.IntN(3) == 0 {
			w = newWorld(t)
		}
		p := newPair(w, rng)
		if !t.Run(fmt.Sprintf("round %d", i), func(t *testing.T) { p.round(t, &sum) }) {
			t.Fatalf("round %d of -seed %d failed: %s", i, *seed, p)
		}
	}
	t.Logf("%d rounds in %s, kills: publisher %d, consumer %d, owner %d, both %d (missed %d); "+
		"%d of them hit the owner, %d with handled messages in flight; %d messages done again, "+
		"%d audits under way", n,
		time.Since(begin).Round(time.Second), sum.kills[killPublisher], sum.kills[killConsumer],
		sum.kills[killOwner], sum.kills[killBoth], sum.missed, sum.owners, sum.busy, sum.again, sum.looks)
	t.Logf("from the owner's kill to a new owner: %s", sum.handOver)
	t.Logf("from the owner's kill to the next printed ID: %s", sum.printed)
	for k, count := range sum.kills {
		if n >= 10 && count == 0 {
			t.Errorf("no kill of the kind %s happened in %d rounds", kind(k), n)
		}
	}
	if n >= 10 && (sum.busy == 0 || sum.again == 0) {
		t.Error("no kill hit a message in flight")
	}
	if n >= 10 && sum.owners == 0 {
		t.Error("no kill hit the owner")
	}
}

// round is one run of the pair with one to three kills.
func (p *pair) round(t *testing.T, sum *tally) {
	begin := time.Now()
	_, before := p.journal.count()
	p.start(t)
	for range 1 + p.rng.IntN(3) {
		k := kind(p.rng.IntN(int(kinds)))
		if p.moment(t, k) {
			p.strike(t, k, sum)
		}
	}
	p.finish(t)
	p.judge(t)
	_, again := p.journal.count()
	again -= before
	sum.again += again
	t.Logf("%s: %s, %d done again", p, time.Since(begin).Round(time.Millisecond), again)
}

// moment waits for a random moment of the work that is left. It reports false where the work was
// done before.
func (p *pair) moment(t *testing.T, k kind) bool {
	t.Helper()
	left, more := p.undone, p.consumer
	if k == killPublisher || k == killBoth || k == killOwner && p.rng.IntN(2) == 0 {
		left, more = p.unpublished, p.publisher
	}
	target := p.rng.IntN(left() + 1)
	until(t, "the processes go on", func() bool { return left() <= target || !more.alive() })
	pass(t, time.Duration(p.rng.IntN(3000))*time.Microsecond)
	return p.undone() > 0
}

// strike kills, checks that it did, and starts again what was killed.
func (p *pair) strike(t *testing.T, k kind, sum *tally) {
	t.Helper()
	var victims []*process
	owner := p.owner()
	switch k {
	case killPublisher:
		victims = []*process{p.publisher}
	case killConsumer:
		victims = []*process{p.consumer}
	case killOwner:
		if owner == nil {
			sum.missed++
			return
		}
		victims = []*process{owner}
	case killBoth:
		victims = []*process{p.publisher, p.consumer}
		p.rng.Shuffle(2, func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	case kinds:
	}
	at := time.Now()
	for i, v := range victims {
		if i > 0 { // at once, or just when the second is about to take over
			pass(t, time.Duration(p.rng.IntN(2)*p.rng.IntN(15_000))*time.Microsecond)
		}
		p.note("kill %s %d", v.name, v.cmd.Process.Pid)
		v.signal(syscall.SIGKILL)
	}
	hits, hitOwner := 0, false
	for _, v := range victims {
		if v.kill(t) {
			hits++
			hitOwner = hitOwner || v == owner
		}
	}
	if hits < len(victims) || p.undone() == 0 {
		sum.missed++
	} else {
		sum.kills[k]++
		if p.inFlight(t) > 0 {
			sum.busy++
		}
	}
	if hitOwner {
		sum.owners++
		p.measure(t, at, owner, sum)
	}
	look := p.rng.IntN(4)
	if look == 0 && exists(p.dir) && p.pub.count() > 0 { // a third process, which may be the owner
		p.lookAt(t)
		sum.looks++
	}
	p.revive(t)
	if look == 1 && exists(p.dir) && p.pub.count() > 0 {
		p.lookAt(t)
		sum.looks++
	}
}

// lookAt checks that the books balance under way.
func (p *pair) lookAt(t *testing.T) {
	t.Helper()
	p.note("audit")
	for _, b := range auditAll(t, p.dir) {
		if !b.Balanced || b.Accepted > len(p.inputs) || b.Dead > 0 || b.Dropped > 0 {
			t.Errorf("the books of at most %d messages under way: %+v", len(p.inputs), b)
		}
	}
}

// revive starts again what has ended.
func (p *pair) revive(t *testing.T) {
	t.Helper()
	starts := []func(){
		func() {
			if p.publisher.wasKilled(t) {
				p.startPublisher(t)
			}
		},
		func() {
			if p.consumer.wasKilled(t) {
				p.startConsumer(t)
			}
		},
	}
	first := p.rng.IntN(2)
	starts[first]()
	starts[1-first]()
}

// measure notes how long the other process took to become the owner and to print something, where
// there is one that has work. The killed one is started again only after that.
func (p *pair) measure(t *testing.T, at time.Time, killed *process, sum *tally) {
	t.Helper()
	heir := p.publisher
	if killed == p.publisher {
		heir = p.consumer
	}
	busy := func() bool {
		if heir == p.publisher {
			return heir.alive() && p.window == 0 && p.unpublished() > 0
		}
		done, _ := p.journal.count()
		return heir.alive() && len(texts(p.pub)) > done
	}
	if !busy() {
		return
	}
	until(t, "the other process becomes the owner, or ends", func() bool {
		return ownerOf(p.dir) == heir.cmd.Process.Pid || !heir.alive()
	})
	took, mark := time.Since(at), heir.out.count()
	if !heir.alive() {
		return
	}
	sum.handOver = append(sum.handOver, took)
	until(t, "the new owner prints an ID", func() bool {
		return heir.out.count() > mark || !busy()
	})
	if lines, _ := heir.out.read(); len(lines) > mark {
		sum.printed = append(sum.printed, lines[mark].at.Sub(at))
	}
}
