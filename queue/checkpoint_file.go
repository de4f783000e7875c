package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/ackwise/ackwise/internal/vfs"
)

// A checkpoint is the whole state at a log position, so that opening reads only the log behind it.
// The last two are kept: Verify recomputes the newer one from the older one and the log between.
// It is written and read as a stream of blocks, each with a checksum that also tells its place, so
// that no byte is believed that was not checked, and no copy of the whole is made.
//
//	 0  magic 8 · version 4 · bytes of the state in a block 4 · store id 16 · position 8 ·
//	    length of the state 8 · CRC-32C of the 48 before 4
//	52  blocks: up to 256 KiB of the state · CRC-32C 4, seeded with store id, position, block number
const (
	checkpointMagic   = "ackwckpt"
	checkpointVersion = 2 // 1 where the state has no dedup sets
	checkpointHead    = 52
	checkpointBlock   = 256 << 10
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// blockSum is the checksum of a block.
func blockSum(m mark, number int64, b []byte) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], m.pos)
	binary.LittleEndian.PutUint64(place[8:], uint64(number))
	seed := crc32.Update(crc32.Checksum(m.storeID[:], crcTable), crcTable, place[:])
	return crc32.Update(seed, crcTable, b)
}

// checkpointSize is the length of the file for a state of so many bytes.
func checkpointSize(length int64) int64 {
	return checkpointHead + length + 4*((length+checkpointBlock-1)/checkpointBlock)
}

func checkpointHeader(m mark, length int64) []byte {
	b := make([]byte, 0, checkpointHead)
	b = append(b, checkpointMagic...)
	b = binary.LittleEndian.AppendUint32(b, max(m.version, 1))
	b = binary.LittleEndian.AppendUint32(b, checkpointBlock)
	b = append(b, m.storeID[:]...)
	b = binary.LittleEndian.AppendUint64(b, m.pos)
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
}

// writeCheckpoint writes a state under a temporary name, syncs it, and only then gives it its name.
func writeCheckpoint(fs vfs.FS, dir string, m mark, state io.WriterTo) error {
	final := filepath.Join(dir, checkpointName(m.pos))
	f, err := vfs.WriteNew(fs, final, func(f vfs.File) error {
		w := &checkpointWriter{file: f, mark: m, off: checkpointHead,
			block: make([]byte, 0, checkpointBlock+4)}
		length, err := state.WriteTo(w)
		if err == nil && len(w.block) > 0 {
			err = w.flush()
		}
		if err == nil {
			_, err = f.WriteAt(checkpointHeader(m, length), 0)
		}
		return err
	})
	if err != nil {
		return err
	}
	temp := final + vfs.TempSuffix
	if err = f.Close(); err == nil {
		err = fs.Rename(temp, final)
	}
	if err != nil { // a full disk gets its space back
		return errors.Join(err, fs.Remove(temp))
	}
	return fs.SyncDir(dir)
}

// checkpointWriter cuts what it gets into blocks.
type checkpointWriter struct {
	file   vfs.File
	mark   mark
	block  []byte
	number int64
	off    int64
}

// Write implements io.Writer.
func (w *checkpointWriter) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		take := min(len(b)-n, checkpointBlock-len(w.block))
		w.block = append(w.block, b[n:n+take]...)
		n += take
		if len(w.block) == checkpointBlock {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *checkpointWriter) flush() error {
	b := binary.LittleEndian.AppendUint32(w.block, blockSum(w.mark, w.number, w.block))
	_, err := w.file.WriteAt(b, w.off)
	w.number++
	w.off += int64(len(b))
	w.block = w.block[:0]
	return err
}

// checkpointReader reads a state back, block by block. What it gives is checked.
type checkpointReader struct {
	dir    string
	file   vfs.File
	mark   mark
	left   int64  // bytes of the state that are not read from the file
	block  []byte // of it, what is not given yet
	buf    []byte // what block is a part of
	number int64
	off    int64 // of the next block
}

// openCheckpoint opens the checkpoint at a position and checks its header and its length.
func openCheckpoint(fs vfs.FS, dir string, pos uint64) (*checkpointReader, [16]byte, error) {
	r := &checkpointReader{dir: dir, mark: mark{pos: pos}, off: checkpointHead}
	name := filepath.Join(dir, checkpointName(pos))
	var err error
	if r.file, err = fs.Open(name); err != nil {
		return nil, r.mark.storeID, fmt.Errorf("open checkpoint: %w", err)
	}
	if err := r.header(name); err != nil {
		return nil, r.mark.storeID, errors.Join(err, r.file.Close())
	}
	return r, r.mark.storeID, nil
}

func (r *checkpointReader) header(name string) error {
	size, err := r.file.Size()
	if err != nil {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	b := make([]byte, checkpointHead)
	if _, err := r.file.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	if string(b[:8]) != checkpointMagic {
		return r.badAt(0, errors.New("not a checkpoint"))
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > checkpointVersion {
		return &FormatError{File: name, Found: v, Supported: checkpointVersion}
	}
	copy(r.mark.storeID[:], b[16:32])
	r.left = int64(binary.LittleEndian.Uint64(b[40:]))
	switch {
	case crc32.Checksum(b[:48], crcTable) != binary.LittleEndian.Uint32(b[48:]):
		return r.badAt(0, errors.New("the checksum of its header does not match"))
	case binary.LittleEndian.Uint64(b[32:]) != r.mark.pos:
		return r.badAt(32, errors.New("it is the checkpoint of another position"))
	case r.left < 0 || checkpointSize(r.left) != size:
		return r.badAt(min(size, checkpointSize(max(r.left, 0))), fmt.Errorf(
			"the file is %d bytes long, not %d", size, checkpointSize(max(r.left, 0))))
	}
	return nil
}

// Read implements io.Reader.
func (r *checkpointReader) Read(b []byte) (int, error) {
	if len(r.block) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.block)
	r.block = r.block[n:]
	return n, nil
}

// next reads and checks the next block.
func (r *checkpointReader) next() error {
	n := min(r.left, checkpointBlock)
	if n == 0 {
		return io.EOF
	}
	if r.buf == nil {
		r.buf = make([]byte, n+4) // no later block is longer
	}
	b := r.buf[:n+4]
	if _, err := r.file.ReadAt(b, r.off); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read checkpoint: %w", err)
	}
	if binary.LittleEndian.Uint32(b[n:]) != blockSum(r.mark, r.number, b[:n]) {
		return r.bad(errors.New("the checksum of the block that begins there does not match"))
	}
	r.block = b[:n]
	r.left -= n
	r.number++
	r.off += n + 4
	return nil
}

func (r *checkpointReader) bad(err error) error { return r.badAt(r.off, err) }

func (r *checkpointReader) badAt(off int64, err error) error {
	return badCheckpoint(r.dir, checkpointName(r.mark.pos), off, err)
}

func badCheckpoint(dir, name string, off int64, err error) error {
	return &CorruptionError{Dir: dir, Segment: name, Offset: off, Err: fmt.Errorf("%w; nothing was "+
		"changed. The log since the checkpoint before it is kept: move this file away, and the "+
		"store opens from there", err)}
}
