// Package queue is the embedded durable engine: topics, subscriptions, dead letters, small tables
// and dedup sets in one directory, on one shared log. It promises that what Publish acknowledged is
// on disk, and stays on every subscription until a handler succeeded, a person dropped it, or it is
// a dead letter.
//
//	Publish ─▶ state + group ─▶ write ─▶ sync ─▶ acknowledged ─▶ Receive ─▶ Settle
//	           (one lock)         └─ written: hand-outs and acks return
//	                                     └─ synced: publishes, dead letters, transactions return
//
// A Store is opened by one process at a time; package client lets others share it. Store is an
// ackwise.Sink, and Receiver, one consumer's session on a subscription, is an ackwise.Source for
// deliver.Run. Times are the store's own: they begin at the wall clock, or at the last time that
// the log knows where that is later, and run on the monotonic clock, so that a jump of the wall
// clock neither freezes nor repeats anything.
//
// A dedup set remembers for a window which keys are done, and who has claimed the others; package
// queuestore makes an idempotency.Store of it. A key that is done by Tx.Once is in one record with
// its effect.
//
// The log is in internal/wal and the state machine in internal/state; this package joins them, and
// is where goroutines, clocks and locks are. See ExampleOpen.
//
// It does not replicate: the loss of the disk is the loss of the store.
package queue
