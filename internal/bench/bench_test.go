package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue"
)

// tiny are options of a run of a second or two.
func tiny(t *testing.T) Options {
	t.Helper()
	return Options{Dir: filepath.Join(t.TempDir(), "made"), Publishers: []int{1, 16},
		Sizes: []int{0, 300}, Window: 5 * time.Millisecond, Rounds: 2, Subscriptions: 50,
		Keys: 1000, SegmentBytes: 1 << 18}
}

func TestRunMeasuresEverythingAndLeavesNothing(t *testing.T) {
	last, steps := 0.0, 0
	o := tiny(t)
	o.Progress = func(what string, done float64) {
		if what == "" || done < last || done >= 1 {
			t.Errorf("progress %q %v after %v", what, done, last)
		}
		last = done
		steps++
	}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Publish) != 8 || len(r.Latency) != 4 || len(r.ReceiveAck) != 8 || len(r.Scale) != 2 {
		t.Fatalf("got %+v", r)
	}
	if want := 1 + (4+4+8+1+2)*o.Rounds; steps != want {
		t.Errorf("%d steps of progress, want %d", steps, want)
	}
	for i, p := range r.Publish {
		if p.PerSecond <= 0 || p.Growing <= 0 || p.Recycled <= 0 || p.Ratio <= 0 ||
			p.RecycledRatio <= 0 || p.P99 < p.P50 || p.P50 <= 0 || p.P99Ratio <= 0 ||
			p.GrowingP99 <= 0 || p.RecycledP99 <= 0 || p.Start != []string{"cold", "warm"}[i%2] {
			t.Errorf("publish: %+v", p)
		}
	}
	for _, d := range r.ReceiveAck {
		if d.PerSecond <= 0 {
			t.Errorf("receive + ack: %+v", d)
		}
	}
	for _, l := range r.Latency {
		if l.P50 <= 0 || l.P99 < l.P50 {
			t.Errorf("latency: %+v", l)
		}
	}
	if s := r.Steady; s.PerSecond <= 0 || s.Published < s.PerSecond || s.Ratio <= 0 || s.P99 <= 0 {
		t.Errorf("steady state: %+v", s)
	}
	for i, s := range r.Scale {
		want := []Scale{{Of: "subscriptions", Few: 10, Many: 50}, {Of: "keys", Few: 1, Many: 1000}}[i]
		if s.Of != want.Of || s.Few != want.Few || s.Many != want.Many || s.Cost <= 0 ||
			s.FewPerSec <= 0 || s.ManyPerSec <= 0 {
			t.Errorf("large numbers: %+v", s)
		}
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRunAgainstNothing(t *testing.T) {
	o := tiny(t)
	o.Against, o.Rounds, o.Publishers, o.Sizes = AgainstNone, 1, []int{2}, []int{10}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Publish {
		if p.PerSecond <= 0 || p.P99 <= 0 || p.Ratio != 0 || p.Growing != 0 || p.RecycledP99 != 0 {
			t.Errorf("publish: %+v", p)
		}
	}
	if r.Against != AgainstNone || r.Steady.PerSecond <= 0 || r.Steady.Ratio != 0 {
		t.Errorf("against %s, steady state: %+v", r.Against, r.Steady)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	enough := errors.New("enough")
	parts := []string{"writing", "publish", "steady", "receive", "latency", "10 to", "1 to"}
	for _, part := range parts {
		dir := t.TempDir()
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := false
		o := tiny(t)
		o.Dir, o.Publishers, o.Sizes, o.Rounds = dir, []int{2}, []int{10}, 1
		o.Progress = func(what string, _ float64) {
			if strings.HasPrefix(what, part) {
				stopped = true
				cancel(enough)
			}
		}
		_, err := Run(ctx, o)
		if !stopped || !errors.Is(err, enough) {
			t.Errorf("%s: stopped %t, got %v", part, stopped, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", part, left, err)
		}
	}
}

func TestOptionsAreRefusedAllAtOnce(t *testing.T) {
	_, err := Run(t.Context(), Options{Dir: t.TempDir(), Rounds: -1, Window: -1,
		Publishers: []int{0}, Sizes: []int{-1}, Against: "x", Subscriptions: -1, Keys: -1,
		SegmentBytes: 1})
	for _, field := range []string{"Rounds", "Window", "Publishers", "Sizes", "Against",
		"Subscriptions", "Keys", "SegmentBytes"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

const logName = "d/log"

func create(t *testing.T, fs vfs.FS) vfs.File {
	t.Helper()
	if err := fs.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(logName)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The bare log writes what it says, and answers no publish before a sync that came after its write.
func TestBareLogWritesEveryRecordAndSyncs(t *testing.T) {
	mem := vfs.NewMem()
	block := make(chan struct{})
	fault := &vfs.Fault{Op: vfs.OpSync, N: 1, Block: block}
	fs := vfs.NewFaults(mem, fault)
	log := newBareLog(create(t, fs), 0)
	const publishers, each, recordBytes = 32, 50, 10
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if err := log.publish([]byte{byte(p), byte(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for waiting := 0; fs.Fired(fault) == 0 || waiting == 0; runtime.Gosched() {
		log.mu.Lock() // until some wait behind the first sync: they become one group
		waiting = len(log.pending.buf) / (2 * recordBytes)
		log.mu.Unlock()
	}
	close(block)
	wg.Wait()
	log.close()
	content, err := mem.ReadFile(logName)
	if err != nil {
		t.Fatal(err)
	}
	next := map[byte]byte{}
	for len(content) > 0 {
		n := binary.LittleEndian.Uint32(content)
		body := content[8 : 8+n]
		sum := crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli))
		if binary.LittleEndian.Uint32(content[4:]) != sum || next[body[0]] != body[1] {
			t.Fatalf("record %v, want number %d of its publisher", content[:8+n], next[body[0]])
		}
		next[body[0]]++
		content = content[8+n:]
	}
	for p := range publishers {
		if next[byte(p)] != each {
			t.Errorf("publisher %d: %d records, want %d", p, next[byte(p)], each)
		}
	}
	if w, s := fs.Calls(vfs.OpWrite), fs.Calls(vfs.OpSync); w != s || w >= publishers*each {
		t.Errorf("%d writes and %d syncs for %d records", w, s, publishers*each)
	}
}

func TestBareLogAnswersAfterTheSync(t *testing.T) {
	block := make(chan struct{})
	fault := &vfs.Fault{Op: vfs.OpSync, N: 1, Block: block}
	fs := vfs.NewFaults(vfs.NewMem(), fault)
	log := newBareLog(create(t, fs), 0)
	var released atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := log.publish([]byte("x")); err != nil || !released.Load() {
			t.Errorf("answered before the sync, err %v", err)
		}
	})
	for fs.Fired(fault) == 0 { // until the sync has begun
		runtime.Gosched()
	}
	released.Store(true)
	close(block)
	wg.Wait()
	log.close()
}

func TestBareLogTellsAFailedSync(t *testing.T) {
	fault := &vfs.Fault{Op: vfs.OpSync, N: 2, Err: syscall.EIO}
	fs := vfs.NewFaults(vfs.NewMem(), fault)
	l := load{publishers: 4, window: 20 * time.Millisecond, bodies: [][]byte{{1}}}
	_, err := bare(t.Context(), l, create(t, fs), 0)
	if !errors.Is(err, syscall.EIO) || fs.Fired(fault) != 1 {
		t.Errorf("got %v, the fault fired %d times", err, fs.Fired(fault))
	}
}

func TestBareLogBeginsAgainInAWrittenFile(t *testing.T) {
	mem := vfs.NewMem()
	log := newBareLog(create(t, mem), 30)
	for range 7 {
		if err := log.publish(make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
	}
	log.close()
	if content, err := mem.ReadFile(logName); err != nil || len(content) != 30 {
		t.Errorf("%d bytes, %v; want the 30 of three records", len(content), err)
	}
}

// A receiver that gets a message for the second time must end the measurement.
func TestAckRefusesARepeatedHandOut(t *testing.T) {
	ds := []*ackwise.Delivery{{Cause: ackwise.CauseFailed}}
	if _, err := ack(t.Context(), nil, ds, nil); err == nil {
		t.Error("a second hand-out was measured as work")
	}
}

// A publish that the engine refuses must end the measurement.
func TestRefusedPublishEndsTheMeasurement(t *testing.T) {
	b := &bench{Options: Options{Window: time.Second}, dir: t.TempDir()}
	err := b.withStore(t.Context(), storeOptions{}, func(s *queue.Store) error {
		return publishOne(t.Context(), s, ackwise.Message{Topic: "other"})
	})
	if _, ok := errors.AsType[*ackwise.NotFoundError](err); !ok {
		t.Errorf("got %v", err)
	}
	l := load{publishers: 1, window: 10 * time.Millisecond, bodies: [][]byte{make([]byte, 2<<20)}}
	if _, err := b.engine(t.Context(), l, 0); !errors.Is(err, ackwise.ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, half histogram
	var all []time.Duration
	for i := range 10_000 {
		d := time.Duration(1 << random.IntN(34))
		d += time.Duration(random.Int64N(int64(d)))
		all = append(all, d)
		if i%2 == 0 {
			h.add(d)
		} else {
			half.add(d)
		}
	}
	h.merge(&half)
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		got := h.quantile(q)
		if got > want || float64(got) < 0.96*float64(want) {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	if got := (&histogram{}).quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	h.add(100 * time.Hour) // beyond the last bucket
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v: %v, want %v", c.of, got, c.want)
		}
	}
}
