package ddbstore

import (
	"time"

	"github.com/ackwise/ackwise/idempotency"
)

// The states of a key. A free one stays until TTL takes it, so that the fence grows.
const (
	claimed = "claimed"
	done    = "done"
	free    = "free"
)

// claim is what an item says of a key.
//
//	pk        "dedup#NAME#KEY"
//	dstate    claimed, done or free
//	fence     of the last claim
//	beat      how often that was extended
//	leaseMs   how long it is held without a word
//	nonce     of the ask that it was given to
//	psum      fingerprint of the payload
//	takeover  whether an earlier claim had run out
//	counted   where the key is counted
//	doneMs    when it was completed, by the clock of who did
//	reply     what the completion kept; missing = nothing
//	expires   when TTL may take the item, in seconds
type claim struct {
	state       string // "" = there is no item
	fence, beat int64
	lease       time.Duration
	nonce       [16]byte
	sum         idempotency.Sum
	takeover    bool
	bucket      int64
	doneMillis  int64
	result      []byte
	expires     time.Time // written only
}

// after is the claim as it is written in the place of what is there.
func (c claim) after(there claim, now time.Time, bucket int64) claim {
	c.fence = max(there.fence+1, now.UnixMicro())
	c.takeover = there.state == claimed
	c.bucket = bucket
	if c.takeover && c.sum == (idempotency.Sum{}) {
		c.sum = there.sum
	}
	c.expires = now.Add(c.lease)
	return c
}

// countedIn is the bucket that a key is counted in, 0 where it is in none.
func (c claim) countedIn() int64 {
	if c.state == free {
		return 0 // its release has taken it from the count
	}
	return c.bucket
}

// expiry is when TTL may take an item whose last word is over at end: long after it counts.
func (s *Store) expiry(end time.Time) int64 {
	return end.Add(s.o.Window+2*s.o.MaxSkew+cleanLate).Unix() + 1
}

func (s *Store) item(key string, c claim) item {
	return item{
		"pk":       text(s.pk(key)),
		"dstate":   text(c.state),
		"fence":    number(c.fence),
		"beat":     number(c.beat),
		"leaseMs":  number(millis(c.lease)),
		"nonce":    octets(c.nonce[:]),
		"psum":     octets(c.sum[:]),
		"takeover": flag(c.takeover),
		"counted":  number(c.bucket),
		"expires":  number(s.expiry(c.expires)),
	}
}

func readClaim(i item) claim {
	c := claim{
		state:      i.text("dstate"),
		fence:      i.number("fence"),
		beat:       i.number("beat"),
		lease:      time.Duration(i.number("leaseMs")) * time.Millisecond,
		takeover:   i.flag("takeover"),
		bucket:     i.number("counted"),
		doneMillis: i.number("doneMs"),
		result:     i.bytes("reply"),
	}
	copy(c.nonce[:], i.bytes("nonce"))
	copy(c.sum[:], i.bytes("psum"))
	return c
}

// millis rounds up, so that no lease is shorter than asked for.
func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }
