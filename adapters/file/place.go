package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/ackwise/ackwise"
)

// place is a position file: it remembers how far a file is settled. It holds two slots of a fixed
// size, which are written in turn. A slot is one line, padded with spaces:
//
//	ackwise-position 1 <CRC-32C of the JSON, 8 hex digits> {"seq":7,"offset":120,…}
//
// The slot with the higher seq counts. A slot whose write was cut short has a wrong checksum: then
// the other one counts, which is the position before.
type place struct {
	path string

	mu     sync.Mutex // guards all below; never held during I/O
	f      *os.File
	seq    uint64
	broken error // a failed sync: nothing on the disk can be relied on
}

// mark is what a slot holds.
type mark struct {
	Seq        uint64 `json:"seq"`
	Generation int    `json:"generation"` // how many files have been under the name
	Offset     int64  `json:"offset"`     // everything before is settled
	Line       int    `json:"line"`       // lines before Offset
	Heads      []head `json:"heads"`      // of the file of Generation and of those after it
	Note       []byte `json:"note"`
}

const (
	slotBytes  = 32 << 10
	noteBytes  = 16 << 10
	slotPrefix = "ackwise-position 1 "
)

func checksum(b []byte) uint32 {
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) // the table is made once
}

// openPlace opens the position file, makes it where it is missing, and locks it. A nil mark means
// that nothing was remembered yet.
func openPlace(path string) (*place, *mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, placeError(path, err)
	}
	p := &place{path: path, f: f}
	m, err := p.load()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return p, m, nil
}

func placeError(path string, err error) error {
	err = fmt.Errorf("open position file: %w", err)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return &ackwise.HintError{Err: err,
			Hint: "Name a place for it that can be written, with the option position."}
	}
	return err
}

func (p *place) load() (*mark, error) {
	if err := syscall.Flock(int(p.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("open position file %s: another pipeline uses it", p.path)
		}
		return nil, fmt.Errorf("lock position file %s: %w", p.path, err)
	}
	data, err := io.ReadAll(io.NewSectionReader(p.f, 0, 2*slotBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read position file: %w", err)
	}
	if len(data) == 0 {
		return nil, p.format()
	}
	var best *mark
	for at := 0; at < len(data); at += slotBytes {
		m := readSlot(data[at:min(at+slotBytes, len(data))])
		if m != nil && (best == nil || m.Seq > best.Seq) {
			best = m
		}
	}
	if best == nil && len(bytes.Trim(data, " \n\x00")) > 0 {
		return nil, &ackwise.HintError{
			Err: fmt.Errorf("read position file %s: it is damaged, or not a position file",
				p.path),
			Hint: "Name another file; or remove it, and everything is read and delivered again.",
		}
	}
	if best != nil {
		p.seq = best.Seq
	}
	return best, nil
}

// format gives a new file its size, so that later writes change only contents.
func (p *place) format() error {
	blank := bytes.Repeat([]byte{' '}, slotBytes)
	blank[slotBytes-1] = '\n'
	for slot := range int64(2) {
		if _, err := p.f.WriteAt(blank, slot*slotBytes); err != nil {
			return fmt.Errorf("write position file: %w", err)
		}
	}
	if err := p.f.Sync(); err != nil {
		return fmt.Errorf("sync position file: %w", err)
	}
	return syncDir(filepath.Dir(p.path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// readSlot returns nil for a slot that is empty or was cut short.
func readSlot(data []byte) *mark {
	text, found := strings.CutPrefix(strings.TrimRight(string(data), " \n\x00"), slotPrefix)
	sum, body, spaced := strings.Cut(text, " ")
	if !found || !spaced || sum != fmt.Sprintf("%08x", checksum([]byte(body))) {
		return nil
	}
	m := new(mark)
	if json.Unmarshal([]byte(body), m) != nil || m.Offset < 0 || m.Generation < 1 {
		return nil
	}
	return m
}

// save writes a mark. It is called from one goroutine at a time.
func (p *place) save(m mark) error {
	p.mu.Lock()
	f, broken := p.f, p.broken
	m.Seq = p.seq + 1
	p.mu.Unlock()
	if broken != nil {
		return broken
	}
	if f == nil {
		return ackwise.ErrClosed
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write position: %w", err)
	}
	head := fmt.Sprintf("%s%08x ", slotPrefix, checksum(body))
	if len(head)+len(body) >= slotBytes {
		return fmt.Errorf("write position: it takes %d bytes", len(body))
	}
	slot := bytes.Repeat([]byte{' '}, slotBytes)
	copy(slot[copy(slot, head):], body)
	slot[slotBytes-1] = '\n'
	if _, err := f.WriteAt(slot, int64(m.Seq%2)*slotBytes); err != nil {
		return fmt.Errorf("write position file: %w", err) // the other slot still counts
	}
	err = f.Sync()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.broken = fmt.Errorf("sync position file %s: %w", p.path, err)
		return p.broken
	}
	p.seq = m.Seq
	return nil
}

// fault returns why nothing can be saved any more.
func (p *place) fault() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// close gives the file up, and its lock with it.
func (p *place) close() error {
	p.mu.Lock()
	f := p.f
	p.f = nil
	p.mu.Unlock()
	if f == nil {
		return nil
	}
	return f.Close()
}
