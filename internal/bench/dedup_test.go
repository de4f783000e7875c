package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise/idempotency"
)

func ExampleRunDedup() {
	report, err := RunDedup(context.Background(), DedupOptions{Batches: []int{10}, Workers: 2,
		Window: 5 * time.Millisecond, Rounds: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range report.Dedup {
		fmt.Println(d.Store, d.Keys, "beside", d.Plain, d.ClaimRatio > 0)
	}
	// Output:
	// memory fresh beside map insert true
	// memory duplicate beside map insert true
	// embedded fresh beside publish true
	// embedded duplicate beside publish true
}

// counted is a store that notes how often each key was claimed, completed and inserted.
type counted struct {
	idempotency.Store
	mu                          sync.Mutex // guards the maps
	claimed, completed, inserts map[string]int
}

func (s *counted) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	s.mu.Lock()
	for _, a := range asks {
		s.claimed[a.Key]++
	}
	s.mu.Unlock()
	return s.Store.Claim(ctx, asks)
}

func (s *counted) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	s.mu.Lock()
	for _, c := range claims {
		s.completed[c.Key]++
	}
	s.mu.Unlock()
	return s.Store.Settle(ctx, claims)
}

// countedStore makes counted stores, and keeps them.
func countedStore(all *[]*counted) DedupStore {
	return DedupStore{Name: "counted", Plain: "note",
		Open: func(ctx context.Context, dir string) (*DedupTarget, error) {
			inner, err := memoryStore().Open(ctx, dir)
			if err != nil {
				return nil, err
			}
			s := &counted{Store: inner.Store, claimed: map[string]int{},
				completed: map[string]int{}, inserts: map[string]int{}}
			*all = append(*all, s)
			return &DedupTarget{Store: s, Close: inner.Close,
				Insert: func(_ context.Context, rows []DedupRow) error {
					s.mu.Lock()
					defer s.mu.Unlock()
					for _, r := range rows {
						s.inserts[r.Key]++
					}
					return nil
				}}, nil
		}}
}

func TestRunDedupMeasuresFreshAndDuplicateKeys(t *testing.T) {
	var all []*counted
	dir := t.TempDir()
	last := -1.0
	r, err := RunDedup(t.Context(), DedupOptions{Dir: dir, Stores: []DedupStore{countedStore(&all)},
		Batches: []int{1, 7}, Workers: 3, Window: 3 * time.Millisecond, Rounds: 2,
		Progress: func(what string, done float64) {
			if what == "" || done <= last || done >= 1 {
				t.Errorf("progress %q %v after %v", what, done, last)
			}
			last = done
		}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Dedup) != 3*2*2 || r.Workers != 3 || r.Rounds != 2 {
		t.Fatalf("got %+v", r)
	}
	for i, d := range r.Dedup {
		fresh := i%2 == 0
		if d.Store != []string{"memory", "embedded", "counted"}[i/4] ||
			d.Batch != []int{1, 7}[i/2%2] || d.Keys != []string{"fresh", "duplicate"}[i%2] ||
			d.Claims <= 0 || d.Inserts <= 0 || d.ClaimRatio <= 0 ||
			(d.Completes > 0) != fresh || (d.Both > 0) != fresh || (d.BothRatio > 0) != fresh {
			t.Errorf("got %+v", d)
		}
		if fresh && (d.Both > d.Claims || d.Both > d.Completes) {
			t.Errorf("both are faster than one of them: %+v", d)
		}
	}
	if len(all) != 4 { // 2 batches × 2 rounds
		t.Errorf("%d stores were opened", len(all))
	}
	for _, s := range all {
		again := 0
		for key, n := range s.claimed {
			if s.completed[key] != 1 || n < 1 {
				t.Fatalf("%s was claimed %d times and completed %d times", key, n, s.completed[key])
			}
			if n > 1 {
				again++
			}
		}
		if again == 0 || len(s.inserts) == 0 {
			t.Errorf("%d duplicates, %d inserts", again, len(s.inserts))
		}
		for key, n := range s.inserts {
			if n != 1 {
				t.Fatalf("%s was inserted %d times", key, n)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// wrong is a store that answers otherwise.
type wrong struct {
	idempotency.Store
	claim  func([]idempotency.Answer)
	settle error
}

func (s wrong) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	answers, err := s.Store.Claim(ctx, asks)
	if err == nil && s.claim != nil {
		s.claim(answers)
	}
	return answers, err
}

func (s wrong) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	errs, err := s.Store.Settle(ctx, claims)
	if len(errs) > 0 && s.settle != nil {
		errs[0] = s.settle
	}
	return errs, err
}

// A figure is never of work that was not done.
func TestRunDedupRefusesAWrongAnswer(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil wrong
		want  string
	}{
		{"busy", wrong{claim: func(a []idempotency.Answer) { a[0].Status = idempotency.Busy }},
			"it is busy, want claimed"},
		{"forgets", wrong{claim: func(a []idempotency.Answer) {
			if a[0].Status == idempotency.Done {
				a[0].Status = idempotency.Claimed
			}
		}}, "it is claimed, want done"},
		{"refused", wrong{claim: func(a []idempotency.Answer) {
			a[0] = idempotency.Answer{Err: errors.New("full")}
		}}, "full"},
		{"fence", wrong{settle: idempotency.ErrFence}, "no longer held"},
	} {
		s := DedupStore{Name: "wrong", Open: func(ctx context.Context, dir string) (
			*DedupTarget, error) {
			target, err := memoryStore().Open(ctx, dir)
			if err == nil {
				c.spoil.Store = target.Store
				target.Store = c.spoil
			}
			return target, err
		}}
		_, err := RunDedup(t.Context(), DedupOptions{Dir: t.TempDir(), Stores: []DedupStore{s},
			Batches: []int{2}, Workers: 1, Window: time.Millisecond, Rounds: 1})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDedupOptionsAreRefusedAllAtOnce(t *testing.T) {
	_, err := RunDedup(t.Context(), DedupOptions{Batches: []int{0}, Workers: -1, Rounds: -1,
		Window: 1})
	for _, field := range []string{"Batches", "Workers", "Rounds", "Window"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not in: %v", field, err)
		}
	}
}

func TestKeysAreKnownAfterAKill(t *testing.T) {
	r := runBacklog(t, backlogOptions(t, KindKeys, 3000))
	if r.Suppressed != 1000 || r.Dropped != 3000 || r.DropSeconds <= 0 || r.DropSeconds > 10 {
		t.Errorf("got %+v", r)
	}
}
