package wal

import "testing"

// TestSeedTiesBytesToTheirPlace moves a whole group to where it must not be read: each of store,
// epoch, segment and position is enough to refuse it.
func TestSeedTiesBytesToTheirPlace(t *testing.T) {
	const pos = 4096
	store := [16]byte{1, 2, 3}
	seed := segmentSeed(store, 5, 6)
	group := make([]byte, headerBytes)
	r := Record{Type: 1, Payload: []byte("stale"), Pos: pos + headerBytes}
	group = appendRecord(group, &r)
	h := groupHeader{pos: pos, length: uint32(len(group) - headerBytes), count: 1}
	sealGroup(group, h, seed)
	for _, c := range []struct {
		name string
		seed uint32
		pos  uint64
		ok   bool
	}{
		{"its own place", seed, pos, true},
		{"another epoch", segmentSeed(store, 6, 6), pos, false},
		{"another segment", segmentSeed(store, 5, 7), pos, false},
		{"another store", segmentSeed([16]byte{1, 2, 4}, 5, 6), pos, false},
		{"another position", seed, pos + blockBytes, false},
	} {
		_, headErr := decodeGroupHeader(group, c.seed, c.pos)
		h := h
		h.pos = c.pos
		bodyErr := decodeRecords(h, group[headerBytes:], c.seed, nil)
		if (headErr == nil) != c.ok || (bodyErr == nil) != c.ok {
			t.Errorf("%s: header %v, records %v, want accepted = %v", c.name, headErr, bodyErr, c.ok)
		}
	}
}
