// Package prove runs a handler under the ways in which at-least-once delivery brings messages back,
// and fails the test that calls it where the handler then ends otherwise than one clean run does.
//
//	clean run      m1 ─▶ ack   m2 ─▶ ack                               effects: what is wanted
//	each schedule  m1 ─▶ claim ─▶ charge ─▶ KILLED   m1 again ─▶ ack   effects: compared
//
// A handler is killed, held, refused a call or left without an answer at its points: before and
// after each call of a store or table that World.Store and World.Table wrap, around what it does
// by Call, and where it says Point. A killed handler stands still until the effects have been seen:
// nothing is unwound, no deferred function runs, its memory is gone, the clock moves past its
// leases, and Case.New starts the next consumer.
//
// What is tried: each message delivered again, at once and after all others; its ack lost; its
// consumer killed at every point, before the handler begins and before its ack; every call
// refused, and all calls from it on; every answer lost; two consumers on one message, and on two,
// held against each other at every point, with their claims still held and over; each of these
// alone, then combinations of two and three, drawn by a seed. What comes back carries the cause,
// counts and history that a source would give it. The first schedule that differs is shortened
// and printed; it is repeated by the variable ACKWISE_PROVE. The clock is the world's, nothing is
// left to chance, and the same Case prints the same. Pauses that the handler makes by itself
// (idempotency.Dedup makes some where a store does not answer) take their time, unless Run is
// called in a bubble of testing/synctest. There, stores on the real clock can be proved without
// waiting, by Case.RealTime.
//
// What it does not do: it tries finitely many schedules, so that it convicts for sure and acquits
// as far as it has looked. It judges by what Case.Effects shows: an e-mail that is not in it
// may be sent twice. It kills a consumer at points only, not between two machine instructions, and
// does not cut the power: what a store says is durable is believed. Two consumers are held
// against each other at one point at a time. See ExampleRun.
package prove
