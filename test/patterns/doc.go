// Package patterns tests the four patterns of package idempotency on every store, with every fault
// that a consumer meets, and the exactly-once transaction of the engine under kills.
//
//	flights ─▶ deliveries: repeated, out of order ─▶ line ─┬─▶ consumer 1 ─┬─▶ Store or Table
//	             some to both at once, some failing        └─▶ consumer 2 ─┘
//	             ▲                                               │ what it says: effects, answers,
//	             └── what is not acked, or whose consumer died ◀─┘ "I die now"
//
// It holds only tests. A consumer is a process of its own (this test binary, started again), or,
// where a store lives in one process's memory, a goroutine that is cut off from its store and from
// the test at the moment of its death. It is told with a delivery at which step to die, and says so
// first; then it kills itself with SIGKILL. Every fault is counted where it happens, and a kind
// that never happened fails the test.
//
// What must hold: the state of a table equals that of one clean run, byte by byte. An effect
// outside of the store (dedup) is made at least once for each message, once where nobody had to
// take a claim over, and once more at most for each time that one was: between the effect and its
// completion there is a gap that no store can close from outside.
//
// ACKWISE_FAULTS=long makes 10,000 deliveries of each pattern on each store, and 1,000 kills of the
// transaction.
package patterns
