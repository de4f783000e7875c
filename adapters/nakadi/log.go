package nakadi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// log is the logsource.Log of one subscription. One stream at a time is open; each line of it is
// one event, with a cursor of its own, so that a cursor names the same message at every read.
type log struct {
	o       SourceOptions
	client  *client
	types   *typeCache
	sub     subscription
	notes   Notes
	partial bool // the notes are this process's own

	changes chan logsource.Change
	errs    chan error // one place: what keeps streams from opening
	stop    context.CancelFunc
	work    sync.WaitGroup
	tellMu  sync.Mutex // serializes calls of Observe

	passed map[string]TrimmedError // what was gone of each partition; for run's goroutine only

	mu       sync.Mutex // guards all below; never held during I/O
	stream   *stream    // nil = none is open or draining
	parts    map[string]*part
	released chan struct{} // closed and replaced when a partition is gone; made by begin
}

// part is a partition that this member has.
type part struct {
	kind, name string // event type and partition
	pos        ackwise.Position
	tokens     map[ackwise.Position]string // of the cursors that are not committed
	unsure     ackwise.Position            // up to here a commit got no answer
	note       []byte                      // as it was last read or written
	slow       time.Time                   // since when it is to move; zero = it is not
	since      time.Time                   // when its first line came
	gone       int64                       // events that it has passed over, and Nakadi still counts
}

// stream is one connection, which may still commit for a while after it has ended.
type stream struct {
	id   string
	end  context.CancelFunc
	had  map[string]bool // partitions that it has, or had
	last time.Time       // of the last line
	late bool            // the server said that a commit came too late
	stop bool            // a partition could not be taken in
}

// begin starts to read; Close ends it.
func (l *log) begin() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.released = stop, make(chan struct{})
	l.work.Go(func() { l.run(ctx) })
}

// Bounds of the pause between two streams.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
)

// run opens one stream after the other.
func (l *log) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		began, err := l.runStream(ctx)
		l.drain(ctx)
		if began {
			pause = firstPause
		}
		if ctx.Err() != nil {
			return
		}
		if final(err) {
			l.end(ctx, err)
			return
		}
		l.report(err)
		t := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
		pause = min(2*pause, maxPause)
	}
}

// report lets Poll, and so Receive, return what keeps the stream from opening: a slot that stays
// busy is not waited for in silence.
func (l *log) report(err error) {
	if err == nil {
		return
	}
	if statusOf(err) == http.StatusConflict {
		l.tell("slot-busy", err)
	}
	select {
	case l.errs <- err:
	default: // the one before is still to be told
	}
}

// end tells every Poll from now on what has ended the source. It waits for them: what was reported
// before may still stand in the channel's one place.
func (l *log) end(ctx context.Context, err error) {
	for {
		select {
		case l.errs <- err:
		case <-ctx.Done():
			return
		}
	}
}

// finalError ends the source.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }
func (e *finalError) Final() bool   { return true }

func final(err error) bool {
	_, ok := errors.AsType[*finalError](err)
	return ok
}

// drain lets handlers end what is in flight when a stream has ended: its cursors can be committed
// for a while. Where the server said that it is too late, all is lost at once.
func (l *log) drain(ctx context.Context) {
	l.mu.Lock()
	st := l.stream
	names := slices.Sorted(maps.Keys(l.parts))
	l.mu.Unlock()
	if st == nil {
		return
	}
	deadline := time.Now().Add(l.o.Drain)
	for _, name := range names {
		c := logsource.Change{Kind: logsource.Revoked, Partition: name, Deadline: deadline}
		if st.late {
			c = logsource.Change{Kind: logsource.Lost, Partition: name}
		}
		l.put(ctx, c)
	}
	if !st.late {
		l.awaitRelease(ctx, deadline.Add(time.Second))
	}
	l.mu.Lock()
	left := slices.Sorted(maps.Keys(l.parts))
	clear(l.parts)
	l.stream = nil
	l.mu.Unlock()
	for _, name := range left {
		l.put(ctx, logsource.Change{Kind: logsource.Lost, Partition: name})
	}
}

func (l *log) awaitRelease(ctx context.Context, until time.Time) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	for {
		l.mu.Lock()
		left, released := len(l.parts), l.released
		l.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-released:
		}
	}
}

// put hands a change to Poll.
func (l *log) put(ctx context.Context, c logsource.Change) {
	select {
	case l.changes <- c:
	case <-ctx.Done():
	}
}

// Poll returns what has come.
func (l *log) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	var list []logsource.Change
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case c := <-l.changes:
		list = append(list, c)
	case err := <-l.errs:
		return nil, err
	}
	for len(list) < most {
		select {
		case c := <-l.changes:
			if last := &list[len(list)-1]; c.Kind == logsource.Records &&
				last.Kind == logsource.Records && last.Partition == c.Partition {
				last.Records = append(last.Records, c.Records...)
				most--
				continue
			}
			list = append(list, c)
		default:
			return list, nil
		}
	}
	return list, nil
}

// Pause does nothing: a stream has no pause for one partition. What is read is bounded by
// MaxUncommitted, which the server keeps.
func (l *log) Pause(string, bool) {}

// Release lets a partition go.
func (l *log) Release(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(name)
}

// forget drops a partition. mu is held.
func (l *log) forget(name string) {
	delete(l.parts, name)
	close(l.released)
	l.released = make(chan struct{})
}

// Close ends the stream.
func (l *log) Close() error {
	l.stop()
	l.work.Wait()
	l.client.http.CloseIdleConnections()
	return nil
}

// cursor names a place in a partition.
type cursor struct {
	Partition string `json:"partition"`
	Offset    string `json:"offset"`
	Type      string `json:"event_type"`
	Token     string `json:"cursor_token,omitempty"`
}

func (c *cursor) key() string { return c.Type + "/" + c.Partition }

// offsetText is the form of offsets that is known to be ordered by <: version, timeline, digits. An
// empty partition ends at -1, which is below all digits.
var offsetText = regexp.MustCompile(`^[0-9]{3}-[0-9]{4}-([0-9]{18}|-1)$`)

// positionOf reads an offset.
func (c *cursor) position() (ackwise.Position, error) {
	if !offsetText.MatchString(c.Offset) {
		return "", &finalError{fmt.Errorf("read cursor: the offset %.64q is not of the known form "+
			"001-0001-000000000000000009, so its order is not known", c.Offset)}
	}
	return ackwise.Position(c.Offset), nil
}

// noteName is the name of a partition's note: letters, digits, dots and dashes only.
func (l *log) noteName(p *part) string {
	return l.sub.ID + "." + p.kind + "." + strings.Map(plain, p.name)
}

func plain(r rune) rune {
	if r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-') {
		return r
	}
	return '_'
}

// freshName is the name of the note that says that the subscription was made by a member of ours:
// a partition without a note was then handed out by nobody.
func (l *log) freshName() string { return l.sub.ID + ".created" }

// line is one line of a stream.
type line struct {
	Cursor cursor            `json:"cursor"`
	Events []json.RawMessage `json:"events"`
	Info   struct {
		Debug string `json:"debug"`
	} `json:"info"`
}
