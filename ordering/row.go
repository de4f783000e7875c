package ordering

import (
	"encoding/binary"
	"errors"

	"github.com/ackwise/ackwise"
)

// A row, all numbers uvarints but the sums, which have 8 bytes:
//
//	by number   1 · next · since · floor · spans: count, (first, length) … · sums: count, sum …
//	by stamp    2 · the last stamp that was let go, as text
const (
	rowNumber = 1
	rowStamp  = 2
)

var errRow = errors.New("it was not written by this kind of resequencer")

// Row returns what has to be kept of a known key.
func (r *Resequencer) Row(key string) []byte {
	l := r.lanes[key]
	if r.opt.ByStamp {
		return append([]byte{rowStamp}, r.stampOf(l.gone).String()...)
	}
	b := make([]byte, 0, 24+len(l.sums)*8+len(l.given)*8)
	b = append(b, rowNumber)
	for _, v := range []uint64{l.next, uint64(l.since), l.floor, uint64(len(l.given))} {
		b = binary.AppendUvarint(b, v)
	}
	for _, s := range l.given {
		b = binary.AppendUvarint(binary.AppendUvarint(b, s.first), s.last-s.first)
	}
	b = binary.AppendUvarint(b, uint64(len(l.sums)))
	for _, s := range l.sums {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	return b
}

func (r *Resequencer) decodeRow(l *lane, b []byte) error {
	if r.opt.ByStamp {
		return r.decodeStampRow(l, b)
	}
	if len(b) == 0 || b[0] != rowNumber {
		return errRow
	}
	b = b[1:]
	ok := true
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		if ok = ok && n > 0; !ok {
			return 0
		}
		b = b[n:]
		return v
	}
	l.next, l.since, l.floor = number(), int64(number()), number()
	for n := number(); ok && n > 0; n-- {
		first := number()
		l.given = append(l.given, span{first, first + number()})
	}
	count := number()
	if !ok || count*8 != uint64(len(b)) || count > uint64(len(b)) {
		return errRow
	}
	for ; len(b) > 0; b = b[8:] {
		l.sums = append(l.sums, binary.BigEndian.Uint64(b))
	}
	return nil
}

func (r *Resequencer) decodeStampRow(l *lane, b []byte) error {
	if len(b) == 0 || b[0] != rowStamp {
		return errRow
	}
	s, err := ackwise.ParseStamp(string(b[1:]))
	if err != nil {
		return err
	}
	if s.IsZero() {
		return nil
	}
	l.gone = r.rankOf(&Arrival{Key: l.key, Stamp: s})
	return nil
}
