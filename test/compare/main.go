package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"
)

// batch is how many messages one receive or transaction takes.
const batch = 256

// settings are the flags.
type settings struct {
	dir              string
	messages, rounds int
	size             int
	seed             uint64
	long             bool // refuse to be slower than bbolt
}

func main() {
	var s settings
	flag.StringVar(&s.dir, "dir", "", "make the run's folder here; default: the system's own")
	flag.IntVar(&s.messages, "messages", 500_000, "the backlog")
	flag.IntVar(&s.rounds, "rounds", 3, "repetitions; the median counts")
	flag.IntVar(&s.size, "size", 100, "bytes of a body")
	flag.Uint64Var(&s.seed, "seed", 1, "makes the bodies and the order")
	flag.BoolVar(&s.long, "long", false, "8,000,000 messages, 5 rounds; fail where bbolt is faster")
	flag.Parse()
	if s.long {
		s.messages, s.rounds = 8_000_000, 5
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := compare(ctx, s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// backlog is what every contestant holds.
type backlog struct {
	messages int
	bodies   [][]byte // they take turns
}

func (b *backlog) body(i int) []byte { return b.bodies[i%len(b.bodies)] }

// contestant holds a backlog in a folder of its own. drain gives every body to take, and is what is
// measured.
type contestant struct {
	name string
	open func(ctx context.Context, dir string, b *backlog) (store, error)
}

type store interface {
	drain(ctx context.Context, take func(body []byte)) error
	Close() error
}

func contestants() []contestant {
	return []contestant{
		{"ackwise, no keys", openQueue(0)},
		{"ackwise, 1,000 keys", openQueue(1000)},
		{"bbolt", openBolt},
	}
}

const referee = 2 // bbolt: what the others are compared with

func compare(ctx context.Context, s settings, out io.Writer) (err error) {
	dir, err := os.MkdirTemp(s.dir, "ackwise-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	random := rand.New(rand.NewPCG(s.seed, 0))
	b := &backlog{messages: s.messages, bodies: make([][]byte, 64)}
	for i := range b.bodies {
		b.bodies[i] = make([]byte, s.size)
		for j := range b.bodies[i] {
			b.bodies[i][j] = byte(random.Uint32())
		}
	}
	all := contestants()
	rates, ratios := make([][]float64, len(all)), make([][]float64, len(all))
	for range s.rounds {
		for _, i := range random.Perm(len(all)) {
			rate, err := measure(ctx, all[i], filepath.Join(dir, "store"), b)
			if err != nil {
				return fmt.Errorf("%s: %w", all[i].name, err)
			}
			rates[i] = append(rates[i], rate)
		}
		last := len(rates[referee]) - 1
		for i := range all {
			ratios[i] = append(ratios[i], rates[i][last]/rates[referee][last])
		}
	}
	_, err = fmt.Fprintf(out, "%d messages of %d B, %d at a time, median of %d\n\n%-20s %12s %8s\n",
		s.messages, s.size, batch, s.rounds, "", "messages/s", "ratio")
	for i, c := range all {
		_, e := fmt.Fprintf(out, "%-20s %12.0f %8.2f\n", c.name, median(rates[i]), median(ratios[i]))
		err = errors.Join(err, e)
		if s.long && i < referee && median(ratios[i]) < 1 {
			err = errors.Join(err, fmt.Errorf("%s is slower than bbolt", c.name))
		}
	}
	return err
}

// measure fills a new store and drains it, and returns how many messages a second came out.
func measure(ctx context.Context, c contestant, dir string, b *backlog) (rate float64, err error) {
	s, err := c.open(ctx, dir, b)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("fill: %w", err), os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, s.Close(), os.RemoveAll(dir)) }()
	count, sum := 0, uint64(0)
	begin := time.Now()
	err = s.drain(ctx, func(body []byte) {
		count++
		sum += uint64(crc32.ChecksumIEEE(body))
	})
	elapsed := time.Since(begin)
	if err != nil {
		return 0, fmt.Errorf("drain: %w", err)
	}
	want := uint64(0)
	for i := range b.messages {
		want += uint64(crc32.ChecksumIEEE(b.body(i)))
	}
	if count != b.messages || sum != want {
		return 0, fmt.Errorf("drain: %d of %d messages, sum %x, want %x", count, b.messages, sum, want)
	}
	return float64(count) / elapsed.Seconds(), nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
