package ordering

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/internal/vfs"
)

// Record is one named value of a Keeper.
type Record struct {
	Name  string
	Value []byte // nil = there is none any more
}

// Keeper keeps what a Clock or a Sequencer must not forget. It belongs to one of them in one
// process, which makes one call at a time.
type Keeper interface {
	// Load calls fn with each record that was saved last, in any order.
	Load(ctx context.Context, fn func(Record) error) error
	// Save sets and removes records, all or none of them, and returns when that is durable.
	Save(ctx context.Context, rs []Record) error
}

// FileKeeper is a Keeper in a directory of its own. A save is one write and one sync.
//
//	DIR/LOCK    one process at a time
//	DIR/kept    magic 8 bytes, then a frame a save: length 4, CRC-32C 4 (with the frame's place),
//	            records: name and value, each with a uvarint length (value: +1, 0 = removed)
//
// A frame that a crash cut off was never answered for, and is cut. A bad frame before a good one is
// damage and refused; where the disk spoils the very last frame, that looks like a crash. A failed
// write or sync is final: the keeper is opened again from the disk.
type FileKeeper struct {
	fs   vfs.FS
	dir  string
	lock *lockfile.Lock // nil = the file system is not shared

	mu    sync.Mutex // guards fault and file; calls come one at a time but for Close
	fault error
	file  vfs.File
	end   int64 // where the next frame goes
	base  int64 // how long the file was when it was last written anew
}

const (
	keptName   = "kept"
	keptMagic  = "ackkept1"
	frameHead  = 8
	rewriteMin = 1 << 20 // a shorter file is never written anew
	rewriteBy  = 4       // times its first length
)

// OpenFileKeeper opens the keeper in dir, which it makes where it is missing. A second process is
// refused, and so is damage, which is not changed.
func OpenFileKeeper(dir string) (*FileKeeper, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	if err := (vfs.OS{}).SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	lock, err := lockfile.Acquire(dir)
	if err != nil {
		return nil, fmt.Errorf("open keeper: %w", err)
	}
	k, err := openKeeper(vfs.OS{}, dir)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	k.lock = lock
	return k, nil
}

// openKeeper reads what is there and writes it anew, so that nothing is ever put behind a frame
// that a crash cut off.
func openKeeper(fsys vfs.FS, dir string) (*FileKeeper, error) {
	k := &FileKeeper{fs: fsys, dir: dir}
	kept, err := k.read()
	if err == nil {
		err = k.rewrite(kept)
	}
	if err != nil {
		return nil, fmt.Errorf("open keeper %s: %w", dir, err)
	}
	return k, nil
}

func (k *FileKeeper) path() string { return filepath.Join(k.dir, keptName) }

// read returns what the file holds; a missing one holds nothing.
func (k *FileKeeper) read() (map[string][]byte, error) {
	f, err := k.fs.Open(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return map[string][]byte{}, nil
	}
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	data := make([]byte, size)
	if err == nil && size > 0 {
		_, err = f.ReadAt(data, 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", keptName, err)
	}
	return parseKept(data)
}

// parseKept reads a file's frames up to its end, or to where a crash cut the last one off.
func parseKept(data []byte) (map[string][]byte, error) {
	kept := map[string][]byte{}
	if !bytes.HasPrefix(data, []byte(keptMagic)) {
		return nil, damaged(0, "it does not begin as a keeper's file does")
	}
	for at := len(keptMagic); at < len(data); {
		rs, n := frameAt(data, at)
		if n == 0 {
			for later := at + 1; later < len(data); later++ {
				if _, n := frameAt(data, later); n != 0 {
					return nil, damaged(at, fmt.Sprintf("a frame is bad, and there is a good "+
						"one at %d", later))
				}
			}
			return kept, nil
		}
		for _, r := range rs {
			if r.Value == nil {
				delete(kept, r.Name)
			} else {
				kept[r.Name] = r.Value
			}
		}
		at += n
	}
	return kept, nil
}

func damaged(at int, what string) error {
	return &ackwise.HintError{Err: fmt.Errorf("%s is damaged at offset %d: %s", keptName, at, what),
		Hint: "restore the directory from a copy; a sequencer without it would give numbers twice"}
}

// frameAt reads the frame at a place; n = 0 where none is whole.
func frameAt(data []byte, at int) (rs []Record, n int) {
	if len(data)-at < frameHead {
		return nil, 0
	}
	size := int64(binary.BigEndian.Uint32(data[at:]))
	if size == 0 || size > int64(len(data)-at-frameHead) {
		return nil, 0
	}
	payload := data[at+frameHead:][:size]
	if binary.BigEndian.Uint32(data[at+4:]) != frameSum(int64(at), payload) {
		return nil, 0
	}
	rs, ok := parseRecords(payload)
	if !ok {
		return nil, 0
	}
	return rs, frameHead + int(size)
}

func frameSum(at int64, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	place := binary.BigEndian.AppendUint64(nil, uint64(at))
	return crc32.Update(crc32.Checksum(place, table), table, payload)
}

func parseRecords(b []byte) (rs []Record, ok bool) {
	for len(b) > 0 {
		var name, value []byte
		if name, b, ok = cutBytes(b, 0); !ok {
			return nil, false
		}
		if value, b, ok = cutBytes(b, 1); !ok {
			return nil, false
		}
		rs = append(rs, Record{Name: string(name), Value: value})
	}
	return rs, true
}

// cutBytes reads bytes behind their length, which has plus added to it; nil where it is less.
func cutBytes(b []byte, plus uint64) (v, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 {
		return nil, nil, false
	}
	b = b[used:]
	if n < plus {
		return nil, b, true
	}
	if n -= plus; n > uint64(len(b)) {
		return nil, nil, false
	}
	return bytes.Clone(b[:n:n]), b[n:], true
}

// appendFrame adds a frame that stands at a place of the file.
func appendFrame(b []byte, at int64, rs []Record) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHead)...)
	for _, r := range rs {
		b = append(binary.AppendUvarint(b, uint64(len(r.Name))), r.Name...)
		if r.Value == nil {
			b = append(b, 0)
			continue
		}
		b = append(binary.AppendUvarint(b, uint64(len(r.Value))+1), r.Value...)
	}
	payload := b[start+frameHead:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[start+4:], frameSum(at, payload))
	return b
}

// Load implements Keeper.
func (k *FileKeeper) Load(ctx context.Context, fn func(Record) error) error {
	kept, err := k.read()
	if err != nil {
		return fmt.Errorf("load keeper %s: %w", k.dir, err)
	}
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		if err := fn(Record{Name: name, Value: kept[name]}); err != nil {
			return err
		}
	}
	return nil
}

// Save implements Keeper.
func (k *FileKeeper) Save(ctx context.Context, rs []Record) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if len(rs) == 0 {
		return nil
	}
	k.mu.Lock()
	fault, file := k.fault, k.file
	k.mu.Unlock()
	if fault != nil {
		return fault
	}
	err := k.append(file, rs)
	if err == nil && k.end > max(rewriteMin, rewriteBy*k.base) {
		var kept map[string][]byte
		if kept, err = k.read(); err == nil {
			err = k.rewrite(kept)
		}
	}
	if err != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.fault == nil {
			k.fault = fmt.Errorf("save in keeper %s, which has to be opened again: %w", k.dir, err)
		}
		return k.fault
	}
	return nil
}

func (k *FileKeeper) append(file vfs.File, rs []Record) error {
	frame := appendFrame(nil, k.end, rs)
	if _, err := file.WriteAt(frame, k.end); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	k.end += int64(len(frame))
	return nil
}

// rewriteChunk is how many records a frame of a file that is written anew holds.
const rewriteChunk = 1024

// rewrite makes a file that holds these records only.
func (k *FileKeeper) rewrite(kept map[string][]byte) error {
	var end int64
	f, err := vfs.WriteNew(k.fs, k.path(), func(f vfs.File) error {
		if _, err := f.WriteAt([]byte(keptMagic), 0); err != nil {
			return err
		}
		end = int64(len(keptMagic))
		for names := range slices.Chunk(slices.Sorted(maps.Keys(kept)), rewriteChunk) {
			rs := make([]Record, len(names))
			for i, name := range names {
				rs[i] = Record{Name: name, Value: kept[name]}
			}
			frame := appendFrame(nil, end, rs)
			if _, err := f.WriteAt(frame, end); err != nil {
				return err
			}
			end += int64(len(frame))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write anew: %w", err)
	}
	if err := vfs.GiveName(k.fs, k.path()); err != nil {
		return errors.Join(fmt.Errorf("write anew: %w", err), f.Close())
	}
	k.mu.Lock()
	before := k.file
	k.file = f
	k.mu.Unlock()
	k.end, k.base = end, end
	if before != nil {
		return before.Close()
	}
	return nil
}

// Close gives the directory up. What was saved is kept.
func (k *FileKeeper) Close() error {
	k.mu.Lock()
	closed, file := errors.Is(k.fault, ackwise.ErrClosed), k.file
	k.fault = fmt.Errorf("keeper %s: %w", k.dir, ackwise.ErrClosed)
	k.mu.Unlock()
	if closed {
		return nil
	}
	err := file.Close()
	if k.lock != nil {
		err = errors.Join(err, k.lock.Release())
	}
	return err
}
