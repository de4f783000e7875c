package logsource

import (
	"context"
	"errors"
	"time"

	"github.com/ackwise/ackwise"
)

// ErrFenced is what Log.Commit answers for a partition that is no longer this member's: another
// member has it, or the group has moved on to a new generation. The source then treats the
// partition as lost. Adapters wrap it.
var ErrFenced = errors.New("the partition is no longer this member's")

// Log is what an adapter implements: partitions come and go, records are read in order, and a
// position is written together with a note.
//
// Poll returns what happened since the last call, in order: changes of the assignment and records,
// at most max records together. It blocks until there is something or ctx ends. It is called from
// one goroutine, again and again, also while handlers work; so an adapter whose client answers a
// revocation from a callback puts a Revoked change into Poll's stream there, and returns from the
// callback when Release was called or the deadline is over.
//
// Commit writes positions and notes, one result each, and returns when they are durable. A position
// is cumulative: everything at or below it is settled. It is fenced by the adapter's generation,
// stream id or lease counter and answers ErrFenced where that fails. An adapter that writes the two
// to different places writes the position first; the note may be older than the position, but
// never newer. Commit is called from one goroutine, beside Poll.
//
// Pause stops records of a partition, or lets them come again. It does not block and does not fail;
// records on their way may still arrive. A partition is assigned unpaused.
//
// Release says that the source is done with a revoked partition: its settlements are written and
// nothing more will be. The adapter may finish its rebalance.
//
// Close leaves the group. All partitions were released before.
type Log interface {
	Poll(ctx context.Context, max int) ([]Change, error)
	Commit(ctx context.Context, marks []Mark) []error
	Pause(partition string, paused bool)
	Release(partition string)
	Close() error
}

// ChangeKind says what a Change reports.
type ChangeKind uint8

// The kinds of changes.
const (
	Records  ChangeKind = iota // records of a partition that is assigned, in order
	Assigned                   // the partition is this member's from now on
	Revoked                    // the partition has to go: drain it until Deadline, then Release it
	Lost                       // the partition is gone: no settlement of it can be written any more
)

// Change is one thing that Poll reports, about one partition.
type Change struct {
	Kind      ChangeKind
	Partition string // unique in the source, such as "orders/3" or a shard's ID

	// With Assigned: what the last Commit of any member wrote; empty where there was none. The
	// records that follow begin behind Position. Earlier ones that come all the same are handed
	// out again only where nobody has settled them.
	Position ackwise.Position
	Note     []byte
	// With Assigned: the last position that the partition held when it was assigned. It bounds
	// what an earlier owner can have handed out where there is a Position but no readable Note;
	// empty means not known, and such hand-outs then stay CauseUnknown.
	End ackwise.Position
	// With Assigned: Note is this process's own and says nothing of other members' hand-outs, since
	// the place has no room for notes. What it does not name is CauseUnknown up to End.
	Partial bool
	// With Assigned: how long ago Note was written; a delay that it tells is shorter by that. Where
	// it is zero, each owner begins a delay anew.
	NoteAge time.Duration

	// With Revoked: by when Release has to come. The adapter keeps back what a write takes.
	Deadline time.Time

	// With Records.
	Records []Record
}

// Record is one message with its place in the partition. Positions grow by < within a partition and
// are the same at every read; gaps are allowed (compaction), equal positions are not: where a
// system gives several messages one position (a transaction's), the adapter adds an ordinal.
type Record struct {
	Position ackwise.Position
	// Message has an ID that is the same at every read. Where ID is empty the source makes it from
	// Topic, partition and position.
	Message ackwise.Message
	Epoch   int // becomes Delivery.Epoch
}

// Mark is how far a partition is settled, and the note to be kept with it.
type Mark struct {
	Partition string
	// Position: everything at or below is settled. It is what Assigned gave until more is.
	Position ackwise.Position
	Note     []byte // opaque bytes, at most Options.NoteBytes
}
