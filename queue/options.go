package queue

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/state"
)

// SyncPolicy says when a publish is durable.
type SyncPolicy uint8

const (
	// SyncAlways answers a publish when it is written and synced. The default.
	SyncAlways SyncPolicy = iota
	// SyncNever answers when it is written and never syncs while open. A killed process loses
	// nothing; a power cut or a crashed kernel loses what the system had not written by itself,
	// acknowledged or not. For data that can be had again.
	SyncNever
)

// Options configure a Store. The zero value is ready to use.
type Options struct {
	// Sync says when a publish is durable. Default: SyncAlways.
	Sync SyncPolicy
	// SegmentBytes is the size at which the log goes on in a new file. Default: 64 MiB.
	SegmentBytes int64
	// FreeSegments is how many freed files of the log are kept to be written again, which is up to
	// twice as fast as a file that grows. Default: 4.
	FreeSegments int
	// CheckpointBytes is how far the log grows between two checkpoints. Default: SegmentBytes.
	CheckpointBytes int64
	// MaxBodyBytes bounds the body of one message. Default: 1 MiB.
	MaxBodyBytes int
	// MaxBatch bounds the messages of one Publish and of one Receive, and the keys of one Claim.
	// Default: 4096.
	MaxBatch int
	// MaxBatchBytes bounds the bytes of one Publish, and so MaxBodyBytes; at most 512 MiB, since a
	// transaction is written in one piece. Default: 16 MiB.
	MaxBatchBytes int
	// MinFreeBytes is what publish leaves free on the disk, so that settlements and checkpoints
	// still have room: with less, it is refused with ErrFull. Default: 16 MiB.
	MinFreeBytes int64
	// ReserveBytes is the size of a file that keeps room for a disk on which others have taken the
	// last byte: settlements, checkpoints and opening the store use it up, publish is refused with
	// ErrFull until it is whole again, and Receive waits where it would not suffice to settle what
	// is in flight, at 2 KiB each, as do extensions of claims and completions with results, which
	// are then ErrFull. Default: 8 MiB, or SegmentBytes where that is less.
	ReserveBytes int64
	// MaxTableBytes bounds the bytes of all tables together. Default: 64 MiB.
	MaxTableBytes int
	// Logger gets what an operator should see. Default: nothing is logged.
	Logger *slog.Logger
	// Observe is told of what happens, see ackwise.Event; it must not call the store. Its kinds
	// are "published", "handed-out", "settled", "redriven" (dead letters were, or were dropped),
	// "fatal". Default: nil.
	Observe func(ackwise.Event)
	// Process says which process this is, so that a later owner can tell whether a session's
	// process still lives. Default: read from the operating system.
	Process string

	bucketIDs int // that close a bucket of dedup IDs, for tests. Default: the package's
}

// fill sets defaults and reports every fault at once.
func (o *Options) fill() error {
	setDefault(&o.SegmentBytes, 64<<20)
	setDefault(&o.FreeSegments, 4)
	setDefault(&o.CheckpointBytes, o.SegmentBytes)
	setDefault(&o.MaxBodyBytes, 1<<20)
	setDefault(&o.MaxBatch, 4096)
	setDefault(&o.MaxBatchBytes, 16<<20)
	setDefault(&o.MinFreeBytes, 16<<20)
	setDefault(&o.ReserveBytes, min(8<<20, o.SegmentBytes))
	setDefault(&o.MaxTableBytes, 64<<20)
	setDefault(&o.Process, ProcessID(0))
	if o.Logger == nil {
		o.Logger = discard
	}
	return errors.Join(o.contradictions(),
		atLeast("SegmentBytes", o.SegmentBytes, 1<<16),
		atLeast("FreeSegments", o.FreeSegments, 1),
		atLeast("CheckpointBytes", o.CheckpointBytes, 1<<16),
		atLeast("MaxBodyBytes", o.MaxBodyBytes, 1),
		atLeast("MaxBatch", o.MaxBatch, 1),
		atLeast("MaxBatchBytes", o.MaxBatchBytes, 1),
		atLeast("MinFreeBytes", o.MinFreeBytes, 0),
		atLeast("ReserveBytes", o.ReserveBytes, 16<<10),
		atLeast("MaxTableBytes", o.MaxTableBytes, 0),
	)
}

// maxUnitBytes leaves room for headers, keys and settlements in what the log writes in one piece.
const maxUnitBytes = 512 << 20

// contradictions reports fields that cannot hold together.
func (o *Options) contradictions() error {
	return errors.Join(
		refuse(o.Sync > SyncNever, "Sync", "it is neither SyncAlways nor SyncNever"),
		refuse(o.MaxBatchBytes < o.MaxBodyBytes, "MaxBatchBytes", "it is %d, less than "+
			"MaxBodyBytes, %d: the largest messages could not be published", o.MaxBatchBytes,
			o.MaxBodyBytes),
		refuse(o.MaxBatchBytes > maxUnitBytes, "MaxBatchBytes", "it is %d, more than the %d "+
			"that the log can write in one piece", o.MaxBatchBytes, maxUnitBytes),
	)
}

// refuse reports a field where it does not do.
func refuse(bad bool, field, reason string, args ...any) error {
	if !bad {
		return nil
	}
	return &ackwise.InvalidError{Field: field, Reason: fmt.Sprintf(reason, args...)}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func atLeast[T ~int | ~int64](field string, value, least T) error {
	if value < least {
		return &ackwise.InvalidError{Field: field,
			Reason: fmt.Sprintf("it is %d, at least %d is needed", value, least)}
	}
	return nil
}

// OnDead says what happens to the later messages of a key when one of them becomes a dead letter.
type OnDead uint8

const (
	// Skip lets the key go on without the dead letter. The default.
	Skip OnDead = iota
	// Hold parks the later messages of the key until the dead letter is redriven or dropped.
	Hold
)

// String returns "skip" or "hold".
func (o OnDead) String() string {
	if o == Hold {
		return "hold"
	}
	return "skip"
}

// TopicOptions configure a topic. The zero value is ready to use.
type TopicOptions struct {
	// MaxMessages bounds the messages kept. At the bound publish is refused with ErrFull.
	// Default: 100 million.
	MaxMessages int
	// MaxBytes bounds the bytes kept. Default: 64 GiB.
	MaxBytes int64
	// RetainAge keeps messages at least this long, also when every subscription is done with
	// them, for subscriptions that start at a time or position. Default: 0, only while needed.
	RetainAge time.Duration
	// RetainBytes keeps up to so many bytes of messages that nobody needs any more, within
	// RetainAge where that is set too, and less than MaxBytes where it is not. Default: 0.
	RetainBytes int64
	// DedupWindow is how long an ID that the producer gave is remembered. Default: 5 min.
	// NoDedup turns it off.
	DedupWindow time.Duration
	// MaxDedupIDs bounds the IDs remembered. At the bound publish is refused with ErrFull; an ID
	// is never forgotten early. IDs are let go by eighths of the window, and count until then. Each
	// takes some 2 bytes of memory, and 31 of the disk beside its own. With NoDedup it is left
	// out. Default: 16,777,216.
	MaxDedupIDs int
}

// config is what the log keeps of the options, with defaults set.
func (o TopicOptions) config() (state.TopicConfig, error) {
	idle := refuse(o.DedupWindow == NoDedup && o.MaxDedupIDs != 0, "MaxDedupIDs",
		"it is %d, and DedupWindow is NoDedup: no ID would be remembered", o.MaxDedupIDs)
	setDefault(&o.MaxMessages, 100_000_000)
	setDefault(&o.MaxBytes, 64<<30)
	setDefault(&o.DedupWindow, 5*time.Minute)
	setDefault(&o.MaxDedupIDs, 1<<24)
	if o.DedupWindow == NoDedup {
		o.DedupWindow = 0
	}
	err := errors.Join(idle,
		refuse(o.DedupWindow > 0 && o.DedupWindow < time.Millisecond, "DedupWindow",
			"it is %s, at least 1ms is needed; NoDedup turns dedup off", o.DedupWindow),
		refuse(o.RetainAge > 0 && o.RetainAge < time.Millisecond, "RetainAge",
			"it is %s, at least 1ms is needed", o.RetainAge),
		refuse(o.RetainAge == 0 && o.RetainBytes >= o.MaxBytes, "RetainBytes", "it is %d, not "+
			"less than MaxBytes, %d: what nobody needs would fill the topic for ever",
			o.RetainBytes, o.MaxBytes),
		atLeast("MaxMessages", o.MaxMessages, 1),
		atLeast("MaxBytes", o.MaxBytes, 1),
		atLeast("RetainAge", o.RetainAge, 0),
		atLeast("RetainBytes", o.RetainBytes, 0),
		atLeast("DedupWindow", o.DedupWindow, 0),
		atLeast("MaxDedupIDs", o.MaxDedupIDs, 1),
	)
	return state.TopicConfig{MaxMessages: o.MaxMessages, MaxBytes: o.MaxBytes,
		RetainMillis: o.RetainAge.Milliseconds(), RetainBytes: o.RetainBytes,
		DedupMillis: o.DedupWindow.Milliseconds(), MaxDedupIDs: o.MaxDedupIDs}, err
}

func topicOptions(c state.TopicConfig) TopicOptions {
	o := TopicOptions{MaxMessages: c.MaxMessages, MaxBytes: c.MaxBytes,
		RetainAge: time.Duration(c.RetainMillis) * time.Millisecond, RetainBytes: c.RetainBytes,
		DedupWindow: time.Duration(c.DedupMillis) * time.Millisecond, MaxDedupIDs: c.MaxDedupIDs}
	if c.DedupMillis == 0 {
		o.DedupWindow, o.MaxDedupIDs = NoDedup, 0
	}
	return o
}

// NoDedup as a TopicOptions.DedupWindow turns producer dedup off.
const NoDedup time.Duration = -1

// Start says where a new subscription begins: one field at most. The zero value is the beginning:
// the oldest kept.
type Start struct {
	// Now means only what is published from now on.
	Now bool `json:"now,omitempty"`
	// Position begins at a publish receipt's position.
	Position ackwise.Position `json:"position,omitempty"`
	// Time begins at the first message that was accepted then or later, to the second.
	Time time.Time `json:"time,omitzero"`
}

// check refuses a start at two places.
func (s Start) check() error {
	var given []string
	if s.Now {
		given = append(given, "Now")
	}
	if s.Position != "" {
		given = append(given, "Position")
	}
	if !s.Time.IsZero() {
		given = append(given, "Time")
	}
	return refuse(len(given) > 1, "Start", "it says %s; one of them is needed",
		strings.Join(given, " and "))
}

// SubscriptionOptions configure a subscription. The zero value is ready to use.
type SubscriptionOptions struct {
	// Ordered hands out at most one live lease a key, in the order of the log. Default: false.
	Ordered bool
	// OnDead says what a dead letter does to its key; Hold needs Ordered. Default: Skip.
	OnDead OnDead
	// Start says where it begins; what is no longer kept is refused. Default: the oldest kept.
	Start Start
	// Lease is how long a hand-out is held before it is handed out again. Default: 30 s.
	Lease time.Duration
	// MaxParked bounds parked messages and dead letters together. At it, publish is refused for
	// parked keys; if dead letters alone reach it, hand-outs pause. Default: 1 million.
	MaxParked int
	// MaxWaiting bounds how many messages may wait in memory out of turn (in flight, delayed, or
	// behind one of their key). At it, no newer ones are looked at. Default: 1 million.
	MaxWaiting int
}

// config is what the log keeps of the options, with defaults set.
func (o SubscriptionOptions) config() (state.SubConfig, error) {
	setDefault(&o.Lease, 30*time.Second)
	setDefault(&o.MaxParked, 1_000_000)
	setDefault(&o.MaxWaiting, 1_000_000)
	var hold error
	if o.OnDead == Hold && !o.Ordered {
		hold = &ackwise.InvalidError{Field: "OnDead", Value: "hold",
			Reason: "only an ordered subscription can hold a key; set Ordered"}
	}
	err := errors.Join(hold, o.Start.check(),
		refuse(o.OnDead > Hold, "OnDead", "it is neither Skip nor Hold"),
		atLeast("Lease", o.Lease, time.Millisecond),
		atLeast("MaxParked", o.MaxParked, 1),
		atLeast("MaxWaiting", o.MaxWaiting, 1),
	)
	return state.SubConfig{Ordered: o.Ordered, Hold: o.OnDead == Hold,
		LeaseMillis: o.Lease.Milliseconds(), MaxParked: o.MaxParked,
		MaxWaiting: o.MaxWaiting}, err
}

func subscriptionOptions(c state.SubConfig) SubscriptionOptions {
	o := SubscriptionOptions{Ordered: c.Ordered,
		Lease:     time.Duration(c.LeaseMillis) * time.Millisecond,
		MaxParked: c.MaxParked, MaxWaiting: c.MaxWaiting}
	if c.Hold {
		o.OnDead = Hold
	}
	return o
}

// ReceiverOptions configure one consumer's session. The zero value is ready to use.
type ReceiverOptions struct {
	// Name is the consumer's name in histories. Default: the process.
	Name string
	// Lease overrides the subscription's. Default: 0, the subscription's.
	Lease time.Duration
	// MaxInFlight bounds what the session holds at once. Default: 10,000.
	MaxInFlight int
	// SyncAcks makes every settlement wait for the disk: a power cut then brings nothing back.
	// Default: false, a settlement survives a killed process only.
	SyncAcks bool
	// Session names the session for one that comes back: a session of this name that is still
	// known is taken up again with its leases. Default: a new name.
	Session string
	// Foreign says that the session belongs to another process than the store's: it outlives the
	// store's owner, and may be taken up again at the next one. Default: false.
	Foreign bool
	// Process is the foreign process, as ProcessID wrote it there. Default: unknown.
	Process string
}
