// Package arena holds the memory that the messages of one batch share: texts and bytes, cut from
// chunks. It frees nothing; the garbage collector frees a chunk when nobody holds a piece of it.
package arena

import "strings"

// Arena is the memory that the messages of one batch share, so that a message costs no allocation
// of its own. It comes in chunks: a message that is kept for long keeps a chunk of each kind alive,
// and not the batch. Its zero value makes every piece by itself. It is for one goroutine.
type Arena struct {
	bytes []byte          // the rest of a chunk: header values and bodies
	left  int             // bytes that are still to come
	text  strings.Builder // a chunk: IDs, keys and what else is text
	texts int             // length of such a chunk
}

const (
	bytesChunk = 64 << 10
	largeBytes = 8 << 10 // longer ones are made by themselves: they would waste a chunk's rest
	textChunk  = 16 << 10
	textGuess  = 96 // bytes of a message's text, mostly: ID, key, token and position
)

// New returns the memory for so many messages, whose records are so long together.
func New(messages, size int) *Arena {
	return &Arena{left: size, texts: min(messages*textGuess, textChunk)}
}

// Bytes returns a copy of b, never nil.
func (a *Arena) Bytes(b []byte) []byte {
	n := len(b)
	if n > largeBytes {
		a.left -= n
		return append([]byte(nil), b...)
	}
	if a.bytes == nil || n > len(a.bytes) {
		a.bytes = make([]byte, max(n, min(a.left, bytesChunk)))
		a.left -= len(a.bytes)
	}
	own := a.bytes[:n:n] // what is appended to it does not reach its neighbour
	a.bytes = a.bytes[n:]
	copy(own, b)
	return own
}

// String returns the text of b. A Builder's text stays while more is written behind it.
func (a *Arena) String(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if a.text.Cap()-a.text.Len() < len(b) {
		a.text = strings.Builder{}
		a.text.Grow(max(a.texts, len(b)))
	}
	from := a.text.Len()
	a.text.Write(b)
	return a.text.String()[from:]
}
