package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
)

// OnGroupManageError is told why the client is out of the group. It tries to join again, for ever;
// where another consumer has this one's instance, that must not be.
//
// Which of the two has to end is the broker's choice. In the classic protocol the newer one is let
// in and the older one fenced, as if it were the one that had crashed. In KIP-848 the newer one is
// kept out while the older one lives. A consumer that has crashed lives until its session is over:
// its successor waits as long.
func (g *group) OnGroupManageError(err error) {
	switch {
	case errors.Is(err, kerr.FencedInstanceID):
		g.twice(err, 0)
	case errors.Is(err, kerr.UnreleasedInstanceID):
		if waited := g.keptOut(time.Now()); waited >= g.opts.SessionTimeout {
			g.twice(err, waited)
		}
	}
}

// twice ends the source: another consumer has its instance, waited for so long.
func (g *group) twice(err error, waited time.Duration) {
	g.fail(&ackwise.HintError{
		Err: &instanceError{group: g.opts.Group, instance: g.opts.Instance,
			waited: waited.Round(time.Second), err: err},
		Hint: "give each process an instance of its own, which it keeps when it starts again, or " +
			"leave instance out"})
}

// keptOut returns how long the group has kept this member out.
func (g *group) keptOut(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refused.IsZero() {
		g.refused = now
	}
	return now.Sub(g.refused)
}

// stepOut tells the group that this member is away and may come back, as KIP-848 has it. The
// client's own request does not name the instance, and Kafka refuses it: a restart would then have
// to wait until the session is over.
func (g *group) stepOut(ctx context.Context, member string) error {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Group, req.MemberID, req.MemberEpoch = g.opts.Group, member, away
	req.InstanceID = &g.opts.Instance
	resp, err := req.RequestWith(ctx, g.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// away is the epoch of a member that may come back.
const away = -2

// instanceError ends a source whose instance another consumer has.
type instanceError struct {
	group, instance string
	waited          time.Duration // with KIP-848: for the other one to go
	err             error
}

func (e *instanceError) Error() string {
	why := "has put this consumer out: another one has joined it under the same name"
	if e.waited > 0 {
		why = fmt.Sprintf("has kept this consumer out for %s: another one lives under the same name",
			e.waited)
	}
	return fmt.Sprintf("the group %s %s, instance=%s (%v)", e.group, why, e.instance, e.err)
}
func (e *instanceError) Unwrap() error { return e.err }
func (e *instanceError) Final() bool   { return true }
