package logsource

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
)

// Journal says how much is written before a hand-out.
type Journal uint8

const (
	// JournalHandOuts writes every hand-out, one write for all that one Receive returns, before a
	// handler sees it. The next owner knows each message that was in flight, and a message that
	// kills its process is found. The write is fenced, so a member that has lost a partition and
	// was not told yet hands out nothing more of it. The default.
	JournalHandOuts Journal = iota
	// JournalCeiling writes only up to where hand-outs may have come, once for all that was read.
	// It saves writes. After a crash the next owner knows no more than that these messages may have
	// been handed out: their cause is CauseUnknown and no crash is counted. A member that has lost
	// a partition may hand out more of it until it is told.
	JournalCeiling
)

// Options configure a Source. The zero value is ready to use.
type Options struct {
	// Pipeline is the name that goes into events. Default: "".
	Pipeline string
	// Consumer is this member's name in histories. Default: the owner's number in hex.
	Consumer string
	// Owner tells this member apart from all others in notes. It must differ at every start of a
	// process, else a crash is not seen. Default: random.
	Owner uint64
	// Journal says how much is written before a hand-out. Default: JournalHandOuts.
	Journal Journal
	// NoteBytes bounds a note, at least MinNoteBytes. An adapter sets it to what its place holds
	// (Kafka's commit metadata is text of 4096 bytes, so 3072 in base64). No more messages are
	// handed out at a time than a note can name. Default: 4096.
	NoteBytes int
	// CommitEvery is how long a settlement may wait to be written. With 0, the default, Settle
	// answers when it is written; calls at the same time share one write. Otherwise Settle answers
	// at once, and a crash brings back what was settled that long before.
	CommitEvery time.Duration
	// CommitTimeout bounds one Log.Commit. Default: 30 s.
	CommitTimeout time.Duration
	// RetryEvery is the pause before a failed write of a leaving or late partition is repeated.
	// Default: 500 ms.
	RetryEvery time.Duration
	// LostGrace is how long a handler is taken to run on after its partition was lost, unless it
	// settles before. A crash within that time charges no message, it makes suspects. Default:
	// 1 min.
	LostGrace time.Duration
	// PollMessages bounds the records of one Log.Poll. A window may be exceeded by so many.
	// Default: 512.
	PollMessages int
	// PartitionMessages and PartitionBytes bound a partition's window: what was read and is above
	// its position. At the bound the partition is paused. Default: 8192 and 64 MiB.
	PartitionMessages int
	PartitionBytes    int
	// TotalMessages and TotalBytes bound all windows together: each partition gets an equal share,
	// so that one that is stuck takes nothing from the others. Default: 65,536 and 256 MiB.
	TotalMessages int
	TotalBytes    int
	// MaxDelay is the longest delay of a nack or snooze; longer ones are cut. A delayed message
	// stays in memory and holds its key. Default: 24 h.
	MaxDelay time.Duration
	// MaxHistory bounds the past attempts that a delivery carries; the latest are kept. They are
	// this owner's only: notes carry counts, not histories. Default: 16.
	MaxHistory int
	// MaxRemembered bounds the settlements that are remembered so that a repeated one is answered
	// with Already, or ErrSettled. Older ones get ErrLeaseLost. Default: 8192.
	MaxRemembered int
	// Observe is told of what happens, see ackwise.Event. Its kinds are "assigned", "revoked",
	// "released", "lost", "paused", "resumed", "note-full", "note-unreadable" and "commit-failed",
	// where ID is the partition's name, and "stuck": a message for which a full window waits,
	// though most of the window is settled. Default: nil.
	Observe func(ackwise.Event)
}

// MinNoteBytes is the least that Options.NoteBytes may be. A position may have at most an eighth
// of NoteBytes.
const MinNoteBytes = 256

func (o Options) withDefaults() Options {
	if o.Owner == 0 {
		var b [8]byte
		rand.Read(b[:]) // never fails, see crypto/rand
		o.Owner = binary.BigEndian.Uint64(b[:]) | 1
	}
	o.Consumer = cmp.Or(o.Consumer, fmt.Sprintf("%016x", o.Owner))
	o.NoteBytes = cmp.Or(o.NoteBytes, 4096)
	o.CommitTimeout = cmp.Or(o.CommitTimeout, 30*time.Second)
	o.RetryEvery = cmp.Or(o.RetryEvery, 500*time.Millisecond)
	o.LostGrace = cmp.Or(o.LostGrace, time.Minute)
	o.PollMessages = cmp.Or(o.PollMessages, 512)
	o.PartitionMessages = cmp.Or(o.PartitionMessages, 8192)
	o.PartitionBytes = cmp.Or(o.PartitionBytes, 64<<20)
	o.TotalMessages = cmp.Or(o.TotalMessages, 65_536)
	o.TotalBytes = cmp.Or(o.TotalBytes, 256<<20)
	o.MaxDelay = cmp.Or(o.MaxDelay, 24*time.Hour)
	o.MaxHistory = cmp.Or(o.MaxHistory, 16)
	o.MaxRemembered = cmp.Or(o.MaxRemembered, 8192)
	return o
}

func (o Options) validate() error {
	var faults []error
	fault := func(field, reason string) {
		faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
	}
	for name, v := range map[string]int64{
		"CommitTimeout": int64(o.CommitTimeout), "RetryEvery": int64(o.RetryEvery),
		"LostGrace": int64(o.LostGrace), "PollMessages": int64(o.PollMessages),
		"PartitionMessages": int64(o.PartitionMessages),
		"PartitionBytes":    int64(o.PartitionBytes), "TotalMessages": int64(o.TotalMessages),
		"TotalBytes": int64(o.TotalBytes), "MaxDelay": int64(o.MaxDelay),
		"MaxHistory": int64(o.MaxHistory), "MaxRemembered": int64(o.MaxRemembered),
	} {
		if v < 0 {
			fault(name, "it is negative")
		}
	}
	if o.CommitEvery < 0 {
		fault("CommitEvery", "it is negative")
	}
	if o.NoteBytes < MinNoteBytes {
		fault("NoteBytes", fmt.Sprintf("%d is less than %d", o.NoteBytes, MinNoteBytes))
	}
	if o.Journal > JournalCeiling {
		fault("Journal", "no such mode")
	}
	return errors.Join(faults...)
}
