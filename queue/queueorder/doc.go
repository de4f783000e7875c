// Package queueorder is the engine's side of package ordering: a resequencer whose messages stay on
// disk, and a keeper of clocks and sequencers in a table.
//
//	TOPIC/SUB ─▶ Resequencer ─┬─ next of its key ────────────────▶ OUT ─▶ an ordered subscription
//	(unordered)               └─ early ─▶ OUT.held ─ read back ─▶ OUT
//	                             one commit: ack the source, publish, write the rows of the keys
//
// It promises that the messages of a key come into OUT in the order of their numbers, each once,
// whatever is killed when: what a round takes from the source, lets go and holds back, and what it
// then knows of each key, is one atomic record. Memory holds 40 bytes a held message; after a
// restart it is filled from OUT.held and the rows. Messages keep their IDs. One that has no key
// goes through at once; one whose order cannot be right becomes a dead letter of its source.
//
// Where there is no room to hold what is early (MaxHeld, MaxKeys, or the bounds of OUT.held), it is
// put off in the source, for a second at first and up to about a minute, and nothing is lost. That
// is logged as a warning, once a minute as long as it lasts, with the gap that is waited for
// longest. A missing number can always enter: where it may stand behind what was put off, also at
// the MaxWaiting of the source, it is looked for there and taken past it. What else is behind waits
// until there is room; where a number is nowhere, that is until its key's policy or GiveUp goes on.
//
// A message that OUT never takes (its ID is there with another body, or it is too large) becomes a
// dead letter: of the source where it has just come, and of OUT.held/resequencer where it was held.
// Its number is missing then, as parked, and other keys go on. Redriven, it has its place again.
//
// What is in OUT.held and was let go is acked there later, in the order in which it came, so the
// disk that it takes is given back a little after. See ExampleOpen.
//
// It does not order across keys, and it is one process at a time: a second one takes the work over,
// and the first one stops with ErrTakenOver.
package queueorder
