package queue

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// crowd is n messages of 1 KiB with the numbers from on as IDs, of which few survive.
type crowd struct{ from, n, every int }

// pass publishes a crowd, in batches, and settles all; each every-th as dead. It takes a checkpoint
// after every batch, and adds up what compaction writes. It returns the IDs of the dead letters.
func (c crowd) pass(t *testing.T, s *Store) (ids []string, rewritten int64) {
	t.Helper()
	const batch = 1000
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	seen := make(map[wal.SegmentID]bool)
	for begin := c.from; begin < c.from+c.n; begin += batch {
		msgs := make([]ackwise.Message, batch)
		for i := range msgs {
			id := fmt.Sprint(begin + i)
			msgs[i] = ackwise.Message{Topic: "orders", ID: id, Body: survivorBody(id)}
		}
		publish(t, s, msgs...)
		for done := 0; done < batch; {
			ds := receive(t, r, batch)
			settlements := make([]ackwise.Settlement, len(ds))
			for i, d := range ds {
				settlements[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
				if (done+i)%c.every == c.every-1 {
					settlements[i].Outcome, settlements[i].Reason = ackwise.OutcomeDead, "poison"
					ids = append(ids, d.ID)
				}
			}
			for _, res := range r.Settle(t.Context(), settlements) {
				if res.Err != nil {
					t.Fatal(res.Err)
				}
			}
			done += len(ds)
		}
		if err := s.takeCheckpoint(); err != nil {
			t.Fatal(err)
		}
		for _, seg := range s.log.Segments() {
			if seg.Sparse && !seen[seg.ID] {
				seen[seg.ID] = true
				rewritten += seg.Bytes
			}
		}
	}
	return ids, rewritten
}

func survivorBody(id string) []byte { return bytes.Repeat([]byte(id+"."), 1024/(len(id)+1)) }

// checkSurvivors compares the dead letters and their bodies with what the test knows.
func checkSurvivors(t *testing.T, s *Store, ids []string) {
	t.Helper()
	letters, err := s.DeadLetters(t.Context(), "orders", "billing", DeadFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range letters {
		got = append(got, l.Message.ID)
		if !bytes.Equal(l.Message.Body, survivorBody(l.Message.ID)) {
			t.Errorf("the body of dead letter %s is another", l.Message.ID)
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("%d dead letters %.100s, want %d", len(got), fmt.Sprint(got), len(ids))
	}
	verify(t, s)
}

func logBytes(s *Store) (total int64, segments int) {
	for _, seg := range s.log.Segments() {
		total += seg.Bytes
		segments++
	}
	return total, segments
}

// A few messages that nobody is done with do not hold the segments in which they came.
func TestMostlyDeadSegmentsAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := Options{SegmentBytes: 1 << 20, CheckpointBytes: 1 << 40}
		s := openMem(t, mem, o)
		create(t, s, "orders", "billing", SubscriptionOptions{})
		ids, rewritten := crowd{0, 30_000, 500}.pass(t, s)
		if total, segments := logBytes(s); total > 5<<20 || segments > 8 {
			t.Errorf("the log of %d live messages takes %d bytes in %d segments", len(ids), total, segments)
		}
		if rewritten == 0 || rewritten > 3<<20 {
			t.Errorf("%d bytes were rewritten for 30 MiB published", rewritten)
		}
		checkSurvivors(t, s, ids)
		crashed := openMem(t, mem.CrashClone(rand.New(rand.NewPCG(1, 1))), o)
		checkSurvivors(t, crashed, ids)
		_ = crashed.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, o)
		checkSurvivors(t, s, ids)
		if n, err := s.Redrive(t.Context(), "orders", "billing", DeadFilter{}, false); err != nil {
			t.Fatal(n, err)
		}
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		for range ids {
			d := receive(t, r, 1)[0]
			if !bytes.Equal(d.Body, survivorBody(d.ID)) {
				t.Errorf("the body of %s is another", d.ID)
			}
			settle(t, r, d, ackwise.OutcomeAck)
		}
		for range 3 {
			if err := s.takeCheckpoint(); err != nil {
				t.Fatal(err)
			}
		}
		if _, segments := logBytes(s); segments > 3 {
			t.Errorf("%d segments are left of nothing", segments)
		}
		_ = s.Close()
	})
}

// What a slow subscription has not read and what is scheduled stays readable too.
func TestCompactionKeepsTheLineAndTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		o := Options{SegmentBytes: 1 << 20, CheckpointBytes: 1 << 40}
		s := openMem(t, mem, o)
		create(t, s, "orders", "billing", SubscriptionOptions{})
		create(t, s, "rare", "slow", SubscriptionOptions{})
		for i := range 10 {
			id := fmt.Sprint("rare", i)
			publish(t, s, ackwise.Message{Topic: "rare", ID: id, Body: survivorBody(id)})
			id = fmt.Sprint("later", i)
			s.Schedule(t.Context(), time.Hour, []ackwise.Message{{Topic: "rare", ID: id,
				Body: survivorBody(id)}})
			crowd{2000 * i, 2000, 1 << 30}.pass(t, s)
		}
		if total, _ := logBytes(s); total > 6<<20 {
			t.Errorf("the log of 20 live messages takes %d bytes", total)
		}
		sparse := slices.ContainsFunc(s.log.Segments(), func(i wal.SegmentInfo) bool { return i.Sparse })
		if !sparse {
			t.Error("nothing was compacted")
		}
		verify(t, s)
		crashed := mem.CrashClone(rand.New(rand.NewPCG(2, 2)))
		_ = s.Close()
		s = openMem(t, crashed, o)
		verify(t, s)
		time.Sleep(2 * time.Hour) // virtual
		r := receiver(t, s, "rare", "slow", ReceiverOptions{})
		for n := 0; n < 20; {
			for _, d := range receive(t, r, 20) {
				if !bytes.Equal(d.Body, survivorBody(d.ID)) {
					t.Errorf("the body of %s is another", d.ID)
				}
				n++
			}
		}
		_ = s.Close()
	})
}

// An ack that is not synced may be lost with the power, and its message is back: compaction must
// not have taken it for dead.
func TestCompactionWaitsForTheSyncOfAcks(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				o := Options{SegmentBytes: 1 << 20, CheckpointBytes: 1 << 40}
				s := openMem(t, mem, o)
				create(t, s, "orders", "billing", SubscriptionOptions{})
				for i := range 3000 {
					id := fmt.Sprint(i)
					publish(t, s, ackwise.Message{Topic: "orders", ID: id, Body: survivorBody(id)})
				}
				r := receiver(t, s, "orders", "billing", ReceiverOptions{})
				ds := receive(t, r, 3000)
				for range 2 {
					if err := s.takeCheckpoint(); err != nil {
						t.Fatal(err)
					}
				}
				var acks []ackwise.Settlement
				for i, d := range ds {
					if i%100 > 0 {
						acks = append(acks, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck})
					}
				}
				r.Settle(t.Context(), acks)
				if err := s.compact(s.marks[0].pos); err != nil {
					t.Fatal(err)
				}
				if !s.log.Segments()[0].Sparse {
					t.Fatal("nothing was compacted")
				}
				again := openMem(t, mem.CrashClone(rand.New(rand.NewPCG(seed, 7))), o)
				verify(t, again)
				_ = again.Close()
				_ = s.Close()
			})
		})
	}
}

// Over many rounds of survivors, few or many, that die at any pace or never, what is copied stays a
// small multiple of what came to be copied, and sparse segments stay few.
func TestPlanCompactionIsAmortised(t *testing.T) {
	const size, head = 1 << 20, 5000
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var rooms []room
		var came, copied int64
		next := wal.SegmentID(1)
		for range 1000 {
			r := room{wal.SegmentInfo{ID: next, Bytes: size}, size / 2} // rich: it parts neighbours
			if rng.IntN(20) > 0 {
				r.live = 1 + rng.Int64N([]int64{2000, 200_000}[seed/2%2])
				came += r.live + head
			}
			rooms = append(rooms, r)
			next++
			if seed%2 == 1 { // what survived dies later
				for i := range rooms {
					rooms[i].live -= rooms[i].live / int64(10+rng.IntN(200))
				}
			}
			for _, w := range planCompaction(rooms, size) {
				at := slices.IndexFunc(rooms, func(r room) bool { return r.segment.ID == w.segments[0].ID })
				sparse := room{wal.SegmentInfo{ID: next, Bytes: w.live + head, Sparse: true}, w.live}
				rooms = slices.Replace(rooms, at, at+len(w.segments), sparse)
				copied += sparse.segment.Bytes
				next++
			}
			checkSparse(t, seed, rooms, size)
		}
		bound := 2.5
		if seed%2 == 1 { // the heads of what is nearly empty count, too
			bound = 8
		}
		if times := float64(copied) / float64(came); times == 0 || times > bound {
			t.Errorf("seed %d: what came was copied %.1f times, at most %v", seed, times, bound)
		}
	}
}

// checkSparse counts small neighbours: in a stretch of sparse segments those below half the size
// become smaller by half from one to the next.
func checkSparse(t *testing.T, seed uint64, rooms []room, size int64) {
	t.Helper()
	var live int64
	small := 0
	for _, r := range append(rooms, room{}) {
		if r.segment.Sparse {
			live += r.live
			if r.live < size/2 {
				small++
			}
			continue
		}
		if bound := 2 + 2*int(live/size) + bits.Len64(uint64(live)); small > bound {
			t.Fatalf("seed %d: %d small sparse segments hold %d bytes", seed, small, live)
		}
		live, small = 0, 0
	}
}
