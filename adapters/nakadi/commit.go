package nakadi

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// Commit writes cursors, and then notes: a note is never newer than its cursor. A cursor is fenced
// by the stream's ID, a note by what it replaces.
func (l *log) Commit(ctx context.Context, marks []logsource.Mark) []error {
	errs := make([]error, len(marks))
	var cursors []cursor
	var of []int // the mark of each cursor
	l.mu.Lock()
	st := l.stream
	for i, m := range marks {
		p := l.parts[m.Partition]
		switch {
		case p == nil || st == nil:
			errs[i] = fmt.Errorf("commit: %w", logsource.ErrFenced)
		case m.Position > p.pos:
			cursors = append(cursors, cursor{Type: p.kind, Partition: p.name,
				Offset: string(m.Position), Token: p.tokens[m.Position]})
			of = append(of, i)
		}
	}
	l.mu.Unlock()
	if len(cursors) > 0 {
		l.commitCursors(ctx, st, cursors, func(i int, err error) { errs[of[i]] = err })
	}
	for i, m := range marks {
		if errs[i] == nil {
			errs[i] = l.commitNote(ctx, st, m)
		}
		if errors.Is(errs[i], logsource.ErrFenced) {
			l.Release(m.Partition) // it is lost: nobody waits for it
		}
	}
	return errs
}

// commitCursors writes cursors in one request. Where that is refused, it writes each alone: one
// partition that is gone takes no other with it.
func (l *log) commitCursors(ctx context.Context, st *stream, cursors []cursor,
	set func(i int, err error)) {
	err := l.postCursors(ctx, st, cursors)
	if len(cursors) > 1 && errors.Is(err, logsource.ErrFenced) {
		for i := range cursors {
			l.commitCursors(ctx, st, cursors[i:i+1], func(_ int, err error) { set(i, err) })
		}
		return
	}
	if errors.Is(err, logsource.ErrFenced) {
		if l.wasCommitted(ctx, &cursors[0]) {
			err = nil
		}
		st.end() // what it has sent of the partition comes again only with a new stream
	}
	for i := range cursors {
		set(i, err)
	}
}

func (l *log) postCursors(ctx context.Context, st *stream, cursors []cursor) error {
	body, err := json.Marshal(map[string]any{"items": cursors})
	if err != nil {
		return fmt.Errorf("commit cursors: %w", err)
	}
	a := l.client.do(ctx, call{method: http.MethodPost, body: body,
		path:   "/subscriptions/" + url.PathEscape(l.sub.ID) + "/cursors",
		header: map[string]string{"X-Nakadi-StreamId": st.id}})
	switch {
	case a.err != nil:
		l.unsure(cursors)
		return fmt.Errorf("commit cursors: %w", a.err) // carried out or not: it may be repeated
	case a.status == http.StatusOK || a.status == http.StatusNoContent:
		// 200 says that a cursor is outdated: as far as that, or farther, it is committed already.
		return nil
	case a.status == http.StatusUnprocessableEntity || a.status == http.StatusNotFound:
		return fmt.Errorf("commit cursors: %w: %w", logsource.ErrFenced, a.refusal())
	}
	return fmt.Errorf("commit cursors: %w", a.refusal())
}

// unsure remembers cursors whose commit got no answer.
func (l *log) unsure(cursors []cursor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range cursors {
		if p := l.parts[cursors[i].key()]; p != nil {
			p.unsure = max(p.unsure, ackwise.Position(cursors[i].Offset))
		}
	}
}

// wasCommitted reports whether a commit that got no answer was carried out, though by now its
// stream is gone and it cannot be repeated. Its settlements are then settled, not lost.
func (l *log) wasCommitted(ctx context.Context, c *cursor) bool {
	l.mu.Lock()
	p := l.parts[c.key()]
	unsure := p != nil && ackwise.Position(c.Offset) <= p.unsure
	l.mu.Unlock()
	if !unsure {
		return false
	}
	pos, err := l.committed(ctx, c)
	return err == nil && pos >= ackwise.Position(c.Offset)
}

// committed looks up how far a partition is committed.
func (l *log) committed(ctx context.Context, c *cursor) (pos ackwise.Position, err error) {
	var list struct{ Items []cursor }
	path := "/subscriptions/" + url.PathEscape(l.sub.ID) + "/cursors"
	err = l.client.get(ctx, path, nil, &list)
	for i := range list.Items {
		if list.Items[i].key() == c.key() && err == nil {
			pos, err = list.Items[i].position()
		}
	}
	if err == nil && pos == "" {
		err = errors.New("there is no committed cursor")
	}
	return pos, err
}

// commitNote takes in a committed position and writes the note, where it has changed.
func (l *log) commitNote(ctx context.Context, st *stream, m logsource.Mark) error {
	l.mu.Lock()
	p := l.parts[m.Partition]
	if p == nil {
		l.mu.Unlock()
		return fmt.Errorf("commit note: %w", logsource.ErrFenced)
	}
	if m.Position > p.pos {
		p.pos, p.gone = m.Position, 0
		for pos := range p.tokens {
			if pos <= p.pos {
				delete(p.tokens, pos)
			}
		}
	}
	old := p.note
	l.mu.Unlock()
	if text, _ := openNote(old, time.Now()); bytes.Equal(text, m.Note) {
		return nil
	}
	note := stampNote(m.Note, time.Now())
	mine, err := l.notes.Swap(ctx, l.noteName(p), old, note)
	switch {
	case err != nil:
		return fmt.Errorf("commit note: %w", err)
	case !mine:
		st.end()
		return fmt.Errorf("commit note: another member has written one: %w", logsource.ErrFenced)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p.note = note
	return nil
}

// stampNote puts before a note when it was written: a delay in it goes on while streams end.
func stampNote(note []byte, now time.Time) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli())), note...)
}

// openNote returns a note and its age.
func openNote(stamped []byte, now time.Time) ([]byte, time.Duration) {
	if len(stamped) < 8 {
		return stamped, 0 // none, or none of ours, which the source finds out
	}
	at := time.UnixMilli(int64(binary.BigEndian.Uint64(stamped)))
	return stamped[8:], max(0, now.Sub(at))
}
