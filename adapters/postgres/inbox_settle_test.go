package postgres

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// moody is a source that answers what it has for each token, in turn; then nil.
type moody struct {
	ackwise.Source
	says  map[ackwise.LeaseToken][]error
	calls int
}

func (m *moody) Settle(_ context.Context, s []ackwise.Settlement) []ackwise.SettleResult {
	m.calls++
	results := make([]ackwise.SettleResult, len(s))
	for i := range s {
		if say := m.says[s[i].Token]; len(say) > 0 {
			results[i].Err, m.says[s[i].Token] = say[0], say[1:]
		}
	}
	return results
}

// TestAnAckIsTriedAgain: what may pass is asked for again, what is final is not, and nothing is
// asked for twice that was answered.
func TestAnAckIsTriedAgain(t *testing.T) {
	moved := errors.New("the group is being rebalanced")
	acks := []ackwise.Settlement{{Token: "done"}, {Token: "later"}, {Token: "lost"}}
	t.Run("passes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			src := &moody{says: map[ackwise.LeaseToken][]error{
				"done": {nil, errors.New("asked for again")}, "later": {moved, moved},
				"lost": {ackwise.ErrLeaseLost}}}
			errs := settleAll(t.Context(), src, acks)
			if errs[0] != nil || errs[1] != nil || !errors.Is(errs[2], ackwise.ErrLeaseLost) ||
				src.calls != 3 {
				t.Errorf("%v after %d calls", errs, src.calls)
			}
		})
	})
	t.Run("does not pass", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			src := &moody{says: map[ackwise.LeaseToken][]error{}}
			for range 100 {
				src.says["later"] = append(src.says["later"], moved)
			}
			begin := time.Now()
			errs := settleAll(ctx, src, acks)
			if errs[0] != nil || !errors.Is(errs[1], moved) || time.Since(begin) != 10*time.Second ||
				src.calls < 10 || src.calls > 20 {
				t.Errorf("%v after %d calls and %s", errs, src.calls, time.Since(begin))
			}
		})
	})
}
