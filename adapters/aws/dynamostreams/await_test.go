package dynamostreams

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/internal/reach"
)

// opened opens a member as the command does, whose first opening is given little time.
func opened(t *testing.T, f *fake, patience time.Duration, create bool) error {
	t.Helper()
	_, err := reach.Within(t.Context(), patience, func(ctx context.Context) (*stream, error) {
		o := options(newBook())
		o.Create = create
		db, streams := clients(&wire{f: f})
		l, err := join(ctx, o, db, streams)
		if err == nil {
			err = l.Close()
		}
		return l, err
	})
	return err
}

// A table that is made takes some seconds, in which it answers as if it were not there. Neither an
// opening that was cut off in these, nor another member that starts in them, takes it for missing.
func TestLeasesThatAreBeingMade(t *testing.T) {
	for name, creates := range map[string]bool{"create": true, "the other one makes nothing": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				delete(f.tables, "leases")
				f.makes, f.behind = 9*time.Second, time.Second
				err := opened(t, f, 5*time.Second, true)
				if err == nil || !reach.Passes(err) || !strings.Contains(err.Error(), "CREATING") {
					t.Fatalf("the first opening, cut off: %v", err)
				}
				if err := opened(t, f, time.Minute, creates); err != nil {
					t.Errorf("the second opening: %v", err)
				}
				if f.fired["described as CREATING"] < 10 || f.calls["CreateTable"] != 1 {
					t.Errorf("%v, %v", f.fired, f.calls)
				}
				j := open(t, f, nil)
				defer j.close(t)
				if id := f.put("a", "1"); j.get(t, 1)[0] != id {
					t.Error("another message came")
				}
			})
		})
	}
}

// Members that start at one time, where nothing is there yet, make the table and enable the stream
// once, and all of them open.
func TestMembersThatCreateAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		leases bool // are there
		met    []string
	}{
		"both":       {false, []string{"described as CREATING", "described as UPDATING"}},
		"the stream": {true, []string{"the stream is not there", "the stream is ENABLING"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				if !c.leases {
					delete(f.tables, "leases")
				}
				f.tables["orders"].stream = false
				f.makes, f.behind = 9*time.Second, 2*time.Second
				var wg sync.WaitGroup
				for i := range 3 {
					wg.Go(func() {
						pause.For(t.Context(), time.Duration(i)*700*time.Millisecond)
						if err := opened(t, f, time.Minute, true); err != nil {
							t.Errorf("member %d: %v", i, err)
						}
						f.mu.Lock()
						defer f.mu.Unlock()
						if left := time.Until(f.tables["orders"].enabled); left > 0 {
							t.Errorf("member %d is open %s before the stream is enabled", i, left)
						}
					})
				}
				wg.Wait()
				for _, want := range c.met {
					if f.fired[want] == 0 {
						t.Errorf("never met: %s: %v", want, f.fired)
					}
				}
			})
		})
	}
}

// Between the description and the change of a table another member may have changed it.
func TestStreamThatAnotherEnables(t *testing.T) {
	for name, takes := range map[string]time.Duration{"busy": 5 * time.Second, "enabled before": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				orders := f.tables["orders"]
				orders.stream = false
				f.fault = func(operation string) faultKind { // f.mu is held
					if operation == "UpdateTable" {
						orders.stream, orders.enabled = true, time.Now().Add(takes)
					}
					return works
				}
				if err := opened(t, f, time.Minute, true); err != nil || f.fired[name] != 1 {
					t.Errorf("%v, %v", err, f.fired)
				}
			})
		})
	}
}

// A table that is made, or changed in another way, takes no change: its stream is enabled after it.
func TestTableThatTakesNoChange(t *testing.T) {
	for _, state := range []string{"CREATING", "UPDATING"} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				orders, ready := f.tables["orders"], time.Now().Add(8*time.Second)
				orders.stream, orders.enabled = false, ready
				if state == "CREATING" {
					orders.made = ready
				}
				err := opened(t, f, 5*time.Second, true)
				if !reach.Passes(err) ||
					!strings.Contains(err.Error(), "the table orders, which is "+state) {
					t.Errorf("cut off: %v", err)
				}
				if err := opened(t, f, time.Minute, true); err != nil || f.fired["busy"] > 0 {
					t.Errorf("%v, %v", err, f.fired)
				}
			})
		})
	}
}

// A table that is made with its stream is not read before it is there.
func TestTableThatIsBeingMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		orders := f.tables["orders"]
		orders.made = time.Now().Add(8 * time.Second)
		if err := opened(t, f, time.Minute, false); err != nil || time.Now().Before(orders.made) {
			t.Errorf("%v, %v", err, f.fired)
		}
	})
}

// The stream of a table that is deleted can be read to its end.
func TestTableThatIsBeingDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.tables["orders"].deleted = time.Now().Add(time.Hour)
		if err := opened(t, f, 5*time.Second, true); err != nil {
			t.Error(err)
		}
	})
}

// A table of leases that is deleted is made anew where that is asked for, and else missing.
func TestLeasesThatAreBeingDeleted(t *testing.T) {
	for name, creates := range map[string]bool{"create": true, "missing": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(1)
				f.tables["leases"].deleted = time.Now().Add(3 * time.Second)
				err := opened(t, f, time.Minute, creates)
				if missing := isMissing(err); missing == creates || creates && err != nil {
					t.Errorf("got %v", err)
				}
				if f.fired["described as DELETING"] == 0 {
					t.Error("it was never described as DELETING")
				}
			})
		})
	}
}

// A table that takes too long is named with its state, and its opening is worth another try.
func TestTableThatIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.tables["leases"].made = time.Now().Add(time.Hour)
		err := opened(t, f, time.Hour, false)
		if !errors.Is(err, context.DeadlineExceeded) || !reach.Passes(err) ||
			!strings.Contains(err.Error(), "the table leases, which is CREATING: it is not ready after 2m") {
			t.Errorf("got %v", err)
		}
		var missing *ackwise.NotFoundError
		o := options(newBook())
		o.Stream = "arn:gone" // a stream that the table does not name is not waited for
		db, streams := clients(&wire{f: f})
		if _, err := join(t.Context(), o, db, streams); !errors.As(err, &missing) {
			t.Errorf("got %v", err)
		}
	})
}
