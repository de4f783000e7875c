package kill

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// smallSegments has the log go on in a new file, and a checkpoint taken, many times in a round.
const smallSegments = 256 << 10

// plugs counts what the pulled plugs hit.
type plugs struct {
	pulled     int // under load
	publishing int // of those: with lines given to a publisher and not printed
	acking     int // of those: with handled messages whose ack was not printed
	reopening  int // pulled again after that, while a process held the directory to open it
	midOpen    int // of those: before it served
	small      int // rounds with small segments
	segments   int // by how many the log grew in the rounds, up to the plug
	checks     int // checkpoints taken in the rounds, up to the plug
	opens      spread
}

// powered is a store on a disk whose plug is pulled again and again, and those who work on it.
type powered struct {
	*world
	disk  *disk
	rng   *rand.Rand
	sum   *plugs
	small bool
	owner *owner  // with small segments; the command's processes are its clients then
	pairs []*pair // each has keys of its own; some have a consumer

	lines, printed, acked int // of this round, and what was printed before it
}

// TestPulledPlugs pulls the plug of the store's disk under load, again and again, also while the
// store is opened afterwards. What was printed as published is still there each time, what was
// printed as acked does not come back, keys keep their order, and the books and the log agree.
func TestPulledPlugs(t *testing.T) {
	n := 3
	if long() {
		n = 50
	}
	if *rounds > 0 {
		n = *rounds
	}
	t.Logf("repeat with: go test ./test/kill -run 'TestPulledPlugs$' -seed %d -rounds %d", *seed, n)
	w, d, sum := newWorld(t), newDisk(t, 512<<20), &plugs{}
	w.dir = filepath.Join(d.dir, "store")
	begin := time.Now()
	for i := range n {
		p := &powered{world: w, disk: d, rng: rand.New(rand.NewPCG(*seed, uint64(i))), sum: sum}
		if !t.Run(fmt.Sprintf("round %d", i), p.round) {
			t.Fatalf("round %d of -seed %d failed", i, *seed)
		}
	}
	t.Logf("%d plugs pulled under load in %s: %d with publishes in flight, %d with handled messages "+
		"in flight, %d with small segments (the log grew by %d of them, %d checkpoints); pulled again "+
		"while opening: %d, %d of them before it served (opening took %s); %d messages printed as "+
		"published, %d acks printed, none lost", sum.pulled, time.Since(begin).Round(time.Second),
		sum.publishing, sum.acking, sum.small, sum.segments, sum.checks, sum.reopening, sum.midOpen,
		sum.opens, len(texts(w.pub)), len(texts(w.ack)))
	if sum.pulled != n || sum.publishing == 0 || sum.acking == 0 {
		t.Error("no plug was pulled with messages in flight")
	}
	if n >= 10 && (sum.segments == 0 || sum.checks == 0 || sum.midOpen == 0) {
		t.Error("no plug was pulled among new segments and checkpoints, or while opening")
	}
}

// round pulls the plug once under load, and looks at what is left.
func (p *powered) round(t *testing.T) {
	begin := time.Now()
	p.draw()
	segments, checks := p.files()
	p.start(t)
	p.moment(t)
	later, laterChecks := p.files()
	p.sum.segments += max(0, later-segments)
	for name := range laterChecks {
		if !checks[name] {
			p.sum.checks++
		}
	}
	p.pull(t)
	p.powerOn(t)
	p.look(t)
	p.finish(t)
	p.judge(t)
	t.Logf("%s: %s", p, time.Since(begin).Round(time.Millisecond))
}

// draw draws the circumstances of a round.
func (p *powered) draw() {
	p.disk.options = []string{"", "noauto_da_alloc", "noauto_da_alloc,data=writeback"}[p.rng.IntN(3)]
	p.small = p.rng.IntN(2) == 0
	p.printed, p.acked = p.pub.count(), p.ack.count()
	for range 1 + p.rng.IntN(4) {
		one := &pair{world: p.world, rng: p.rng, batch: 1 + p.rng.IntN(64), syncAcks: true,
			conc: 1 + p.rng.IntN(24)}
		if p.small {
			one.bodyBytes = p.rng.IntN(4000)
		}
		p.pairs = append(p.pairs, one)
	}
	before, keys := len(p.inputs), 1+p.rng.IntN(40)
	fresh := p.add(300+p.rng.IntN(1200), keys*len(p.pairs))
	for i, m := range fresh {
		// A key's lines all go to one publisher, so that they keep their order.
		one := p.pairs[(before+i)%len(p.pairs)]
		one.lines = append(one.lines, m)
	}
	p.lines = len(fresh)
}

func (p *powered) String() string {
	return fmt.Sprintf("%d messages, %d publishers, small segments %t, mount options %q", p.lines,
		len(p.pairs), p.small, p.disk.options)
}

// start starts everybody. The first pair has a consumer, and sometimes the second.
func (p *powered) start(t *testing.T) {
	t.Helper()
	if p.small {
		p.sum.small++
		p.startOwner(t)
	}
	starts := []func(){func() { p.pairs[0].startConsumer(t) }}
	if len(p.pairs) > 1 && p.rng.IntN(2) == 0 {
		starts = append(starts, func() { p.pairs[1].startConsumer(t) })
	}
	for _, one := range p.pairs {
		starts = append(starts, func() { one.startPublisher(t) })
	}
	p.rng.Shuffle(len(starts), func(i, j int) { starts[i], starts[j] = starts[j], starts[i] })
	for _, start := range starts {
		start()
	}
}

func (p *powered) startOwner(t *testing.T) {
	t.Helper()
	p.owner = startOwner(t, ownerOptions{Dir: p.dir, SegmentBytes: smallSegments})
	p.note("owner %d started", p.owner.cmd.Process.Pid)
	p.owner.begins(t, p.dir)
	begin := time.Now()
	p.owner.serves(t)
	p.sum.opens = append(p.sum.opens, time.Since(begin))
}

// running are the processes at work.
func (p *powered) running() []*process {
	var all []*process
	if p.owner != nil {
		all = append(all, p.owner.process)
	}
	for _, one := range p.pairs {
		for _, c := range []*process{one.publisher, one.consumer} {
			if c != nil {
				all = append(all, c)
			}
		}
	}
	return all
}

// unprinted is how many lines of the round are not printed as published.
func (p *powered) unprinted() int { return p.lines - (p.pub.count() - p.printed) }

// unacked is how many lines of the round are not printed as acked.
func (p *powered) unacked() int { return p.lines - (p.ack.count() - p.acked) }

// moment waits for a random moment of the work, before its end.
func (p *powered) moment(t *testing.T) {
	t.Helper()
	left := p.unprinted
	if p.rng.IntN(3) == 0 {
		left = p.unacked
	}
	target := 1 + p.rng.IntN(p.lines)
	until(t, "the processes go on", func() bool { return left() <= target })
	pass(t, time.Duration(p.rng.IntN(3000))*time.Microsecond)
}

// pull pulls the plug. Half of the time the processes then go on for a moment on a dead disk.
func (p *powered) pull(t *testing.T) {
	t.Helper()
	p.sum.pulled++
	if p.unprinted() > 0 {
		p.sum.publishing++
	}
	if slices.ContainsFunc(p.pairs, func(one *pair) bool { return one.inFlight(t) > 0 }) {
		p.sum.acking++
	}
	after := time.Duration(p.rng.IntN(2)*p.rng.IntN(200)) * time.Millisecond
	p.cut(t, p.disk, func() {
		pass(t, after)
		for _, c := range p.running() {
			c.kill(t)
		}
	})
	p.owner = nil
}

// powerOn mounts the disk again, and sometimes pulls the plug again while the store is opened.
func (p *powered) powerOn(t *testing.T) {
	t.Helper()
	p.disk.plugIn(t)
	for range p.rng.IntN(3) {
		open := startOwner(t, ownerOptions{Dir: p.dir, SegmentBytes: smallSegments})
		open.begins(t, p.dir)
		usual := 20 * time.Millisecond
		if len(p.sum.opens) > 0 {
			usual = slices.Max(p.sum.opens[:min(len(p.sum.opens), 5)])
		}
		pass(t, time.Duration(p.rng.Int64N(int64(usual))))
		if err := p.disk.pull(); err != nil {
			t.Fatal(err)
		}
		p.sum.reopening++
		if open.alive() && !open.prints() {
			p.sum.midOpen++
		}
		p.note("plug pulled while %d opened; it serves: %t", open.cmd.Process.Pid, open.prints())
		open.kill(t)
		p.disk.plugIn(t)
	}
}

// look compares the books with what was printed, before anything is published again.
func (p *powered) look(t *testing.T) {
	t.Helper()
	if p.small {
		p.startOwner(t)
	}
	published, acked := len(texts(p.pub)), len(texts(p.ack))
	if published == 0 && !exists(p.dir) {
		return
	}
	run(t, "", 0, "verify", "--dir", p.dir)
	all := auditAll(t, p.dir)
	if len(all) == 0 && acked == 0 {
		return // the plug came before the subscription
	}
	if len(all) != 1 || !all[0].Balanced || all[0].Accepted < published || all[0].Acked < acked {
		t.Errorf("%d printed as published, %d as acked; the books after the plug: %+v", published,
			acked, all)
	}
}

// finish publishes what was not printed, and consumes what is left.
func (p *powered) finish(t *testing.T) {
	t.Helper()
	for _, one := range p.pairs {
		one.startPublisher(t)
	}
	for _, one := range p.pairs {
		one.publisher.wantExit(t, 0)
	}
	p.pairs[0].startConsumer(t, "--until-empty")
	p.pairs[0].consumer.wantExit(t, 0)
	if p.owner != nil {
		p.owner.close(t)
	}
}

// note remembers what was done, for the report of a fault.
func (p *powered) note(format string, args ...any) { p.pairs[0].note(format, args...) }

// files reads the number of the last segment, and the names of the checkpoints.
func (p *powered) files() (segment int, checkpoints map[string]bool) {
	checkpoints = map[string]bool{}
	entries, _ := os.ReadDir(p.dir) // missing before the first round
	for _, e := range entries {
		var n int
		if _, err := fmt.Sscanf(e.Name(), "%d.log", &n); err == nil {
			segment = max(segment, n)
		}
		if strings.HasPrefix(e.Name(), "checkpoint-") {
			checkpoints[e.Name()] = true
		}
	}
	return segment, checkpoints
}

// TestPlugWithoutSync pulls the plug of a store that never syncs, and shows that the judge sees
// what is lost: messages that were printed as published, and acks that were printed.
func TestPlugWithoutSync(t *testing.T) {
	w, d := newWorld(t), newDisk(t, 256<<20)
	w.dir = filepath.Join(d.dir, "store")
	all := w.add(1000, 10)
	w.publish(t, all[:500]) // by the command, which syncs
	o := startOwner(t, ownerOptions{Dir: w.dir, NoSync: true})
	o.serves(t)
	p := &pair{world: w, syncAcks: true, conc: 8}
	p.startConsumer(t)
	until(t, "acks are printed", func() bool { return w.ack.count() == 500 })
	p.consumer.kill(t)
	w.publish(t, all[500:])
	w.cut(t, d, func() { o.kill(t) })
	d.plugIn(t)
	w.drain(t)
	lost := map[string]int{}
	for _, f := range w.compare(w.handled(t)) {
		lost[f.what]++
	}
	t.Logf("without a sync, the judge found: %v", lost)
	if lost[lostMessage] == 0 || lost[lostAck] == 0 {
		t.Errorf("the judge found %v, want lost messages and lost acks", lost)
	}
}

// TestPlugIsTold pulls the plug of an owner and leaves it alone. It says what the disk says; then
// publish ends with 1, and consume waits for its disk.
func TestPlugIsTold(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*pair, *disk) {
		w, d := newWorld(t), newDisk(t, 256<<20)
		w.dir = filepath.Join(d.dir, "store")
		p := &pair{world: w, batch: 16, conc: 8, syncAcks: true}
		p.lines = w.add(5000, 10)
		return p, d
	}
	end := func(t *testing.T, p *pair, d *disk) {
		d.plugIn(t)
		p.startPublisher(t)
		p.publisher.wantExit(t, 0)
		p.drain(t)
		p.judge(t)
	}
	t.Run("publish", func(t *testing.T) {
		t.Parallel()
		p, d := begin(t)
		p.startPublisher(t)
		until(t, "it prints", func() bool { return p.pub.count() > 100 })
		p.cut(t, d, func() { p.publisher.wantExit(t, 1) })
		p.publisher.wantSaid(t, "input/output error")
		end(t, p, d)
	})
	t.Run("consume", func(t *testing.T) {
		t.Parallel()
		p, d := begin(t)
		p.publish(t, p.lines)
		p.startConsumer(t)
		until(t, "it prints", func() bool { return p.ack.count() > 10 })
		p.cut(t, d, func() {
			until(t, "it says what is wrong", func() bool {
				return strings.Contains(p.consumer.said(), "input/output error")
			})
			if !p.consumer.kill(t) {
				t.Error("it did not wait")
			}
		})
		end(t, p, d)
	})
}
