package state

import (
	"bytes"
	"io"
)

// Snapshot is a state at one moment, to be written down while the state goes on: what is small is
// encoded already, what is large is never changed and only referred to.
type Snapshot struct {
	Sets  bool // it holds dedup sets
	parts []part
}

// part is bytes, then what stream writes.
type part struct {
	bytes  []byte
	stream func(write func([]byte)) // nil = nothing
}

// partLen is the size at which encoded bytes go on in a new buffer, so that long ones are not
// copied as they grow.
const partLen = 256 << 10

// stream puts what is encoded so far into the snapshot, and behind it what write will write. It
// returns the buffer to go on with.
func (n *Snapshot) stream(b []byte, stream func(write func([]byte))) []byte {
	n.parts = append(n.parts, part{b, stream})
	return b[len(b):]
}

// room puts what is encoded so far into the snapshot where it is much.
func (n *Snapshot) room(b []byte) []byte {
	if len(b) < partLen {
		return b
	}
	n.parts = append(n.parts, part{bytes: b})
	return make([]byte, 0, partLen+partLen/4)
}

// WriteTo implements io.WriterTo. It needs no lock.
func (n *Snapshot) WriteTo(w io.Writer) (written int64, err error) {
	write := func(b []byte) {
		if err == nil && len(b) > 0 {
			var k int
			k, err = w.Write(b)
			written += int64(k)
		}
	}
	for _, p := range n.parts {
		write(p.bytes)
		if p.stream != nil {
			p.stream(write)
		}
	}
	return written, err
}

// Encode appends the whole state to b, as Snapshot writes it.
func (s *State) Encode(b []byte) []byte {
	w := bytes.NewBuffer(b)
	_, _ = s.Snapshot().WriteTo(w) // a buffer takes everything
	return w.Bytes()
}

// Load reads into an empty state what a Snapshot wrote, n bytes. It holds no more of them than it
// needs at a time. After an error the state is of no use.
func (s *State) Load(r io.Reader, n int64) error { return s.decode(&decoder{src: r, left: n}) }
