package logsource

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/texts"
)

// token is what a lease token says: which member, which of its assignments, which message, and
// which hand-out of it.
type token struct{ owner, epoch, ord, handOut uint64 }

// The longest token.
const (
	tokenBytes = 8 + 3*binary.MaxVarintLen64
	tokenText  = (tokenBytes*8 + 5) / 6
)

func (t token) encode(pages *texts.Pages) ackwise.LeaseToken {
	var room [tokenBytes]byte
	var text [tokenText]byte
	b := binary.BigEndian.AppendUint64(room[:0], t.owner)
	b = binary.AppendUvarint(b, t.epoch)
	b = binary.AppendUvarint(b, t.ord)
	b = binary.AppendUvarint(b, t.handOut)
	return ackwise.LeaseToken(pages.Add(base64.RawURLEncoding.AppendEncode(text[:0], b)))
}

func decodeToken(s ackwise.LeaseToken) (t token, ok bool) {
	var room [tokenBytes]byte
	var text [tokenText]byte
	if len(s) > tokenText {
		return token{}, false
	}
	n, err := base64.RawURLEncoding.Decode(room[:], text[:copy(text[:], s)])
	if err != nil || n < 8 {
		return token{}, false
	}
	b := room[:n]
	t.owner, b = binary.BigEndian.Uint64(b), b[8:]
	for _, field := range [...]*uint64{&t.epoch, &t.ord, &t.handOut} {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return token{}, false
		}
		*field, b = v, b[n:]
	}
	return t, len(b) == 0
}
