package bench

import (
	"errors"
	"os"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

func TestGuaranteesAreMeasuredBesideAtLeastOnce(t *testing.T) {
	dir := t.TempDir()
	rounds := map[string]bool{}
	rows, err := RunGuarantees(t.Context(), GuaranteeOptions{Dir: dir, Messages: 300, Keys: 7,
		Rounds: 1, Progress: func(what string) { rounds[what] = true }})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"at-most-once none", "at-least-once none", "at-least-once dedup",
		"exactly-once transaction"}
	if len(rows) != len(want) || len(rounds) != len(want) {
		t.Fatalf("%d rows of %v", len(rows), rounds)
	}
	for i, r := range rows {
		if r.Guarantee+" "+r.Pattern != want[i] || r.PerSecond <= 0 || r.P99 <= 0 ||
			i == 1 != (r.Relative == 1 && r.P99Relative == 1) {
			t.Errorf("row %d is %+v, want %s", i, r, want[i])
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestGuaranteeOptionsOutOfRangeAreRefused(t *testing.T) {
	for _, o := range []GuaranteeOptions{{Messages: 1}, {Keys: -1}, {Rounds: -1},
		{Concurrency: -1}} {
		var invalid *ackwise.InvalidError
		if _, err := RunGuarantees(t.Context(), o); !errors.As(err, &invalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestAGuaranteeWithAWrongSumIsNoFigure(t *testing.T) {
	store, err := queue.Open(t.TempDir(), queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	o := GuaranteeOptions{Messages: 4, Keys: 2} // key 0 gets 0 + 2, key 1 gets 1 + 3
	for _, sums := range [][2]string{{"2", "4"}, {"2", "7"}, {"1", "4"}} {
		_, err := store.Commit(t.Context(), queue.Commit{Writes: []queue.TableWrite{
			{Table: effects, Key: "0", Value: []byte(sums[0])},
			{Table: effects, Key: "1", Value: []byte(sums[1])}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := o.checkSums(store); (err == nil) != (sums == [2]string{"2", "4"}) {
			t.Errorf("sums %q: %v", sums, err)
		}
	}
}
