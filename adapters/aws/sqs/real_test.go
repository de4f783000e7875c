package sqs

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/test/servers"
)

// realServers are the stand-ins for AWS that the tests run against.
func realServers() map[string]string {
	return map[string]string{"elasticmq": "ACKWISE_TEST_ELASTICMQ", "moto": "ACKWISE_TEST_MOTO"}
}

// eachReal runs a test on each server that is there.
func eachReal(t *testing.T, test func(t *testing.T, endpoint string)) {
	for name, variable := range realServers() {
		t.Run(name, func(t *testing.T) {
			address := servers.Address(t, variable)
			t.Parallel()
			test(t, address)
		})
	}
}

func realQueue(name string) string {
	base, fifo := strings.CutSuffix(name, ".fifo")
	name = fmt.Sprintf("%s-%d", base, rand.Uint32())
	if fifo {
		name += ".fifo"
	}
	return name
}

func TestRealFIFO(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, endpoint string) {
		f := &fake{URL: endpoint}
		name := realQueue("fifo.fifo")
		src, snk := openBoth(t, f, name, "")
		holdsTheGroup(t, src, openTestSource(t, f, name, ""), snk)
		// A repeated ID is one message.
		publish(t, snk, keyed("m", "x", "x", "y")...)
		if got := ids(take(t, src, 2)); got != "x y" {
			t.Errorf("got %s", got)
		}
		none(t, src)
	})
}

func TestRealStandard(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, endpoint string) {
		f := &fake{URL: endpoint}
		name := realQueue("q")
		src, snk := openBoth(t, f, name, "&lease=10s")
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		m := ackwise.Message{ID: "1 ü", Key: string(every), Body: every, Headers: []ackwise.Header{
			{Name: "b", Value: every}, {Name: "a", Value: []byte("text <&>\t\n")}, {Name: "a"}}}
		publish(t, snk, m)
		d := take(t, src, 1)[0]
		if d.ID != m.ID || d.Key != m.Key || !bytes.Equal(d.Body, every) || len(d.Headers) != 3 ||
			!bytes.Equal(d.Headers[0].Value, every) || string(d.Headers[1].Value) != "text <&>\t\n" ||
			d.Cause != ackwise.CauseFirst {
			t.Errorf("got %+v, %s", d.Message, d.Cause)
		}
		from := time.Now()
		mustSettle(t, src, ackwise.OutcomeNack, 2*time.Second, d)
		d = take(t, src, 1)[0]
		if d.Cause != ackwise.CauseFailed || d.Attempt != 2 || time.Since(from) < 1500*time.Millisecond {
			t.Errorf("again: %s, attempt %d, after %s", d.Cause, d.Attempt, time.Since(from))
		}
		if r := settle(src, ackwise.OutcomeExtend, 5*time.Second, d)[0]; r.Err != nil {
			t.Error(r.Err)
		}
		late := take(t, src, 1)[0]
		if late.Attempt != 3 || late.Cause != ackwise.CauseUnknown || time.Since(from) < 6*time.Second {
			t.Errorf("after the lease: %s, attempt %d, after %s", late.Cause, late.Attempt,
				time.Since(from))
		}
		wantErr(t, settle(src, ackwise.OutcomeAck, 0, d)[0], ackwise.ErrLeaseLost)
		mustSettle(t, src, ackwise.OutcomeAck, 0, late)
		none(t, src)
	})
}

func TestRealLimits(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, endpoint string) {
		f := &fake{URL: endpoint}
		src, snk := openBoth(t, f, realQueue("q"), "")
		limit := snk.q.maxBytes
		t.Logf("the server's limit is %d", limit)
		fits := ackwise.Message{ID: "1", Body: bytes.Repeat([]byte("b"), limit-17)}
		over := ackwise.Message{ID: "2", Body: bytes.Repeat([]byte("b"), limit-16)}
		wantClasses(t, snk.Publish(t.Context(), []ackwise.Message{fits, over}), "accepted rejected")
		if d := take(t, src, 1)[0]; len(d.Body) != len(fits.Body) {
			t.Errorf("%d bytes came", len(d.Body))
		}
		var missing *ackwise.NotFoundError
		o := snk.o
		o.Name = strings.TrimSuffix(o.Name, o.Name[len(o.Name)-1:]) + "x"
		if _, err := OpenSink(t.Context(), o); !errors.As(err, &missing) || missing.Nearest == "" {
			t.Errorf("got %v", err)
		}
	})
}
