package lambdahost

import (
	"context"
	"maps"
	"slices"
)

// Fixed is a stream whose shards are all there, closed and without parents: a fake for tests.
type Fixed map[string][]Record

// Shards returns the shards in the order of their names.
func (f Fixed) Shards(context.Context) ([]Shard, error) {
	var all []Shard
	for _, id := range slices.Sorted(maps.Keys(f)) {
		all = append(all, Shard{ID: id})
	}
	return all, nil
}

// Read returns the records behind one.
func (f Fixed) Read(_ context.Context, shard, after string, max int) ([]Record, bool, error) {
	all := f[shard]
	if i := slices.IndexFunc(all, func(r Record) bool { return r.Sequence == after }); i >= 0 {
		all = all[i+1:]
	}
	n := min(max, len(all))
	return all[:n], n == len(all), nil
}
