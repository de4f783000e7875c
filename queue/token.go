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

const tokenBytes = 28

func (t token) encode() ackwise.LeaseToken {
	var b [tokenBytes]byte
	binary.BigEndian.PutUint64(b[0:], t.store)
	binary.BigEndian.PutUint32(b[8:], t.sub)
	binary.BigEndian.PutUint64(b[12:], t.seq)
	binary.BigEndian.PutUint64(b[20:], t.gen)
	return ackwise.LeaseToken(base64.RawURLEncoding.EncodeToString(b[:]))
}

func decodeToken(s ackwise.LeaseToken) (token, error) {
	var b [tokenBytes]byte
	if base64.RawURLEncoding.DecodedLen(len(s)) != tokenBytes {
		return token{}, ackwise.ErrBadToken
	}
	if _, err := base64.RawURLEncoding.Decode(b[:], []byte(s)); err != nil {
		return token{}, ackwise.ErrBadToken
	}
	return token{store: binary.BigEndian.Uint64(b[0:]), sub: binary.BigEndian.Uint32(b[8:]),
		seq: binary.BigEndian.Uint64(b[12:]), gen: binary.BigEndian.Uint64(b[20:])}, nil
}

func (s *Store) storeNumber() uint64 {
	id := s.log.StoreID()
	return binary.BigEndian.Uint64(id[:8])
}

// position is a log position as others see it: its text sorts as the number does.
func position(pos uint64) ackwise.Position {
	var b [8]byte
	var text [16]byte
	binary.BigEndian.PutUint64(b[:], pos)
	hex.Encode(text[:], b[:])
	return ackwise.Position(text[:])
}

func parsePosition(p ackwise.Position) (uint64, error) {
	b, err := hex.DecodeString(string(p))
	if err != nil || len(b) != 8 {
		return 0, &ackwise.InvalidError{Field: "position", Value: string(p),
			Reason: "a position has 16 hexadecimal digits, as a publish returned it"}
	}
	return binary.BigEndian.Uint64(b), nil
}
