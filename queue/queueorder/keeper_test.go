package queueorder

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ackwise/ackwise/ordering"
)

// A keeper holds what was saved last, over restarts, and has one owner at a time.
func TestKeeperInATable(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{}
	var former ordering.Keeper
	for i := range 4 {
		s := openStore(t, dir)
		k, err := OpenKeeper(t.Context(), s, "numbers")
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		err = k.Load(t.Context(), func(r ordering.Record) error {
			got[r.Name] = string(r.Value)
			return nil
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("loaded %v, %v, want %v", got, err, want)
		}
		err = k.Save(t.Context(), []ordering.Record{{Name: "a", Value: fmt.Append(nil, i)},
			{Name: fmt.Sprint("b", i), Value: []byte{1}}, {Name: fmt.Sprint("b", i-1)},
			{Name: "a", Value: fmt.Append(nil, 10*i)}})
		if err != nil {
			t.Fatal(err)
		}
		want = map[string]string{"a": fmt.Sprint(10 * i), fmt.Sprint("b", i): "\x01"}
		former = k
		if _, err := OpenKeeper(t.Context(), s, "numbers"); err != nil {
			t.Fatal(err)
		}
		err = former.Save(t.Context(), []ordering.Record{{Name: "a", Value: []byte("stale")}})
		if !errors.Is(err, ErrTakenOver) {
			t.Errorf("a keeper that was taken over saves: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
