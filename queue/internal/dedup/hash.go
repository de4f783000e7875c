package dedup

import (
	"encoding/binary"
	"math/bits"
)

// seed makes a store's hashes its own, so that a producer cannot prepare IDs that collide. A
// collision costs a comparison and nothing else: a match is always made on the whole ID.
type seed struct{ a, b uint64 }

func seedOf(storeID [16]byte) seed {
	a, b := binary.LittleEndian.Uint64(storeID[:]), binary.LittleEndian.Uint64(storeID[8:])
	return seed{mix(a^0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9),
		mix(b^0x94D049BB133111EB, 0xD6E8FEB86659FD93) | 1}
}

// hash takes eight bytes a step. Every bit of a step reaches all 64 bits through the folded
// 128-bit product; the length tells an ID from one that ends in zeros. Files hold these hashes: the
// function is part of the format.
func (s seed) hash(id string) uint64 {
	h, n := s.a, uint64(len(id))
	for ; len(id) >= 8; id = id[8:] {
		h = mix(h^word(id), s.b)
	}
	if len(id) > 0 {
		var last [8]byte
		copy(last[:], id)
		h = mix(h^binary.LittleEndian.Uint64(last[:]), s.b)
	}
	h = mix(h^s.b, 0x9E3779B97F4A7C15+n<<32)
	return h ^ h>>32
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// word reads eight bytes of a string; the compiler makes one load of it.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}
