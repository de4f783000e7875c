// Package logsource turns a source that only knows a position (Kafka, DynamoDB Streams, Nakadi,
// Postgres replication) into an [ackwise.Source]: an adapter implements the five methods of [Log],
// and [New] does the rest.
//
//	Log.Poll ─▶ window of a partition ─▶ take ─▶ Log.Commit(note) ─▶ Receive ─▶ handler
//	              │ a lane per key          ▲                                     │
//	              │ retries wait here ──────┘◀──── nack, snooze, release ─────────┤
//	              ▼                                                               ▼
//	            highest position below which all is settled ─▶ Log.Commit ◀── ack, dead, drop
//
// It promises that no committed position passes an unsettled message; that a key is handed out in
// the order of its partition, one message at a time, through retries, moves, crashes and
// take-overs; and that each hand-out knows its cause. Messages without a key are independent.
//
// The journal is a note of at most Options.NoteBytes that is committed with each position and
// travels with the partition: what is in flight, how often each was handed out, failed and took its
// consumer down, and what was settled out of order. It is written before a hand-out is given out,
// once for all that one Receive returns. So the next owner knows, whatever machine it runs on:
//
//	note says                           next hand-out's cause
//	in flight, given back in good order rebalanced
//	in flight, never given back         consumer-lost; if it was the only one its consumer held,
//	                                    a crash is charged; either way it runs alone (suspect)
//	not named, below what a full note   unknown
//	had to cut, or no readable note
//	settled, and the position was       replayed
//	moved back by an operator
//	not named                           first
//
// Everything is bounded: a partition whose window is full is paused, alone; a note that cannot name
// more hand-outs holds back first hand-outs; what it cannot say of settled messages is delivered
// again, never lost.
//
// Start with ExampleNew. The package does not read any system itself, has no dead letters of its
// own (the loop has), and does not keep histories across owners, only counts. In package memlog is
// a log in memory to try it with.
package logsource
