// Package ordering puts messages into the order that their producer meant, on any system: a
// producer stamps them, and a resequencer in front of the consumer repairs what came out of turn.
//
//	producer ─▶ Stamped(sink) ═══ any system, any order ═══▶ Resequencer ─▶ consumer
//	              │ Sequencer: 1, 2, 3 … of a key              │ next of its key: on
//	              └ Clock: a logical time                      │ early: held, on disk
//	                └─ Keeper: both survive restarts           └ missing: late, parked or lost?
//
// It promises that a Sequencer gives a message the same number however often it is published, and
// no number of a key twice; that a Clock's stamps only grow, over restarts and over a wall clock
// that is set back; and that a Resequencer lets the messages of a key go in the order of their
// numbers, each once, and tells of every number that it goes on without.
//
// The Resequencer here is a pure state machine: time, rows and answers are its arguments, and
// bodies are somewhere else. Package queue/queueorder is its shell on the embedded engine, where
// the bodies stay in the log and a process that is killed goes on where it was. See
// ExampleNewResequencer.
//
// It does not find out by itself that a key's last message is missing: nothing behind it says so.
// With stamps instead of numbers nothing is ever missing, so a message that comes later than the
// waiting time is out of order, and is told as late.
package ordering
