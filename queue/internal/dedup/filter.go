package dedup

import "math/bits"

const (
	// filterBits an ID, rounded up to whole lines. At 16 one absent ID in a thousand passes; at 12
	// it would be four, each of them a read of the disk for every bucket.
	filterBits = 16
	lineWords  = 8 // 64 bytes, a line of the processor's cache
	lineBytes  = lineWords * 8
)

// filter tells which hashes a bucket does not hold. A hash has one line, and one bit in each word
// of it, so that a look costs one cache miss.
type filter []uint64

func filterLines(count int) int { return (count*filterBits + lineBytes*8 - 1) / (lineBytes * 8) }

func newFilter(count int) filter { return make(filter, filterLines(count)*lineWords) }

// line returns a hash's line, and the bits of which it takes six a word. The line comes from the
// upper bits; the product gives the lower ones a say of their own.
func (f filter) line(hash uint64) (words []uint64, at uint64) {
	line, _ := bits.Mul64(hash, uint64(len(f)/lineWords))
	return f[line*lineWords:][:lineWords:lineWords], hash * 0x9FB21C651E98DF25
}

func (f filter) add(hash uint64) {
	words, at := f.line(hash)
	for i := range words {
		at = bits.RotateLeft64(at, 6)
		words[i] |= 1 << (at & 63)
	}
}

// may reports whether the hash may have been added. It decides once for all words: a branch for
// each would have the processor wait for this line before it asks for the next filter's.
func (f filter) may(hash uint64) bool {
	words, at := f.line(hash)
	absent := uint64(0)
	for _, w := range words {
		at = bits.RotateLeft64(at, 6)
		absent |= ^w >> (at & 63) & 1
	}
	return absent == 0
}
