package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryContestantGivesBackEveryBody(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	s := settings{dir: dir, messages: 3*batch + 7, rounds: 2, size: 100, seed: 1}
	if err := compare(t.Context(), s, &out); err != nil {
		t.Fatal(err)
	}
	for _, c := range contestants() {
		if !strings.Contains(out.String(), "\n"+c.name) {
			t.Errorf("%s is missing in\n%s", c.name, &out)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// forgetful loses what it is told to lose.
type forgetful struct {
	*backlog
	lost int
}

func (f forgetful) drain(_ context.Context, take func([]byte)) error {
	for i := range f.messages - f.lost {
		take(f.body(i))
	}
	return nil
}

func (f forgetful) Close() error { return nil }

func TestALostMessageEndsTheRun(t *testing.T) {
	for lost := range 2 {
		c := contestant{"forgetful", func(_ context.Context, _ string, b *backlog) (store, error) {
			return forgetful{b, lost}, nil
		}}
		b := &backlog{messages: 10, bodies: [][]byte{{1}}}
		_, err := measure(t.Context(), c, filepath.Join(t.TempDir(), "store"), b)
		if (err != nil) != (lost > 0) {
			t.Errorf("%d lost: %v", lost, err)
		}
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := settings{dir: t.TempDir(), messages: 10, rounds: 1, size: 1}
	if err := compare(ctx, s, &strings.Builder{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
