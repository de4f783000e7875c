package state

import (
	"encoding/binary"
	"errors"
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
	b   []byte
	err error
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns a part of the input, not a copy.
func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) byte() byte {
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
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = errShort
	}
	d.b = nil
}

// done reports a fault, or bytes that nobody read.
func (d *decoder) done() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = errors.New("there are bytes behind the end")
	}
	return d.err
}
