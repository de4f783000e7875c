// Package ackwise is the vocabulary of at-least-once message delivery: the words that every other
// package of the module speaks, and nothing that runs. It promises that a [Message] keeps its ID on
// every copy, hop and redrive, and that every [Delivery] after the first says why it happened.
//
//	         adapters/ queue/   deliver/               yours
//	Source ─▶ Receive ─▶ lease ─▶ Handler ─▶ Settle ─┬─ ack ──────────▶ position moves on
//	  ▲                                              ├─ nack(cause) ──▶ backoff ─▶ lease again
//	  │                                              └─ budget spent ─▶ dead letter (parks the key)
//	  └────────────────────────── redrive ◀──────────────────────────────────┘
//
// A producer hands a [Message] to a [Sink] and reads one [Result] for each. A consumer takes
// deliveries from a [Source], lets a [Handler] work, and ends each with a [Settlement]. What the
// handler decided is its returned error: nil is an ack, any error a nack, and [RetryAfter],
// [Snooze], [Reject] and [Drop] say more (see [OutcomeOf]).
//
// At-least-once means that a handler may see a message several times. The [Cause] of each hand-out
// belongs to one of the five duplicate sources of that model (see [Cause.DuplicateSource]).
//
// Start with ExampleHandlerFunc. What runs lives elsewhere: the embedded engine in package queue,
// the loop in package deliver. This package does no I/O, reads no clock and starts no goroutine.
package ackwise
