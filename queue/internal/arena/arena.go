// Package arena holds the memory that the messages of one batch share: texts and bytes, cut from
// chunks. It frees nothing; the garbage collector frees a chunk when nobody holds a piece of it.
package arena

import "github.com/ackwise/ackwise/internal/texts"

// Arena is the memory that the messages of one batch share, so that a message costs no allocation
// of its own. It comes in chunks: a message that is kept for long keeps a chunk of each kind alive,
// and not the batch. Its zero value makes every piece by itself. It is for one goroutine.
type Arena struct {
	bytes []byte      // the rest of a chunk: header values and bodies
	left  int         // bytes that are still to come
	text  texts.Pages // IDs, keys and what else is text
}

const (
	bytesChunk = 64 << 10
	largeBytes = 8 << 10 // longer ones are made by themselves: they would waste a chunk's rest
	textChunk  = 16 << 10
	textGuess  = 96 // bytes of a message's text, mostly: ID, key, token and position
)

// New returns the memory for so many messages, whose records are so long together.
func New(messages, size int) *Arena {
	return &Arena{left: size, text: texts.Pages{Size: min(messages*textGuess, textChunk)}}
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

// String returns the text of b.
func (a *Arena) String(b []byte) string {
	if a.text.Size == 0 {
		return string(b)
	}
	return a.text.Add(b)
}
