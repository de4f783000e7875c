package queue

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

// However few keys of a table are asked for, they are the first ones that begin so, in their order.
func TestKeysAreTheFirstOnes(t *testing.T) {
	s := openMem(t, vfs.NewMem(), Options{})
	var c Commit
	var all []string
	for i := range 500 {
		all = append(all, fmt.Sprintf("b%03d", i*7919%500))
	}
	for _, key := range append(slices.Clone(all), "a", "c") {
		c.Writes = append(c.Writes, TableWrite{Table: "t", Key: key, Value: []byte{}})
	}
	if _, err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	for _, max := range []int{1, 2, 3, 100, 499, 500, 501, 1 << 40} {
		got, err := s.Keys(t.Context(), "t", "b", max)
		if want := all[:min(max, len(all))]; err != nil || !slices.Equal(got, want) {
			t.Errorf("at most %d: %d keys from %q on, %v", max, len(got), got[0], err)
		}
	}
	if got, err := s.Keys(t.Context(), "t", "d", 5); err != nil || len(got) > 0 {
		t.Errorf("none begins so: %q, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
