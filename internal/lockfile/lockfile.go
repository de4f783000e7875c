// Package lockfile lets one process at a time own a directory, and says who it is.
//
//	DIR/LOCK   {"process":"4711.…","pid":4711,"since":"…","socket":"/DIR/socket"}
//
// Ownership is a flock on the file: the kernel gives it up when the process ends, however it ends,
// so nothing is ever stolen from a living process and nothing stale is left behind. The content is
// for people and for other processes, who find the owner's socket there; it decides nothing. The
// file is never deleted, since a second file of the same name would be a second lock.
//
// It does not serve network file systems whose flock is not shared by all machines.
package lockfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Name is the lock file's name in its directory.
const Name = "LOCK"

// maxContent bounds what is read from a lock file; a socket's path is short.
const maxContent = 8 << 10

// Info is what a lock file says of its owner.
type Info struct {
	Process string    `json:"process"` // as ProcessID writes it
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`            // when it became the owner
	Socket  string    `json:"socket,omitempty"` // where it serves the directory; "" = nowhere (yet)
}

// String names the owner for a person.
func (i Info) String() string {
	if i.PID == 0 {
		return "an unnamed process"
	}
	s := fmt.Sprintf("process %d, owner since %s", i.PID, i.Since.Format(time.RFC3339))
	if i.Socket != "" {
		s += ", socket " + i.Socket
	}
	return s
}

// HeldError reports a directory that another owner has. Info is what its lock file says; it may be
// empty or a predecessor's for the few microseconds in which an owner has not yet written it.
type HeldError struct {
	Dir  string
	Info Info
}

// Error names the directory and its owner.
func (e *HeldError) Error() string {
	return fmt.Sprintf("the directory %s is owned by another process (%s)", e.Dir, e.Info)
}

// Lock is the ownership of a directory.
type Lock struct {
	file *os.File
	info Info
}

// Acquire makes this process the owner of dir, which must exist. If there is an owner already, also
// in this process, the error is a *HeldError.
func Acquire(dir string) (*Lock, error) {
	for {
		f, err := os.OpenFile(filepath.Join(dir, Name), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open lock file: %w", err)
		}
		l, err := take(dir, f)
		if err == nil && l != nil {
			return l, nil
		}
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close lock file: %w", cerr)
		}
		if err != nil {
			return nil, err
		}
	}
}

// take locks f and writes who holds it. Neither a lock nor an error: somebody replaced the file
// between open and flock, and the lock is on one that nobody sees.
func take(dir string, f *os.File) (*Lock, error) {
	held, err := flock(f)
	if err != nil {
		return nil, fmt.Errorf("take lock on %s: %w", f.Name(), err)
	}
	if held {
		info, err := read(f)
		if err != nil {
			return nil, err
		}
		return nil, &HeldError{Dir: dir, Info: info}
	}
	mine, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat lock file: %w", err)
	}
	seen, err := os.Stat(f.Name())
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, seen) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("stat lock file: %w", err)
	}
	l := &Lock{file: f, info: Info{Process: ProcessID(0), PID: os.Getpid(), Since: time.Now().UTC()}}
	if err := write(f, l.info); err != nil {
		return nil, err
	}
	return l, nil
}

// SetSocket writes into the lock file where the owner serves the directory.
func (l *Lock) SetSocket(path string) error {
	l.info.Socket = path
	return write(l.file, l.info)
}

// Info returns what the lock file says.
func (l *Lock) Info() Info { return l.info }

// Release gives the directory up. The file stays, with nobody named in it.
func (l *Lock) Release() error {
	// Blanks in place of the text: the next owner's then needs no new block on a full disk.
	blank := bytes.Repeat([]byte{' '}, maxContent/4)
	_, err := l.file.WriteAt(blank, 0)
	return errors.Join(err, l.file.Close())
}

// Announce writes where the owner of dir, which must be this process, serves it.
func Announce(dir, socket string) error {
	f, err := os.OpenFile(filepath.Join(dir, Name), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open lock file: %w", err)
	}
	info, err := read(f)
	if err == nil && info.Process != ProcessID(0) {
		err = &HeldError{Dir: dir, Info: info}
	}
	if err == nil {
		info.Socket = socket
		err = write(f, info)
	}
	return errors.Join(err, f.Close())
}

// Read returns what dir's lock file says, which is the last owner's word: it need not live. No file
// is fs.ErrNotExist; an empty Info is an owner who has left in good order.
func Read(dir string) (Info, error) {
	f, err := os.Open(filepath.Join(dir, Name))
	if err != nil {
		return Info{}, fmt.Errorf("open lock file: %w", err)
	}
	info, err := read(f)
	return info, errors.Join(err, f.Close())
}

// read reads the file's content. What is being written at this moment reads as an empty Info.
func read(f *os.File) (Info, error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxContent))
	if err != nil {
		return Info{}, fmt.Errorf("read lock file: %w", err)
	}
	var info Info
	if json.Unmarshal(b, &info) != nil {
		return Info{}, nil
	}
	return info, nil
}

// write replaces the file's content in place: the flock is on this very file.
func write(f *os.File, info Info) error {
	b, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("write lock file: %w", err)
	}
	b = append(b, '\n')
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Truncate(int64(len(b)))
	}
	if err != nil {
		return fmt.Errorf("write lock file: %w", err)
	}
	return nil
}
