package wal

import (
	"fmt"
	"runtime"
	"time"

	"github.com/ackwise/ackwise/internal/vfs"
)

// yieldRecords is how many records a sync releases for the committer to let others run before it
// goes on. Hundreds who waited publish again at once, into the group that is taken next: taken
// before they had a chance, groups stay small, and while it waits for the disk the committer holds
// one of the processors that they need.
const yieldRecords = 128

// markDelay is how long after the last write the mark follows, so that the last group is covered.
const markDelay = time.Second

// committer is the state of the one goroutine that writes groups.
type committer struct {
	*Log
	file      vfs.File
	segment   *segment
	written   uint64    // end of the last group written
	durable   uint64    // what is on the disk for sure; with NoSync less than what is released
	content   uint64    // end of the last group that has records
	marked    uint64    // the highest mark that is itself synced
	lastWrite time.Time // of a group with records
	waiting   []*Group  // written and not yet released as synced, or being written; in order
	told      int       // of them, how many are released as written
	room      int64     // how far the file has room, as far as is known
	ahead     bool      // room was asked for, and is given back in the end
	fatal     bool      // the failure was told
}

// run ends with Close. Without work it waits and no timer runs.
func (c *committer) run() {
	idle := time.NewTimer(markDelay)
	idle.Stop()
	armed := false
	for {
		var err error
		select {
		case <-c.kick:
			err = c.drain()
		case <-idle.C:
			armed = false
			err = c.quiet()
		case <-c.closing:
			c.finish()
			return
		}
		if c.stopped(err) {
			idle.Stop()
			<-c.closing
			c.finish()
			return
		}
		if !armed && c.content > c.marked && !c.opt.NoSync {
			idle.Reset(max(0, markDelay-time.Since(c.lastWrite)))
			armed = true
		}
	}
}

// stopped tells a failure to everybody, be it err or one that Remove has met.
func (c *committer) stopped(err error) bool {
	if err == nil {
		c.mu.Lock()
		err = c.failed
		c.mu.Unlock()
	}
	if err == nil {
		return false
	}
	c.release(explain(err))
	return true
}

// finish is the end: what is pending, then the mark, then the file.
func (c *committer) finish() {
	if !c.fatal {
		err := c.drain()
		if err == nil && c.content > c.marked {
			err = c.mark()
		}
		if !c.stopped(err) {
			err = c.endFile()
			c.stopped(err)
			c.closeHandles()
			return
		}
	}
	_ = c.file.Close() // it has failed already, and that was told
	c.closeHandles()
}

// drain writes the pending group, and the one that has filled meanwhile, until there is none.
func (c *committer) drain() error {
	for {
		c.mu.Lock()
		g := c.takeLocked()
		c.mu.Unlock()
		if g == nil {
			return nil
		}
		if err := c.commit(g); err != nil {
			return err
		}
	}
}

// takeLocked takes the pending group away from the callers.
func (l *Log) takeLocked() *Group {
	g := l.pending
	if g == nil || l.failed != nil {
		return nil
	}
	l.pending = nil
	g.size = alignUp(uint64(len(g.buf)))
	l.end.Store(g.pos + g.size)
	return g
}

// quiet is called when the timer has run out.
func (c *committer) quiet() error {
	switch {
	case c.content <= c.marked:
		return nil
	case time.Since(c.lastWrite) >= markDelay:
		return c.mark()
	case c.durable < c.written: // writes go on, none of them durable: do not let them pile up
		return c.sync()
	}
	return nil
}

// mark writes a group without records, for its header's sake. If a group is pending instead, that
// one carries the mark.
func (c *committer) mark() error {
	if c.durable < c.written {
		if err := c.sync(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	if c.pending == nil && c.failed == nil {
		c.beginLocked()
		c.pending.durable = true
	}
	g := c.takeLocked()
	c.mu.Unlock()
	if g == nil {
		return nil
	}
	if err := c.commit(g); err != nil {
		return err
	}
	return c.listMark()
}

// listMark writes the mark into the list as well: a last segment that was cut short afterwards has
// lost the groups that would say so.
func (c *committer) listMark() error {
	c.dirSlot <- struct{}{}
	defer func() { <-c.dirSlot }()
	c.mu.Lock()
	c.listed = max(c.listed, c.marked)
	segments := c.segments
	c.mu.Unlock()
	return c.relist(segments)
}

// commit writes a group and, where it has a durable record, syncs it.
func (c *committer) commit(g *Group) error {
	c.waiting = append(c.waiting, g)
	if g.pos-c.segment.info.Base >= uint64(c.opt.SegmentBytes) {
		if err := c.rotate(g.pos); err != nil {
			return err
		}
	}
	carried := c.durable
	h := groupHeader{pos: g.pos, synced: carried, count: g.count}
	h.length = uint32(len(g.buf) - headerBytes)
	sealGroup(g.buf, h, c.segment.seed)
	padding := int(g.size) - len(g.buf)
	g.buf = append(g.buf, make([]byte, padding)...)
	c.roomAhead(c.segment.offset(g.pos + g.size))
	if _, err := c.file.WriteAt(g.buf, c.segment.offset(g.pos)); err != nil {
		return fmt.Errorf("write group: %w", err)
	}
	c.written = g.pos + g.size
	if g.count > 0 {
		c.content = c.written
		c.lastWrite = time.Now()
	}
	c.keepBuffer(g, int64(len(g.buf)-padding))
	c.release(nil)
	// A group without records is written for its mark; with NoSync only Close does that.
	if g.durable && (!c.opt.NoSync || g.count == 0) {
		if err := c.sync(); err != nil {
			return err
		}
		c.marked = max(c.marked, carried)
	}
	return nil
}

// keepBuffer keeps a written group's buffer for a later one. Two are kept, since large and small
// groups take turns: while one is written, the next one fills.
func (c *committer) keepBuffer(g *Group, size int64) {
	c.backlog.Add(-size)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spares) < 2 && cap(g.buf) <= keptBufferBytes {
		c.spares = append(c.spares, g.buf)
	}
	g.buf = nil
}

// sync makes all that was written durable, and releases it.
func (c *committer) sync() error {
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("sync segment: %w", err)
	}
	c.durable = c.written
	if c.release(nil) >= yieldRecords {
		runtime.Gosched()
	}
	return nil
}

// release is the one place where anybody is told anything: the watermarks move here, groups are
// woken here, and Options.Released is called here. With an error it is the last call. It returns
// how many records were released as synced.
func (c *committer) release(err error) (records int) {
	if c.fatal {
		return 0
	}
	written, synced := c.written, c.durable
	if c.opt.NoSync {
		synced = written
	}
	c.mu.Lock()
	c.segment.info.End = written
	c.segment.info.Bytes = c.segment.offset(written)
	c.Log.written.Store(written)
	c.synced.Store(synced)
	if err == nil {
		err = c.failed
	} else {
		c.failed = err
	}
	if err != nil && c.pending != nil {
		c.waiting = append(c.waiting, c.pending)
		c.pending = nil
	}
	c.mu.Unlock()
	c.fatal = err != nil
	if err == nil {
		records = c.wakeGroups(written, synced)
	}
	if c.opt.Released != nil {
		c.opt.Released(written, synced, err)
	}
	if err != nil { // last, so that who hears of it finds everything stopped
		c.fail(err)
	}
	return records
}

// wakeGroups closes the channels of the groups that the watermarks have passed, and returns how
// many records are synced by now.
func (c *committer) wakeGroups(written, synced uint64) (records int) {
	for c.told < len(c.waiting) && c.waiting[c.told].End() <= written {
		close(c.waiting[c.told].written)
		c.told++
	}
	n := 0
	for n < c.told && c.waiting[n].End() <= synced {
		close(c.waiting[n].synced)
		records += int(c.waiting[n].count)
		n++
	}
	c.told -= n
	rest := copy(c.waiting, c.waiting[n:])
	clear(c.waiting[rest:])
	c.waiting = c.waiting[:rest]
	return records
}

// fail tells every waiter. Synced is closed first, so that one who waits for Written sees the
// error.
func (c *committer) fail(err error) {
	for i, g := range c.waiting {
		g.err = err
		close(g.synced)
		if i >= c.told {
			close(g.written)
		}
	}
	c.waiting, c.told = nil, 0
}
