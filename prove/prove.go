package prove

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// Variable is the environment variable that has a test repeat one schedule, as the prover printed
// it, instead of trying all; or, as "seed=7 schedules=20000", try others and more.
const Variable = "ACKWISE_PROVE"

// Case is a handler to be proved, and how its effects are seen.
type Case struct {
	// New starts a consumer process: it is called once for each, and once more after each kill, and
	// returns the handler. What it makes is the process's memory, and dies with it; what outlives
	// the process it gets from Keep, or from a database. ctx lasts until the run is over. Required.
	New func(ctx context.Context, w *World) (ackwise.Handler, error)
	// Messages are delivered in this order in the clean run. One without an ID gets m1, m2 and so
	// on by its place. IDs are different. Required.
	Messages []ackwise.Message
	// Effects returns a picture of all that the handler is for, once every message is settled: any
	// value that encoding/json can write. What differs by nature (times of writing, random numbers)
	// is left out. Required.
	Effects func(ctx context.Context, w *World) (any, error)
	// Source opens the session of a consumer process, after its New, at a real source that holds
	// Messages, such as a queue.Receiver of a store that the world keeps. Transactional handlers
	// need one: they are bound to it, and settle there. The source then decides what comes next and
	// why; messages are not delivered late, nor again after an ack. Default: the prover
	// plays the source.
	Source func(ctx context.Context, w *World) (ackwise.Source, error)
	// Want is what Effects shows after the clean run, where that is known: it finds a handler that
	// is wrong without any fault, such as one that takes two messages for one. Default: nil, the
	// clean run is believed.
	Want any
	// Reset makes what the world does not keep fresh before each run, such as the tables of a real
	// database. Default: nothing is to be done.
	Reset func(ctx context.Context, w *World) error
	// Order is what the handler's source promises. With OrderKey, messages of a key are never
	// overtaken: what comes back comes before the later ones of its key, and a position that went
	// back brings those again as well. Default: OrderNone.
	Order ackwise.Order
	// Lease is how far the clock moves when a consumer is killed or stalled: longer than every
	// lease and claim of the handler, shorter than its dedup window. Default: 1 min.
	Lease time.Duration
	// RealTime has the world's clock be the real one, for stores that live on a server: each kill
	// then takes a Lease of real time. Default: a virtual clock, and no waiting.
	RealTime bool
	// Patience is how long, in real time, a handler may neither end nor come to a point. One that
	// waits so long for a consumer which is held has that one go on. Default: 10 s.
	Patience time.Duration
	// Schedules bounds how many are tried. Default: 1000, or 200 with go test -short.
	Schedules int
	// Seed chooses what is tried where not all can be. Default: 1.
	Seed uint64
	// Schedule is the one to try instead of all, as the prover printed it. Default: all. The
	// environment variable ACKWISE_PROVE stands for it, for Seed and for Schedules, see Variable.
	Schedule string
}

// Run proves a handler: it makes a clean run, in which each message is delivered once, and then
// runs the handler under schedules in which messages are delivered again, consumers are killed
// between any two steps, calls fail or lose their answers, and two consumers work at once. It fails
// t on the first schedule that ends with other effects, and prints the shortest one that still
// does and how to repeat it. The same Case prints the same.
func Run(t testing.TB, c Case) {
	t.Helper()
	if c.Schedules == 0 && testing.Short() {
		c.Schedules = shortSchedules
	}
	err := c.read(os.Getenv(Variable))
	var v *verdict
	if err == nil {
		v, err = prove(t.Context(), &c)
	}
	switch {
	case err != nil:
		t.Errorf("prove: %v", err)
	case v.convicted && len(v.schedule) == 0:
		t.Errorf("prove: %s", v.text)
	case v.convicted:
		t.Errorf("prove: %s\nTo repeat it:\n  %s='%s' go test -run '^%s$'", v.text, Variable, v.schedule,
			strings.ReplaceAll(t.Name(), "/", "$/^"))
	default:
		t.Logf("prove: %s", v.text)
	}
}

// Defaults of Case.
const (
	defaultLease     = time.Minute
	defaultPatience  = 10 * time.Second
	defaultSchedules = 1000
	shortSchedules   = 200
)

// read takes what the environment variable says over what the case does.
func (c *Case) read(text string) error {
	var rest []string
	for word := range strings.FieldsSeq(text) {
		name, value, ok := strings.Cut(word, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		switch {
		case !ok:
			rest = append(rest, word)
		case err != nil || name != "seed" && name != "schedules":
			return fmt.Errorf("read %s: %w", Variable, &ackwise.InvalidError{Field: name, Value: value,
				Reason: "a schedule is expected, or seed=NUMBER and schedules=NUMBER"})
		case name == "seed":
			c.Seed = n
		default:
			c.Schedules = int(n)
		}
	}
	if len(rest) > 0 {
		c.Schedule = strings.Join(rest, " ")
	}
	return nil
}

// fill sets defaults and reports every fault of a case at once.
func (c *Case) fill() error {
	c.Lease = cmp.Or(c.Lease, defaultLease)
	c.Patience = cmp.Or(c.Patience, defaultPatience)
	c.Schedules = cmp.Or(c.Schedules, defaultSchedules)
	c.Seed = cmp.Or(c.Seed, 1)
	c.Messages = slices.Clone(c.Messages)
	ids := make(map[string]bool)
	var faults []error
	bad := func(is bool, field, reason string) {
		if is {
			faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
		}
	}
	for i := range c.Messages {
		m := &c.Messages[i]
		m.ID = cmp.Or(m.ID, fmt.Sprintf("m%d", i+1))
		m.Topic = cmp.Or(m.Topic, "proof")
		if err := m.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("message %d: %w", i+1, err))
		}
		bad(ids[m.ID], "Case.Messages", fmt.Sprintf("the ID %q stands there twice", m.ID))
		ids[m.ID] = true
	}
	bad(len(c.Messages) == 0, "Case.Messages", "there are none")
	bad(c.New == nil, "Case.New", "it is needed: it makes the handler")
	bad(c.Effects == nil, "Case.Effects", "it is needed: it shows what the handler has done")
	bad(c.Lease < 0, "Case.Lease", "it is negative")
	bad(c.Patience < 0, "Case.Patience", "it is negative")
	bad(c.Schedules < 0, "Case.Schedules", "it is negative")
	return errors.Join(faults...)
}

// verdict is what proving a case found.
type verdict struct {
	convicted bool
	schedule  schedule // under which it differs; none = the clean run does
	tried     int
	text      string
}

// prove tries a case's schedules. An error says that the case itself cannot be proved.
func prove(ctx context.Context, c *Case) (*verdict, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	p := &proof{c: c}
	if v, err := p.start(ctx); v != nil || err != nil {
		return v, err
	}
	if c.Schedule != "" {
		return p.repeat(ctx)
	}
	return p.all(ctx)
}
