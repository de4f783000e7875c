package attr

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/ackwise/ackwise"
)

const (
	maxToken = 128 // characters of a group ID and of a deduplication ID
	hashed   = "~" // begins those that are no key or ID themselves
)

// Group is the MessageGroupId of a message on FIFO queues and topics: its key where the services
// take that as it is, else its hash. A message without a key has a group of its own.
func Group(m *ackwise.Message) string {
	if m.Key == "" {
		return hashed + "id-" + hash(m.ID)
	}
	return token(m.Key)
}

// DedupID is the MessageDeduplicationId of a message: what the services call a repeated one by for
// 5 minutes. It is the ID. A message that an operator ordered again, or that was redriven, is
// another one for them, and so is a dead letter of another pipeline: as a repeated one it would be
// swallowed.
func DedupID(m *ackwise.Message) string {
	var more []string
	for _, name := range []string{ackwise.HeaderEpoch, ackwise.HeaderRedrives, ackwise.HeaderPipeline} {
		if v, ok := m.Header(name); ok && string(v) != "0" {
			more = append(more, name+"="+string(v))
		}
	}
	if len(more) == 0 {
		return token(m.ID)
	}
	return hashed + hash(m.ID+"\x00"+strings.Join(more, "\x00"))
}

// token is a text as the services take it: ASCII without spaces and control characters.
func token(s string) string {
	plain := len(s) <= maxToken && !strings.HasPrefix(s, hashed)
	for _, c := range []byte(s) {
		plain = plain && c > ' ' && c < 0x7f
	}
	if plain {
		return s
	}
	return hashed + hash(s)
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
