package state

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/ackwise/ackwise"
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
func (r *Publish) Append(b []byte) []byte {
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
	return append(b, m.Body...)
}

// DecodePublish reads a Publish record; the topic's name is not in it. Headers and body are copies
// where own is set, else parts of payload.
func DecodePublish(payload []byte, own bool) (*Publish, error) {
	d := decoder{b: payload}
	r := &Publish{Now: d.int(), Topic: uint32(d.uint()), Due: d.int()}
	flags := d.byte()
	r.Given = flags&flagGiven != 0
	m := &r.Message
	m.ID, m.Key = d.string(), d.string()
	if flags&flagTime != 0 {
		m.Time = time.Unix(0, d.int()).UTC()
	}
	if n := d.count(); n > 0 {
		m.Headers = make([]ackwise.Header, n)
		for i := range m.Headers {
			m.Headers[i] = ackwise.Header{Name: d.string(), Value: bytesOf(d.bytes(), own)}
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	if flags&flagBody != 0 {
		m.Body = bytesOf(d.b, own)
	}
	return r, nil
}

func bytesOf(b []byte, own bool) []byte {
	if !own {
		return b
	}
	return append(make([]byte, 0, len(b)), b...)
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

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sumOf tells two contents of one ID apart.
func sumOf(m *ackwise.Message) uint64 {
	var tag [9]byte
	binary.LittleEndian.PutUint64(tag[:], uint64(len(m.Body)))
	if m.Body == nil {
		tag[8] = 1
	}
	a := crc32.Update(crc32.Checksum(m.Body, castagnoli), castagnoli, tag[:])
	b := crc32.Update(crc32.ChecksumIEEE(m.Body), crc32.IEEETable, []byte(m.Key))
	return uint64(a)<<32 | uint64(b)
}
