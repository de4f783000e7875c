package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"

	"github.com/ackwise/ackwise/internal/vfs"
)

// bareLog is the least that a durable publish can cost: a group of records, one write, one
// fdatasync, one wake-up for the group, while the next group fills. It keeps no state at all.
//
//	length  4 bytes, little-endian
//	CRC-32C 4 bytes, of the body
//	body
type bareLog struct {
	file  vfs.File
	wrap  int64         // where it begins again at the file's start; 0 = the file grows
	kick  chan struct{} // capacity 1: the pending group has its first record
	wg    sync.WaitGroup
	table *crc32.Table

	mu      sync.Mutex // guards pending and its buf; never held across I/O
	pending *bareGroup
}

type bareGroup struct {
	buf  []byte
	err  error // set before done is closed
	done chan struct{}
}

func newBareLog(file vfs.File, wrap int64) *bareLog {
	l := &bareLog{file: file, wrap: wrap, kick: make(chan struct{}, 1),
		table: crc32.MakeTable(crc32.Castagnoli)}
	l.pending = &bareGroup{done: make(chan struct{})}
	l.wg.Go(l.write) // ends with close
	return l
}

// publish returns when the sync that covers the record is done.
func (l *bareLog) publish(body []byte) error {
	sum := crc32.Checksum(body, l.table)
	l.mu.Lock()
	g := l.pending
	first := len(g.buf) == 0
	g.buf = binary.LittleEndian.AppendUint32(g.buf, uint32(len(body)))
	g.buf = binary.LittleEndian.AppendUint32(g.buf, sum)
	g.buf = append(g.buf, body...)
	l.mu.Unlock()
	if first {
		l.kick <- struct{}{}
	}
	<-g.done
	return g.err
}

// write writes one group after another. Two buffers take turns.
func (l *bareLog) write() {
	var spare []byte
	at := int64(0)
	for range l.kick {
		next := &bareGroup{buf: spare[:0], done: make(chan struct{})}
		l.mu.Lock()
		g := l.pending
		l.pending = next
		l.mu.Unlock()
		if l.wrap > 0 && at+int64(len(g.buf)) > l.wrap {
			at = 0
		}
		_, err := l.file.WriteAt(g.buf, at)
		if err == nil {
			err = l.file.Sync()
		}
		at += int64(len(g.buf))
		spare, g.buf, g.err = g.buf, nil, err
		close(g.done)
	}
}

// close ends the writer. Nobody publishes any more.
func (l *bareLog) close() {
	close(l.kick)
	l.wg.Wait()
}

// bare measures a bare log in file.
func bare(ctx context.Context, l load, file vfs.File, wrap int64) (sample, error) {
	log := newBareLog(file, wrap)
	defer log.close()
	s, err := l.drive(ctx, func(_ context.Context, _ int, body []byte) error {
		return log.publish(body)
	})
	if err != nil {
		return s, fmt.Errorf("publish to the bare log: %w", err)
	}
	return s, nil
}

// growing measures a bare log in a new file, and removes that.
func (b *bench) growing(ctx context.Context, l load) (sample, error) {
	name := b.name("growing")
	file, err := vfs.OS{}.Create(name)
	if err != nil {
		return sample{}, fmt.Errorf("make a growing log: %w", err)
	}
	s, err := bare(ctx, l, file, 0)
	return s, errors.Join(err, file.Close(), os.Remove(name), b.syncDir())
}

// writtenBefore makes the file that is already written and allocated when a log begins in it.
func (b *bench) writtenBefore() (vfs.File, error) {
	b.Progress("writing the file that the recycled log uses", 0)
	file, err := vfs.OS{}.Create(b.name("recycled"))
	if err != nil {
		return nil, fmt.Errorf("make the recycled log: %w", err)
	}
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(b.random.Uint32())
	}
	for at := int64(0); at < b.recycledBytes() && err == nil; at += int64(len(chunk)) {
		_, err = file.WriteAt(chunk, at)
	}
	if err := errors.Join(err, file.Sync(), b.syncDir()); err != nil {
		return nil, errors.Join(fmt.Errorf("write the recycled log: %w", err), file.Close())
	}
	return file, nil
}
