package lambdahost

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise/internal/pause"
)

// Shard is a shard of a stream.
type Shard struct{ ID, Parent string }

// Record is one record of a shard.
type Record struct {
	Sequence string          // its sequence number, the identifier that an answer names
	Key      string          // the item's key: Mapping.Parallel keeps its order
	Time     time.Time       // when it was written, for Mapping.MaxAge
	Data     json.RawMessage // the element of Records
}

// Shards reads a stream.
type Shards interface {
	// Shards returns the shards that there are.
	Shards(ctx context.Context) ([]Shard, error)
	// Read returns records of a shard after a sequence number, "" for its begin, in order, and
	// whether the shard is closed and has no more.
	Read(ctx context.Context, shard, after string, max int) ([]Record, bool, error)
}

// RunStream feeds the function with the stream until ctx ends. A shard begins when its parent has
// ended. The checkpoints are kept in memory.
func (m Mapping) RunStream(ctx context.Context, s Shards) error {
	m = m.withDefaults(100)
	p := &stream{m: m, shards: s, done: map[string]bool{}}
	begun := map[string]bool{}
	var wg sync.WaitGroup // one goroutine a shard, ended by the shard or ctx
	defer wg.Wait()
	for ctx.Err() == nil {
		all, err := s.Shards(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("list the shards: %w", err)
		}
		for _, sh := range all {
			waits := sh.Parent != "" && !p.ended(sh.Parent) &&
				slices.ContainsFunc(all, func(o Shard) bool { return o.ID == sh.Parent })
			if begun[sh.ID] || waits {
				continue
			}
			begun[sh.ID] = true
			wg.Go(func() { p.shard(ctx, sh.ID) })
		}
		pause.For(ctx, m.Pause)
	}
	return nil
}

type stream struct {
	m      Mapping
	shards Shards

	mu   sync.Mutex // guards done
	done map[string]bool
}

func (p *stream) ended(shard string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done[shard]
}

// shard reads a shard in order and gives each record to the lane of its key.
func (p *stream) shard(ctx context.Context, id string) {
	lanes := make([]chan []Record, p.m.Parallel)
	var wg sync.WaitGroup // one goroutine a lane, ended by its channel
	for i := range lanes {
		lanes[i] = make(chan []Record, 1)
		wg.Go(func() { p.lane(ctx, id, lanes[i]) })
	}
	after := ""
	for ctx.Err() == nil {
		records, end, err := p.shards.Read(ctx, id, after, p.m.BatchSize)
		read := make([][]Record, len(lanes))
		for _, r := range records {
			n := laneOf(r.Key, len(lanes))
			read[n] = append(read[n], r)
			after = r.Sequence
		}
		for n, part := range read {
			if len(part) == 0 {
				continue
			}
			select {
			case lanes[n] <- part:
			case <-ctx.Done():
			}
		}
		if err == nil && end {
			break
		}
		if len(records) == 0 { // an error passes, or the test's time is over
			pause.For(ctx, p.m.Pause)
		}
	}
	for _, l := range lanes {
		close(l)
	}
	wg.Wait()
	p.mu.Lock()
	p.done[id] = ctx.Err() == nil
	p.mu.Unlock()
}

func laneOf(key string, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum32() % uint32(n))
}

// lane gathers batches and delivers them one after another. in has what each read has brought.
func (p *stream) lane(ctx context.Context, shard string, in <-chan []Record) {
	for batch := range in {
		for len(batch) > 0 {
			batch = p.gather(ctx, batch, in)
			n := min(len(batch), p.m.BatchSize)
			p.deliver(ctx, shard, batch[:n:n])
			batch = batch[n:]
		}
	}
}

// gather adds to a batch what comes until it is full, or the window is over.
func (p *stream) gather(ctx context.Context, batch []Record, in <-chan []Record) []Record {
	window := time.NewTimer(p.m.Window)
	defer window.Stop()
	for len(batch) < p.m.BatchSize {
		select {
		case more, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, more...)
			continue
		default:
		}
		select {
		case more, ok := <-in:
			if !ok {
				return batch
			}
			batch = append(batch, more...)
		case <-window.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// deliver tries a batch, and what is left of it, until all is done or discarded.
func (p *stream) deliver(ctx context.Context, shard string, batch []Record) {
	todo := []attempt{{records: batch}}
	for len(todo) > 0 && ctx.Err() == nil {
		a := &todo[0]
		if p.dropOld(shard, a); len(a.records) == 0 {
			todo = todo[1:]
			continue
		}
		v := p.try(ctx, a.records)
		at := a.lowest(v)
		switch {
		case ctx.Err() != nil:
			return
		case at == len(a.records):
			todo = todo[1:]
			continue
		case at > 0: // the checkpoint moves: what is left has been tried once
			*a = attempt{records: a.records[at:], tries: 1}
		default:
			a.tries++
		}
		switch {
		case v.whole && p.m.Bisect && len(a.records) > 1: // a split spends no attempt
			half, tries := len(a.records)/2, a.tries-1
			todo = append([]attempt{{records: a.records[:half], tries: tries},
				{records: a.records[half:], tries: tries}}, todo[1:]...)
		case p.m.MaxAttempts > 0 && a.tries >= p.m.MaxAttempts:
			p.discard(shard, "RetryAttemptsExhausted", a.records, a.tries)
			todo = todo[1:]
			continue
		}
		pause.For(ctx, p.m.Pause)
	}
}

// attempt is a batch with the attempts that failed.
type attempt struct {
	records []Record
	tries   int
}

// lowest returns the index of the first record that is not done.
func (a *attempt) lowest(v verdict) int {
	if v.whole {
		return 0
	}
	i := slices.IndexFunc(a.records, func(r Record) bool { return v.failed[r.Sequence] })
	if i < 0 {
		return len(a.records)
	}
	return i
}

func (p *stream) try(ctx context.Context, records []Record) verdict {
	data, ids := make([]json.RawMessage, len(records)), make([]string, len(records))
	for i, r := range records {
		data[i], ids[i] = r.Data, r.Sequence
	}
	e, err := event(data)
	if err != nil {
		return verdict{whole: true, why: err}
	}
	body, err := p.m.Invoke(ctx, e)
	return p.m.judge(body, err, ids)
}

// dropOld discards the records that are too old; they are the first ones.
func (p *stream) dropOld(shard string, a *attempt) {
	if p.m.MaxAge == 0 {
		return
	}
	n := 0
	for n < len(a.records) && time.Since(a.records[n].Time) > p.m.MaxAge {
		n++
	}
	if n > 0 {
		p.discard(shard, "RecordAgeExceeded", a.records[:n], a.tries)
		a.records = a.records[n:]
	}
}

func (p *stream) discard(shard, condition string, records []Record, tries int) {
	p.m.Discarded(Discarded{Condition: condition, Shard: shard, First: records[0].Sequence,
		Last: records[len(records)-1].Sequence, Records: len(records), Attempts: tries})
}
