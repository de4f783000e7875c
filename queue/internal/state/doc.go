// Package state is the state machine of the embedded engine: everything that the log says, and
// nothing else. It promises that the same records give the same state, live and at replay: it reads
// no clock, draws no random number and does no I/O. Time is an argument, and what time alone brings
// about (a lease ran out, a delay is over) is a record too.
//
//	decide, live only            apply, live and at replay      in the log
//	HandOut, Settle, Tick, … ──▶ Record.apply ───────────────▶ Record.Append
//
// What a message goes through on one subscription (the places are those of the books):
//
//	topic's line ─pull─▶ Ready ─lease─▶ InFlight ─ack─▶ gone          Parked: behind a dead letter
//	                      ▲  ▲             │ nack, snooze             of its key; Ready again when
//	             wake ────┘  └─redrive─ Dead◀┤                        the key drains
//	            Delayed ◀──────────────────┘ loss: Ready again
//
// A topic holds 24 bytes of each of the newest messages in line and about 10 of the others, and
// about 14 of a scheduled one; a subscription holds an entry of about 120 bytes
// of each that it has pulled and that is not finished, and history only of those that failed. None
// of them holds a pointer or a body.
//
// A dedup set holds some 150 bytes of each claim, and an index entry of each result; the keys that
// are done are an index of the log, which the follower keeps:
//
//	free ─claim─▶ claimed ─complete─▶ done, in the index ─window─▶ free
//	   ▲             │ release           ▲ once, without a claim
//	   └─────────────┘ lease ran out: the next claim is a takeover
//
// The caller holds one lock around all calls, appends the records it gets to the log in the order
// in which it got them, and tells nobody before the log has released them.
package state
