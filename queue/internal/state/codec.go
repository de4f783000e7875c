package state

import (
	"encoding/binary"
	"errors"
	"io"
)

var errShort = errors.New("the bytes end too early")

// The encoders append to b and return it: unsigned numbers as uvarints, signed ones as zig-zag
// varints, byte strings behind their length.

func putUint[T ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int32](b []byte, v T) []byte {
	return binary.AppendUvarint(b, uint64(v))
}

func putInt(b []byte, v int64) []byte { return binary.AppendVarint(b, v) }

func putString[T ~string | ~[]byte](b []byte, s T) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func putBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// decoder reads what the encoders wrote. The first fault sticks, and everything after it is zero,
// so that callers check err once.
type decoder struct {
	b    []byte
	err  error
	src  io.Reader // where more comes from
	left int64     // how much more; 0 = b is all
	buf  []byte    // what b is a part of, where it comes from src
}

// readAhead is how much is read from a stream at a time.
const readAhead = 64 << 10

// more makes n bytes available, or as many as there are. A length that is false makes room for
// twice what is really there at most.
func (d *decoder) more(n uint64) {
	for uint64(len(d.b)) < n && d.left > 0 {
		if size := max(readAhead, 2*len(d.b)); size > len(d.buf) {
			buf := make([]byte, size)
			copy(buf, d.b)
			d.b, d.buf = buf[:len(d.b)], buf
		}
		have := copy(d.buf, d.b)
		take := int(min(int64(len(d.buf)-have), d.left))
		if _, err := io.ReadFull(d.src, d.buf[have:have+take]); err != nil {
			d.fail()
			d.err = err
			return
		}
		d.b = d.buf[:have+take]
		d.left -= int64(take)
	}
}

func (d *decoder) uint() uint64 {
	if len(d.b) < binary.MaxVarintLen64 && d.left > 0 {
		d.more(binary.MaxVarintLen64)
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	if len(d.b) < binary.MaxVarintLen64 && d.left > 0 {
		d.more(binary.MaxVarintLen64)
	}
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns a part of the input, not a copy: it is valid until the next read.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b))+uint64(d.left) {
		d.fail()
		return nil
	}
	d.more(n)
	if n > uint64(len(d.b)) {
		return nil // the stream failed
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) fixed64() uint64 {
	d.more(8)
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) byte() byte {
	if len(d.b) == 0 && d.left > 0 {
		d.more(1)
	}
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool { return d.byte() == 1 }

// count reads a number of things of at least one byte each, so that a damaged one allocates
// nothing.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b))+uint64(d.left) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errShort
	}
	d.b, d.left = nil, 0
}

// done reports a fault, or bytes that nobody read.
func (d *decoder) done() error {
	if d.err == nil && len(d.b)+int(d.left) > 0 {
		d.err = errors.New("there are bytes behind the end")
	}
	return d.err
}
