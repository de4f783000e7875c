package state

import (
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/arena"
)

// Publish is the record of one accepted message; its payload is where the body lives.
//
//	now       varint   when it was accepted, engine milliseconds
//	topic     uvarint  the topic's number
//	due       varint   when it takes its place, engine milliseconds; 0 = at once
//	flags     byte     what the message has, see below
//	id, key   bytes
//	time      varint   the producer's clock, Unix nanoseconds, where flagTime is set
//	headers   uvarint  how many, then name and value of each
//	body      bytes    the rest
type Publish struct {
	Now     int64
	Topic   uint32
	Due     int64
	Given   bool // the producer gave the ID: remember it for dedup
	Message ackwise.Message
}

const (
	flagGiven = 1 << iota // the producer gave the ID
	flagTime              // the message has a time
	flagBody              // the body is not nil
)

// Type returns the record's type.
func (r *Publish) Type() byte { return typePublish }

// Append encodes the record.
func (r *Publish) Append(b []byte) []byte { return append(r.Head(b), r.Message.Body...) }

// Head encodes the record but for the body, which is the rest of it: that need not be copied twice.
func (r *Publish) Head(b []byte) []byte {
	m := &r.Message
	b = putInt(b, r.Now)
	b = putUint(b, r.Topic)
	b = putInt(b, r.Due)
	var flags byte
	if r.Given {
		flags |= flagGiven
	}
	if !m.Time.IsZero() {
		flags |= flagTime
	}
	if m.Body != nil {
		flags |= flagBody
	}
	b = append(b, flags)
	b = putString(b, m.ID)
	b = putString(b, m.Key)
	if !m.Time.IsZero() {
		b = putInt(b, m.Time.UnixNano())
	}
	b = putUint(b, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		b = putString(b, h.Name)
		b = putString(b, h.Value)
	}
	return b
}

// DecodePublish reads a Publish record; the topic's name is not in it. The message's content is in
// memory of a; without one, headers and body are parts of payload.
func DecodePublish(payload []byte, a *arena.Arena) (Publish, error) {
	d := decoder{b: payload}
	r := Publish{Now: d.int(), Topic: uint32(d.uint()), Due: d.int()}
	flags := d.byte()
	r.Given = flags&flagGiven != 0
	m := &r.Message
	m.ID, m.Key = d.text(a), d.text(a)
	if flags&flagTime != 0 {
		m.Time = time.Unix(0, d.int()).UTC()
	}
	if n := d.count(); n > 0 {
		m.Headers = make([]ackwise.Header, n)
		for i := range m.Headers {
			m.Headers[i] = ackwise.Header{Name: d.text(a), Value: d.own(d.bytes(), a)}
		}
	}
	if flags&flagBody != 0 {
		m.Body = d.own(d.b, a)
	}
	return r, d.err
}

// text reads a string, into memory of a where there is one.
func (d *decoder) text(a *arena.Arena) string {
	if a == nil {
		return d.string()
	}
	return a.String(d.bytes())
}

// own returns b, which was read, in memory of a where there is one.
func (d *decoder) own(b []byte, a *arena.Arena) []byte {
	if a == nil || d.err != nil {
		return b
	}
	return a.Bytes(b)
}

// laneHash is the lane of a key: a 64-bit FNV-1a hash, 0 for no key. Two keys of one hash share a
// lane: they wait for each other, and nothing worse.
func laneHash(key string) uint64 {
	if key == "" {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return max(h, 1)
}
