package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// producer publishes IDs and keeps what it was told: it is the oracle.
type producer struct {
	told map[string]ackwise.Position
	n    int
}

func newProducer() *producer { return &producer{told: make(map[string]ackwise.Position)} }

func (p *producer) message(id string) ackwise.Message {
	return ackwise.Message{Topic: "orders", ID: id, Key: "key", Body: []byte("body of " + id)}
}

// fresh publishes n new IDs in one batch, and reports whether all were accepted.
func (p *producer) fresh(ctx context.Context, s *Store, n int) bool {
	msgs := make([]ackwise.Message, n)
	for i := range msgs {
		msgs[i] = p.message(fmt.Sprintf("id-%08d", p.n))
		p.n++
	}
	all := true
	for _, r := range s.Publish(ctx, msgs) {
		if r.Class != ackwise.ResultAccepted || r.Duplicate {
			all = false
			continue
		}
		p.told[r.ID] = r.Position
	}
	return all
}

// fill publishes n new IDs in small batches, and lets the store write its buckets in between.
func (p *producer) fill(t *testing.T, s *Store, n int) {
	t.Helper()
	for ; n > 0; n -= 50 {
		if !p.fresh(t.Context(), s, min(n, 50)) {
			_ = s.Close() // the bubble ends with nothing left in it
			t.Fatalf("not all of %d new IDs were accepted", p.n)
		}
		synctest.Wait()
	}
}

// check publishes again what the producer was told is accepted: each is a repeat, with the receipt
// of the first copy.
func (p *producer) check(t *testing.T, s *Store) {
	t.Helper()
	var msgs []ackwise.Message
	flush := func() {
		for _, r := range s.Publish(t.Context(), msgs) {
			if r.Class != ackwise.ResultAccepted || !r.Duplicate || r.Position != p.told[r.ID] {
				t.Fatalf("%s again: %+v, want the receipt %s", r.ID, r, p.told[r.ID])
			}
		}
		msgs = msgs[:0]
	}
	for id := range p.told {
		if msgs = append(msgs, p.message(id)); len(msgs) == 4096 {
			flush()
		}
	}
	flush()
}

func bucketFiles(t *testing.T, fs vfs.FS) (names []string) {
	t.Helper()
	all, err := fs.ReadDir("/store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if strings.HasPrefix(name, "dedup-") {
			names = append(names, name)
		}
	}
	return names
}

// A repeat is known after its bucket was closed and written, after the store was closed, killed and
// cut off, and with all of it again.
func TestARepeatIsKnownWhereverItsIDStands(t *testing.T) {
	for _, each := range []int{1, 12, 13, 64, 65, 640, 2000} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			o := Options{bucketIDs: 64, SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16}
			s := openMem(t, mem, o)
			create(t, s, "orders", "billing", SubscriptionOptions{})
			p := newProducer()
			rng := rand.New(rand.NewPCG(uint64(each), 5))
			for _, how := range []string{"open", "closed", "killed", "cut off", "closed"} {
				p.fill(t, s, each)
				p.check(t, s)
				switch how {
				case "closed":
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				case "killed", "cut off":
					after := mem.Clone()
					if how == "cut off" {
						after = mem.CrashClone(rng)
					}
					_ = s.Close()
					mem = after
				case "open":
					continue
				}
				s = openMem(t, mem, o)
				p.check(t, s)
			}
			synctest.Wait()
			if n := len(bucketFiles(t, mem)); (n > 0) != (p.n > 64) {
				t.Errorf("%d IDs, then %d bucket files", p.n, n)
			}
			ts, err := s.Topics(t.Context())
			if err != nil || ts[0].DedupIDs != int64(p.n) || ts[0].Published != int64(p.n) {
				t.Errorf("topic %+v, %v, want %d IDs", ts, err, p.n)
			}
			verify(t, s)
			_ = s.Close()
		})
	}
}

// Hundreds of thousands of IDs over several buckets, and the process is killed.
func TestManyIDsSurviveAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := Options{bucketIDs: 1 << 16, CheckpointBytes: 8 << 20}
		s := openMem(t, mem, o)
		create(t, s, "orders", "billing", SubscriptionOptions{})
		p := newProducer()
		for p.n < 300_000 {
			if !p.fresh(t.Context(), s, 4096) {
				t.Fatal("not all were accepted")
			}
		}
		synctest.Wait()
		after := mem.Clone()
		if n := len(bucketFiles(t, after)); n < 4 {
			t.Errorf("%d bucket files", n)
		}
		_ = s.Close()
		s = openMem(t, after, o)
		p.check(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The disk fails at each call that changes it, and the power goes: no acknowledged ID is forgotten,
// and the store opens.
func TestRepeatsAreKnownAfterPowerCuts(t *testing.T) {
	o := Options{bucketIDs: 16, SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16}
	step, fired := 3, 0
	if long() {
		step = 1
	}
	for n := 1; n < 150; n += step {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(n), 11))
			mem := vfs.NewMem()
			faults := vfs.NewFaults(mem)
			s := openMem(t, faults, o)
			topic := TopicOptions{DedupWindow: time.Minute}
			if err := s.CreateTopic(t.Context(), "orders", topic); err != nil {
				t.Fatal(err)
			}
			fault := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: n, Onward: true, Err: syscall.EIO}
			faults.Set(fault)
			p := newProducer()
			for range 40 {
				p.fresh(t.Context(), s, 1+rng.IntN(40))
				time.Sleep(time.Second) // virtual
			}
			if faults.Fired(fault) > 0 {
				fired++
			}
			for range 3 {
				mem = mem.CrashClone(rng)
				again := openMem(t, mem, o)
				for _, id := range []string{"id-00000000", fmt.Sprintf("id-%08d", p.n-1)} {
					r := again.Publish(t.Context(), []ackwise.Message{p.message(id)})[0]
					if pos, told := p.told[id]; told && (!r.Duplicate || r.Position != pos) {
						t.Errorf("%s: %+v", id, r)
					}
				}
				p.check(t, again)
				defer func() { _ = again.Close() }()
			}
			_ = s.Close()
		})
		if t.Failed() {
			t.Fatalf("call %d", n)
		}
	}
	if fired < 20 {
		t.Errorf("only %d faults fired", fired)
	}
}

// An ID is known to the last moment of the window, and then it is new; the files go.
func TestTheEdgeOfTheDedupWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{bucketIDs: 64})
		err := s.CreateTopic(t.Context(), "orders", TopicOptions{DedupWindow: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		p := newProducer()
		p.fill(t, s, 500)
		time.Sleep(time.Minute - time.Millisecond) // virtual
		p.check(t, s)
		time.Sleep(time.Millisecond) // virtual
		r := publish(t, s, p.message("id-00000000"))[0]
		if r.Duplicate || r.Position == p.told[r.ID] {
			t.Errorf("when the window is over: %+v", r)
		}
		synctest.Wait()
		if names := bucketFiles(t, mem); len(names) != 0 {
			t.Errorf("files %v", names)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A full window refuses new IDs, still knows the old ones, and takes new ones when they are over.
func TestAFullDedupWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem(), Options{bucketIDs: 64})
		err := s.CreateTopic(t.Context(), "orders",
			TopicOptions{DedupWindow: time.Minute, MaxDedupIDs: 200})
		if err != nil {
			t.Fatal(err)
		}
		p := newProducer()
		if p.fresh(t.Context(), s, 250); len(p.told) != 200 {
			t.Fatalf("%d IDs were accepted", len(p.told))
		}
		r := s.Publish(t.Context(), []ackwise.Message{p.message("new")})[0]
		if r.Class != ackwise.ResultRetryable || !errors.Is(r.Err, ackwise.ErrFull) ||
			!strings.Contains(r.Err.Error(), "MaxDedupIDs") {
			t.Errorf("one more: %+v", r)
		}
		_, err = s.Commit(t.Context(), Commit{Publish: []ackwise.Message{p.message("new")}})
		if !errors.Is(err, ackwise.ErrFull) {
			t.Errorf("one more in a transaction: %v", err)
		}
		p.check(t, s)
		time.Sleep(time.Minute) // virtual
		_, err = s.Commit(t.Context(), Commit{Publish: make([]ackwise.Message, 0)})
		if err != nil {
			t.Error(err)
		}
		msgs := make([]ackwise.Message, 201)
		for i := range msgs {
			msgs[i] = p.message(fmt.Sprint("later-", i))
		}
		if _, err = s.Commit(t.Context(), Commit{Publish: msgs}); !errors.Is(err, ackwise.ErrFull) {
			t.Errorf("one more than the bound in one transaction: %v", err)
		}
		if _, err = s.Commit(t.Context(), Commit{Publish: msgs[1:]}); err != nil {
			t.Errorf("as many as the bound: %v", err)
		}
		_ = s.Close()
	})
}

// What a transaction publishes is looked for in closed buckets too.
func TestTransactionsKnowRepeatsInClosedBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem(), Options{bucketIDs: 64})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		p := newProducer()
		p.fill(t, s, 500)
		synctest.Wait()
		again, other := p.message("id-00000007"), p.message("id-00000008")
		rs, err := s.Commit(t.Context(), Commit{Publish: []ackwise.Message{again,
			p.message("new")}})
		if err != nil || !rs[0].Duplicate || rs[0].Position != p.told[again.ID] || rs[1].Duplicate {
			t.Errorf("%+v, %v", rs, err)
		}
		other.Body = []byte("another")
		_, err = s.Commit(t.Context(), Commit{Publish: []ackwise.Message{other}})
		if !errors.Is(err, ackwise.ErrIDConflict) {
			t.Errorf("another body: %v", err)
		}
		r := s.Publish(t.Context(), []ackwise.Message{other})[0]
		if r.Class != ackwise.ResultRejected || !errors.Is(r.Err, ackwise.ErrIDConflict) {
			t.Errorf("another body: %+v", r)
		}
		_ = s.Close()
	})
}

// A topic that is made again under its name knows nothing of what the first one accepted.
func TestADeletedTopicForgetsItsIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{bucketIDs: 64})
		for round := range 3 {
			create(t, s, "orders", "billing", SubscriptionOptions{})
			p := newProducer()
			p.fill(t, s, 500) // none is taken for a repeat
			synctest.Wait()
			if len(bucketFiles(t, mem)) == 0 {
				t.Fatal("no bucket was written")
			}
			if err := s.DeleteTopic(t.Context(), "orders", "test"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if names := bucketFiles(t, mem); len(names) > 0 {
				t.Fatalf("round %d: files %v", round, names)
			}
		}
		_ = s.Close()
		_ = openMem(t, mem, Options{bucketIDs: 64}).Close()
	})
}

// A damaged block refuses the IDs that may stand in it, names the place, and lets all others go on.
func TestADamagedBucketRefusesItsIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{bucketIDs: 512})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		p := newProducer()
		p.fresh(t.Context(), s, 513)
		synctest.Wait()
		name := bucketFiles(t, mem)[0]
		b, err := mem.ReadFile("/store/" + name)
		if err != nil {
			t.Fatal(err)
		}
		b[2*4096+100] ^= 1 // in the second block
		if err := mem.WriteFile("/store/"+name, b); err != nil {
			t.Fatal(err)
		}
		refusals := 0
		for id := range p.told {
			r := s.Publish(t.Context(), []ackwise.Message{p.message(id)})[0]
			if r.Duplicate {
				continue
			}
			damage, ok := errors.AsType[*CorruptionError](r.Err)
			if !ok || damage.Segment != name || damage.Offset != 2*4096 ||
				r.Class != ackwise.ResultRetryable {
				t.Fatalf("%s: %+v", id, r)
			}
			refusals++
		}
		if refusals < 20 || refusals > 200 {
			t.Errorf("%d of %d were refused", refusals, len(p.told))
		}
		refused := 0
		for range 100 { // a filter passes one in a thousand, which may stand in the damaged block
			if !p.fresh(t.Context(), s, 1) {
				refused++
			}
		}
		if refused > 5 {
			t.Errorf("%d of 100 new IDs are refused", refused)
		}
		_ = s.Close()
	})
}

// Many publish the same IDs while buckets are closed and written, and topics are made: each ID is
// accepted once.
func TestConcurrentRepeatsAreAcceptedOnce(t *testing.T) {
	s := open(t, t.TempDir(), Options{bucketIDs: 256}) // never more than wait for the disk
	create(t, s, "orders", "billing", SubscriptionOptions{})
	const each, publishers = 1000, 4
	var mu sync.Mutex
	first := make(map[string]ackwise.Position)
	repeats := make(map[string][]ackwise.Position)
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			p := newProducer()
			for i := 0; i < each; i += 10 {
				msgs := make([]ackwise.Message, 10)
				for j := range msgs {
					msgs[j] = p.message(fmt.Sprint(i + j))
				}
				rs := s.Publish(t.Context(), msgs)
				mu.Lock()
				for _, r := range rs {
					_, twice := first[r.ID]
					switch {
					case r.Class != ackwise.ResultAccepted, !r.Duplicate && twice:
						t.Errorf("%+v", r)
					case r.Duplicate:
						repeats[r.ID] = append(repeats[r.ID], r.Position)
					default:
						first[r.ID] = r.Position
					}
				}
				mu.Unlock()
			}
		})
	}
	for i := range 20 {
		if err := s.CreateTopic(t.Context(), fmt.Sprint("other-", i), TopicOptions{}); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	for id, positions := range repeats {
		for _, pos := range positions {
			if pos != first[id] {
				t.Errorf("%s was accepted at %s, a repeat says %s", id, first[id], pos)
			}
		}
	}
	if len(first) != each {
		t.Errorf("%d IDs were accepted", len(first))
	}
}

// A disk that takes no buckets for a while: publish is refused with the reason in the end, nothing
// is forgotten, and all goes on by itself.
func TestBucketsThatTheDiskRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := vfs.NewFaults(vfs.NewMem())
		s := openMem(t, faults, Options{bucketIDs: 64})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		fault := &vfs.Fault{Op: vfs.OpCreate, N: 1, Onward: true, Err: syscall.EIO}
		faults.Set(fault)
		p := newProducer()
		for range 20 {
			p.fresh(t.Context(), s, 64)
			synctest.Wait()
		}
		r := s.Publish(t.Context(), []ackwise.Message{p.message("new")})[0]
		if r.Class != ackwise.ResultRetryable || !errors.Is(r.Err, ackwise.ErrFull) ||
			!errors.Is(r.Err, syscall.EIO) || faults.Fired(fault) == 0 {
			t.Errorf("%+v", r)
		}
		p.check(t, s)
		faults.Lift(fault)
		time.Sleep(10 * maintainPause) // virtual
		p.check(t, s)
		if !p.fresh(t.Context(), s, 64) {
			t.Error("the window is still full")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
