// Package deliver is the loop between a source and a handler. It promises that a message leaves its
// subscription only after its handler succeeded, its dead letter is durable, or it was dropped with
// a reason (except under AtMostOnce), that messages of one key are handled one after another in
// their order, and that all it holds is bounded.
//
//	 fetch          lanes                    work                    settle
//	Receive ─▶ ┌ key A: 1 2 3 ─┐        ┌─ Handle ─┐  nil ────────▶ ack ──────────┐
//	(room for  ├ key B: 4 5    ├─ ready ┤ bounded  ├─ error ──────▶ nack(delay) ──┤
//	MaxIn-     ├ no key: 6     │        └──────────┘  budget spent ▶ dead ────────┼─▶ Settle
//	Flight)    └───────────────┘             │        Snooze, Drop ▶ snooze, drop ┤  (batched)
//	    ▲             ▲                      └─ hold: the source cannot delay     │
//	    │             └───────── due again ◀────┘                                 │
//	    └── breaker closed, no suspect, room        heartbeat: extend all held ───┘
//
// One goroutine owns all state; handlers, Receive and Settle calls run beside it and report to it.
// Policy lives here, state in the source: the loop reads Features, adapts, and refuses at start
// what cannot work. Run is the loop on a source, RunBatch the same for a BatchHandler, Process the
// same for a batch that a system pushes.
//
// A fence guards state, not effects: a handler past its lease may still be at work while somebody
// else handles the message again. The loop cancels its context and counts it, and cannot undo it.
//
// The package does not deduplicate, does not store anything and does not close its source. Start
// with ExampleRun.
package deliver
