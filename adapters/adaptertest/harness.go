package adaptertest

import (
	"context"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// Check is one part of the suite.
type Check string

// The parts of the suite. Each runs on a fresh Bed.
const (
	AllArrive     Check = "all arrive"             // every ID once or more, none unknown to the producer
	Crash         Check = "crash before the ack"   // a consumer's process is killed with deliveries in flight
	LostAck       Check = "lost ack"               // the settlement is carried out, its answer is lost
	ProducedAgain Check = "produced again"         // the producer repeats after a time-out, with the same ID
	Requeue       Check = "requeue"                // nacked messages come back, with their cause
	Moving        Check = "moving"                 // a second member joins and leaves while messages are in flight
	KeyOrder      Check = "key order"              // through nacks, moves and crashes, where promised
	NackDelay     Check = "nack with delay"        // not before, and not much later
	Extend        Check = "extend"                 // a lease that is extended is nobody else's
	Release       Check = "release"                // comes back at once, charged to no budget
	PartialBatch  Check = "partial batch"          // some of a batch settle, the others come again
	SlowHandler   Check = "slow handler"           // longer than the lease, with heartbeats
	Restart       Check = "broker restarted"       // killed and started again with its data
	Freeze        Check = "broker frozen"          // stopped where it stands, and woken
	CutReply      Check = "cut in a reply"         // the connection ends in the middle of an answer
	CutBoth       Check = "cut in both directions" // all connections end, none can be made for a while
	UnknownResent Check = "unknown resent"         // what may have been accepted is sent again with its ID
	CleanStop     Check = "clean stop"             // Close gives back what is held, charged to nobody
	BackPressure  Check = "back-pressure"          // a consumer that does not settle is not flooded
	PoisonKills   Check = "poison kills"           // a message that ends its process does not do so for ever
	Bodies        Check = "bodies"                 // large, empty and nil ones
	Headers       Check = "headers"                // all bytes, repeated names, their order
)

// Harness is one way to use one system: a row of the table of features.
type Harness struct {
	Name   string                // such as "sqs fifo"
	Source *ackwise.Features     // what its source has to say of itself; nil = it has none
	Sink   *ackwise.SinkFeatures // what its sink has to say of itself; nil = it has none
	// Cannot names the checks that the system cannot pass, each with the sentence and the page of its
	// documentation that says so. The suite shows that it really cannot, where that can be shown.
	Cannot map[Check]string
	// OpenSource and OpenSink open what an address names, in this process or in another one: the
	// suite starts consumers as processes of their own, to kill them, and they know the address only.
	OpenSource func(ctx context.Context, address string) (ackwise.Source, error)
	OpenSink   func(ctx context.Context, address string) (ackwise.Sink, error)
	// New makes a fresh place, and removes it with the test.
	New func(t *testing.T) *Bed
	// Serial says that the checks run one after the other. Default: false, several at once.
	Serial bool
	// Rejects names, exactly, the messages of the checks Bodies and Headers that the sink refuses
	// because the system cannot carry them. The suite prints the names. Default: none.
	Rejects []string
	// Undo turns a received message back into the one that Bed.Write was given, for systems that make
	// a record of it. Default: it is the one.
	Undo func(m *ackwise.Message)
}

// Bed is a fresh place for one test: a topic with a group, a queue, a stream.
type Bed struct {
	Source string // the address of a consumer; each one opened is one more member of the group
	Sink   string // the address of a producer; "" where Harness.Sink is nil
	// Write puts messages into the place without the adapter's sink: for systems that have none, and
	// to write what another producer would. nil = the sink is used.
	Write func(ctx context.Context, ms []ackwise.Message) error
	// Server is the system's process, to be killed and frozen. nil = a fake, or somebody else's.
	Server Process
	// Forgets says why Server, when it is killed, may hand out again what was acked before: the
	// sentence and the page of its documentation. It is then ack-lost. Default: "", it may not.
	Forgets string
	// Proxy stands between the adapter and the system. nil = connections cannot be cut.
	Proxy Cutter
	// Patience is how long the system may take until what has happened shows: a lease that runs out,
	// a rebalance. It bounds every wait of the suite. Default: 30 s.
	Patience time.Duration
	// Read returns all messages that the system has got until now, in its order: for sinks without a
	// source. nil = the source reads them.
	Read func(ctx context.Context) ([]ackwise.Message, error)
	// Kill ends a consumer of this process as a killed process ends. It is for places that are in
	// this process's memory: with it the suite's consumers run here. nil = they are processes.
	Kill func(source ackwise.Source)
}

// Process is a server that belongs to one test, such as a servers.Server.
type Process interface {
	Kill(t testing.TB)
	Restart(t testing.TB)
	Freeze(t testing.TB)
	Thaw(t testing.TB)
}

// Cutter cuts connections, as a servers.Proxy does.
type Cutter interface {
	CutReplies(n int) // the next n answers end after their first bytes, their connections too
	CutAll()          // ends every connection, and makes none until Heal
	Heal()
	Fired() int // how many connections were cut
}
