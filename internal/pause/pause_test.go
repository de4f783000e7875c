package pause_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise/internal/pause"
)

func TestFor(t *testing.T) {
	for name, c := range map[string]struct {
		d, ends time.Duration // ends: of the context, 0 = before
		want    bool
		took    time.Duration
	}{
		"the time is over":            {time.Hour, 2 * time.Hour, true, time.Hour},
		"the context ends":            {time.Hour, time.Minute, false, time.Minute},
		"the context has ended":       {time.Hour, 0, false, 0},
		"no time":                     {0, time.Hour, true, 0},
		"no time, the context ended":  {0, 0, false, 0},
		"less, and the context ended": {-1, 0, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), c.ends)
				defer cancel()
				start := time.Now()
				got := pause.For(ctx, c.d)
				if took := time.Since(start); got != c.want || took != c.took {
					t.Errorf("%v after %v, want %v after %v", got, took, c.want, c.took)
				}
			})
		})
	}
}
