package queue

import (
	"testing"

	"github.com/ackwise/ackwise"
)

func FuzzToken(f *testing.F) {
	f.Add(string(token{store: 1, sub: 2, seq: 3, gen: 4}.encode()))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := decodeToken(ackwise.LeaseToken(s))
		if err == nil && decodeBack(t, tok) != tok {
			t.Errorf("token %q does not come back", s)
		}
	})
}

func decodeBack(t *testing.T, tok token) token {
	t.Helper()
	back, err := decodeToken(tok.encode())
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestPositionsSortAsTheirNumbers(t *testing.T) {
	last := ackwise.Position("")
	for _, pos := range []uint64{0, 1, 255, 256, 1 << 32, 1<<63 + 5} {
		p := position(pos)
		back, err := parsePosition(p)
		if err != nil || back != pos || p <= last {
			t.Errorf("position %d is %q after %q, and reads back as %d, %v", pos, p, last, back, err)
		}
		last = p
	}
}

// The decoder of base64 passes over line ends, and would make a shorter token whole with zeros.
func TestTokensWithLineEndsAreRefused(t *testing.T) {
	text := token{store: 1, sub: 2, seq: 3, gen: 4}.text()
	text[tokenText-1], text[tokenText-2] = '\n', '\n'
	if tok, err := decodeToken(ackwise.LeaseToken(text[:])); err == nil {
		t.Errorf("token %q is read as %v", text, tok)
	}
}
