package nakadi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// maxLine bounds a line of a stream: one event with all that is written around it.
const maxLine = 16 << 20

var errSilent = errors.New("the stream was silent for three keep-alives")

// runStream opens a stream and reads it to its end. began says that one was opened.
func (l *log) runStream(ctx context.Context) (began bool, err error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	res, err := l.openStream(ctx, end)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }() // it was read, or is not wanted
	st := &stream{id: res.Header.Get("X-Nakadi-StreamId"), end: end, had: map[string]bool{},
		last: time.Now()}
	l.mu.Lock()
	l.stream = st
	l.mu.Unlock()
	l.tell("stream", nil)
	var watch sync.WaitGroup
	watch.Go(func() { l.watch(ctx, st) }) // until end
	defer watch.Wait()
	defer end()
	err = l.readLines(ctx, st, res.Body)
	l.tell("stream-ended", err)
	if final(err) || statusOf(err) != 0 || st.stop {
		return false, err // it would end in the same way again: told, and slower each time
	}
	return true, nil // the next one begins at once
}

func (l *log) openStream(ctx context.Context, end context.CancelFunc) (*http.Response, error) {
	seconds := func(d time.Duration) []string { return []string{strconv.Itoa(int(d / time.Second))} }
	// The answer's head has to come in time, the lines may take as long as they like.
	head := time.AfterFunc(l.o.Timeout, end)
	defer head.Stop()
	res, _, err := l.client.open(ctx, call{method: http.MethodGet,
		path: "/subscriptions/" + url.PathEscape(l.sub.ID) + "/events",
		query: url.Values{"batch_limit": {"1"}, "batch_flush_timeout": seconds(l.o.KeepAlive),
			"max_uncommitted_events": {strconv.Itoa(l.o.MaxUncommitted)},
			"commit_timeout":         seconds(l.o.CommitTimeout)}})
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }() // it was read, or is not wanted
	a := answer{status: res.StatusCode}
	a.body, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("open stream: read refusal: %w", err)
	}
	err = fmt.Errorf("open stream: %w", a.refusal())
	switch res.StatusCode {
	case http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusBadRequest:
		err = &finalError{err} // the subscription is gone, or an option is over the server's bound
	case http.StatusConflict:
		err = &ackwise.HintError{Err: err, Hint: "There are as many streams as partitions. The " +
			"slot of a consumer that was killed is free about two keep-alives later; otherwise " +
			"run fewer members."}
	}
	return nil, err
}

func (l *log) readLines(ctx context.Context, st *stream, body io.Reader) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		l.mu.Lock()
		st.last = time.Now()
		l.mu.Unlock()
		var one line
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return fmt.Errorf("read line of stream: %w", err)
		}
		if strings.Contains(one.Info.Debug, "Commit timeout reached") {
			st.late = true
			return errors.New("the server ended the stream: " + one.Info.Debug)
		}
		if err := l.takeLine(ctx, st, &one); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return &finalError{fmt.Errorf("read stream: a line has more than %d bytes", maxLine)}
	}
	return lines.Err()
}

// takeLine takes in one line: an event, or a keep-alive. The first of a partition says that it is
// this stream's.
func (l *log) takeLine(ctx context.Context, st *stream, one *line) error {
	name := one.Cursor.key()
	l.mu.Lock()
	p := l.parts[name]
	had := st.had[name]
	l.mu.Unlock()
	if p == nil {
		if had {
			// It was given up, and what the stream had sent before will not come again here.
			return fmt.Errorf("partition %s has come back: begin anew", name)
		}
		var err error
		if p, err = l.assign(ctx, st, one); err != nil {
			st.stop = true
			return err
		}
	}
	if len(one.Events) == 0 {
		return nil
	}
	if len(one.Events) > 1 {
		return &finalError{fmt.Errorf("read stream: %d events under one cursor, though "+
			"batch_limit=1 was asked for", len(one.Events))}
	}
	pos, err := one.Cursor.position()
	if err != nil {
		return err
	}
	t, err := l.types.get(ctx, p.kind)
	if err != nil {
		return fmt.Errorf("look up event type %s: %w", p.kind, err)
	}
	m, epoch, err := decode(one.Events[0], t)
	if err != nil {
		// It is handed out all the same, as it came: the handler may know what to do with it.
		m = ackwise.Message{Topic: t.Name, Body: one.Events[0]}
		l.tell("event-unreadable", fmt.Errorf("%s at %s: %w", name, pos, err))
	}
	l.mu.Lock()
	p.tokens[pos] = one.Cursor.Token
	l.mu.Unlock()
	l.put(ctx, logsource.Change{Partition: name,
		Records: []logsource.Record{{Position: pos, Message: m, Epoch: epoch}}})
	return nil
}

// assign takes in a partition: how far it is committed, what is there of it, what its note says.
func (l *log) assign(ctx context.Context, st *stream, one *line) (*part, error) {
	c := &one.Cursor
	p := &part{kind: c.Type, name: c.Partition, since: time.Now(),
		tokens: map[ackwise.Position]string{}}
	change := logsource.Change{Kind: logsource.Assigned, Partition: c.key(), Partial: l.partial}
	var err error
	p.pos, err = l.committed(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("look up cursors of %s: %w", c.key(), err)
	}
	parts, err := partitionsOf(ctx, l.client, c.Type)
	if err != nil {
		return nil, fmt.Errorf("look up partitions of %s: %w", c.Type, err)
	}
	var oldest string
	for _, info := range parts {
		if info.Partition == c.Partition {
			oldest, change.End = info.Oldest, ackwise.Position(info.Newest)
		}
	}
	var made []byte
	p.note, err = l.notes.Load(ctx, l.noteName(p))
	if err == nil {
		made, err = l.notes.Load(ctx, l.freshName())
	}
	if err != nil {
		return nil, fmt.Errorf("assign %s: %w", c.key(), err)
	}
	if err := l.passTrimmed(p, one, oldest); err != nil {
		return nil, err
	}
	change.Position = p.pos
	change.Note, change.NoteAge = openNote(p.note, time.Now())
	if p.note == nil && made != nil {
		change.Position, change.End = "", "" // nobody was here before
	}
	l.mu.Lock()
	l.parts[c.key()], st.had[c.key()] = p, true
	l.mu.Unlock()
	l.put(ctx, change)
	return p, nil
}
