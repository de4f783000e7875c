package queue

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"

	"github.com/ackwise/ackwise"
)

// token is what a lease token says. The generation holds the number of the owner's term, so that no
// token ever names two hand-outs, and the store's identity keeps a copied directory's tokens apart.
//
//	store 8 bytes · subscription 4 · sequence 8 · generation 8, big-endian, as base64url
type token struct {
	store uint64
	sub   uint32
	seq   uint64
	gen   uint64
}

const (
	tokenBytes = 28
	tokenText  = 38 // as base64url
)

func (t token) encode() ackwise.LeaseToken {
	text := t.text()
	return ackwise.LeaseToken(text[:])
}

func (t token) text() (text [tokenText]byte) {
	var b [tokenBytes]byte
	binary.BigEndian.PutUint64(b[0:], t.store)
	binary.BigEndian.PutUint32(b[8:], t.sub)
	binary.BigEndian.PutUint64(b[12:], t.seq)
	binary.BigEndian.PutUint64(b[20:], t.gen)
	base64.RawURLEncoding.Encode(text[:], b[:])
	return text
}

func decodeToken(s ackwise.LeaseToken) (token, error) {
	var b [tokenBytes]byte
	var text [tokenText]byte // a conversion would be an allocation
	if len(s) != tokenText {
		return token{}, ackwise.ErrBadToken
	}
	copy(text[:], s)
	if n, err := base64.RawURLEncoding.Decode(b[:], text[:]); err != nil || n != tokenBytes {
		return token{}, ackwise.ErrBadToken
	}
	return token{store: binary.BigEndian.Uint64(b[0:]), sub: binary.BigEndian.Uint32(b[8:]),
		seq: binary.BigEndian.Uint64(b[12:]), gen: binary.BigEndian.Uint64(b[20:])}, nil
}

func (s *Store) storeNumber() uint64 { return s.number }

// position is a log position as others see it: its text sorts as the number does.
func position(pos uint64) ackwise.Position {
	text := positionText(pos)
	return ackwise.Position(text[:])
}

func positionText(pos uint64) (text [16]byte) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], pos)
	hex.Encode(text[:], b[:])
	return text
}

func parsePosition(p ackwise.Position) (uint64, error) {
	b, err := hex.DecodeString(string(p))
	if err != nil || len(b) != 8 {
		return 0, &ackwise.InvalidError{Field: "position", Value: string(p),
			Reason: "a position has 16 hexadecimal digits, as a publish returned it"}
	}
	return binary.BigEndian.Uint64(b), nil
}
