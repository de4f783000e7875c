// Package dynamostreams reads the changes of a DynamoDB table from its stream: each change is a
// message, in the form that package change describes (docs/systems/dynamodb-streams.md has it too).
//
//	table ─▶ stream ─▶ shard ─ GetRecords ─▶ logsource ─▶ deliver.Run ─▶ handler
//	                     │                       │
//	              its children wait       position + journal ─▶ row of the leases' table
//
// It promises that every change that the stream still has is handed out at least once, the changes
// of an item in their order, also from one shard to the next: a shard's children begin when all of
// it is settled, which their parent's row says, whoever wrote it; they begin at their first change.
// What the stream does not have any more is told by name, never passed over silently.
//
// Members of a group share the shards by leases, one row each:
//
//	free ──acquire──▶ held ──beat, write──▶ held ──read to its end, settled──▶ done
//	  ▲                │ another member asks: drain, write, pass on
//	  └────────────────┘ its owner is silent for a lease, or gives it back
//
// A lease has run out for a member when that member itself has seen the row unchanged for the whole
// lease, on a clock that cannot be set; its owner gives it up earlier, counting from its last word
// that was taken. Every write wants owner and fence as they were, so that one who was frozen, or is
// late, is refused.
//
// Which calls to make is decided by a planner that is pure: what it sees, and the time, are its
// arguments.
// Start with ExampleOpenSource. The package does not write to tables other than that of the leases,
// and creates one, or enables a stream, only when told.
package dynamostreams
