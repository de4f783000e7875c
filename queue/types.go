package queue

import (
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// Books are the counters of one subscription at one log position. They balance at every position:
// Accepted = Acked + Ready + Delayed + InFlight + Parked + Dead + Dropped.
type Books struct {
	Topic        string           `json:"topic"`
	Subscription string           `json:"subscription"`
	Position     ackwise.Position `json:"position"` // the log position they hold at
	Accepted     int64            `json:"accepted"` // since the subscription's start
	Acked        int64            `json:"acked"`
	Ready        int64            `json:"ready"`
	Delayed      int64            `json:"delayed"` // scheduled, snoozed, or waiting for a retry
	InFlight     int64            `json:"in_flight"`
	Parked       int64            `json:"parked"`
	Dead         int64            `json:"dead"`
	Dropped      int64            `json:"dropped"`
	// DroppedFor counts Dropped by reason; past 64 reasons the rest is under "other".
	DroppedFor map[string]int64 `json:"dropped_for"`
	// Causes counts hand-outs by their cause; causes without a hand-out are absent.
	Causes map[ackwise.Cause]int64 `json:"causes"`
	// Failures and Crashes count what was spent from the two budgets.
	Failures int64 `json:"failures"`
	Crashes  int64 `json:"crashes"`
}

// Balanced reports whether the books balance.
func (b Books) Balanced() bool {
	return b.Accepted == b.Acked+b.Ready+b.Delayed+b.InFlight+b.Parked+b.Dead+b.Dropped
}

// Waiting is how much will still be handed out without anybody's order: ready, delayed or in
// flight.
func (b Books) Waiting() int64 { return b.Ready + b.Delayed + b.InFlight }

// TopicInfo describes a topic.
type TopicInfo struct {
	Name          string       `json:"name"`
	Options       TopicOptions `json:"options"`
	Messages      int64        `json:"messages"`  // kept now
	Bytes         int64        `json:"bytes"`     // kept now
	Scheduled     int64        `json:"scheduled"` // of them, not due yet
	Published     int64        `json:"published"` // accepted ever
	ProducedAgain int64        `json:"produced_again"`
	DedupIDs      int64        `json:"dedup_ids"` // remembered now
	Subscriptions []string     `json:"subscriptions"`
}

// SubscriptionInfo describes a subscription.
type SubscriptionInfo struct {
	Topic    string              `json:"topic"`
	Name     string              `json:"name"`
	Options  SubscriptionOptions `json:"options"`
	Sessions []SessionInfo       `json:"sessions"`
	Books    Books               `json:"books"`
	// OldestWaiting is when the oldest message that is ready, delayed or in flight was accepted.
	OldestWaiting time.Time `json:"oldest_waiting,omitzero"`
}

// SessionInfo describes a consumer's session.
type SessionInfo struct {
	Session   string `json:"session"`
	Name      string `json:"name"`
	Connected bool   `json:"connected"` // false: its owner restarted and it has not come back
	InFlight  int    `json:"in_flight"`
}

// State is where a message is on a subscription.
type State string

// The states of the books.
const (
	StateReady    State = "ready"
	StateDelayed  State = "delayed"
	StateInFlight State = "in-flight"
	StateParked   State = "parked"
	StateDead     State = "dead"
)

// Peeked is a message seen without a hand-out.
type Peeked struct {
	Message  ackwise.Message   `json:"message"`
	State    State             `json:"state"`
	Position ackwise.Position  `json:"position"`
	Counts   ackwise.Counts    `json:"counts"`
	Cause    ackwise.Cause     `json:"cause"`         // of its last or next hand-out
	Due      time.Time         `json:"due,omitzero"`  // delayed: when ready; in flight: the deadline
	Consumer string            `json:"consumer"`      // StateInFlight: who holds it
	History  []ackwise.Attempt `json:"history"`       // past attempts, oldest first
	Accepted time.Time         `json:"accepted_time"` // when the store accepted it
}

// PeekOptions choose what Peek shows.
type PeekOptions struct {
	Max   int              `json:"max"`             // at most so many. Default: 10, at most 10,000
	State State            `json:"state,omitempty"` // only this state. Default: all
	ID    string           `json:"id,omitempty"`    // only this message
	After ackwise.Position `json:"after,omitempty"` // only behind this position
}

// DeadLetter is a message whose budget is spent, with its whole history.
type DeadLetter struct {
	Message   ackwise.Message   `json:"message"`
	Position  ackwise.Position  `json:"position"`
	Time      time.Time         `json:"dead_time"` // when it became one
	FirstSeen time.Time         `json:"first_seen"`
	Counts    ackwise.Counts    `json:"counts"`
	Cause     ackwise.Cause     `json:"cause"` // of its last hand-out
	Error     string            `json:"error"` // the last error or reason
	History   []ackwise.Attempt `json:"history"`
	Epoch     int               `json:"epoch"`
	Parked    int64             `json:"parked"` // messages of its key that wait behind it
}

// DeadFilter chooses dead letters. All fields that are set must match; the zero value matches all.
type DeadFilter struct {
	IDs    []string      `json:"ids,omitempty"`
	Key    string        `json:"key,omitempty"`
	Error  string        `json:"error,omitempty"` // part of the last error
	Cause  ackwise.Cause `json:"cause,omitempty"` // CauseUnknown matches all
	Before time.Time     `json:"before,omitzero"` // became one before
	After  time.Time     `json:"after,omitzero"`  // became one at or after
	// Max bounds how many; the oldest first. Default: 10,000.
	Max int `json:"max,omitempty"`
}

// ParkedKey is a key that waits behind a dead letter.
type ParkedKey struct {
	Key      string    `json:"key"`
	ID       string    `json:"id"`       // the dead letter's, or the message being drained
	State    string    `json:"state"`    // "parked" or "draining"
	Depth    int64     `json:"depth"`    // messages that wait behind it
	Since    time.Time `json:"since"`    // when it was parked
	Error    string    `json:"error"`    // the dead letter's last error
	Attempts int       `json:"attempts"` // the dead letter's hand-outs
}

// VerifyReport is what Verify found.
type VerifyReport struct {
	Records  int64            `json:"records"`  // log records replayed
	Messages int64            `json:"messages"` // bodies read back and checked
	Bytes    int64            `json:"bytes"`    // bytes read
	Position ackwise.Position `json:"position"` // up to where
	Findings []string         `json:"findings"` // what does not agree; empty = all does
}

// Entry is a value of a table.
type Entry struct {
	Value   []byte `json:"value"`
	Version uint64 `json:"version"` // changes with every put; 0 = the key is absent
}

// Commit is one transaction: publish to topics, settle deliveries, write tables and make keys done
// in one atomic record. It is refused as a whole with ErrConflict where a Read's version is no
// longer the one.
type Commit struct {
	// ID names the transaction, so that a repeat is answered as carried out and changes nothing.
	// The last 65,536 are remembered. Default: none; a repeat then finds its deliveries settled.
	ID      string               `json:"id,omitempty"`
	Publish []ackwise.Message    `json:"publish,omitempty"`
	Settle  []ackwise.Settlement `json:"settle,omitempty"`
	Reads   []TableRead          `json:"reads,omitempty"`
	Writes  []TableWrite         `json:"writes,omitempty"`
	// Once makes keys of dedup sets, by the set's name, done with the commit; their leases do not
	// matter. One that is done already, or claimed by somebody, is ErrConflict.
	Once map[string][]idempotency.Ask `json:"once,omitempty"`
}

// TableRead is a key whose version a Commit depends on.
type TableRead struct {
	Table   string `json:"table"`
	Key     string `json:"key"`
	Version uint64 `json:"version"`
}

// TableWrite puts a value; a nil one deletes the key.
type TableWrite struct {
	Table string `json:"table"`
	Key   string `json:"key"`
	Value []byte `json:"value"`
}
