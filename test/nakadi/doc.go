// Package nakadi is a strict server that speaks the parts of Nakadi's API that a producer and a
// consumer need, for tests: no real Nakadi can be started for them.
//
//	publisher ─▶ POST /event-types/T/events ─▶ validate ─▶ partition ─▶ enrich ─▶ store
//	                                              422          422        422       207
//	consumer  ◀─ GET /subscriptions/S/events ◀─ sessions, slots, rebalance ◀─ committed cursors
//	test      ─▶ /admin/faults, /admin/events: what goes wrong, and what is really stored
//
// It promises the rules that the table in rules_test.go names, each with its test, and no others.
// It refuses where Nakadi refuses, so that a client that passes here did not pass by luck. It keeps
// all in memory; with a data directory a server that was killed comes back with what it had, but
// with no session, as Nakadi's own do not outlive it.
//
// It does not keep: Avro, the low-level reading of events, schema evolution, a clock for retention,
// compaction, timelines, dead letters of its own, quotas, scopes. Events go when Server.Trim says
// so: that a stream then begins at the oldest event that is left, that the committed cursor stays
// where it was, and that unconsumed_events counts what is gone too, is read out of Nakadi's source
// and was not seen on a server that runs. Start with ExampleNew; Main and the package cmd run one
// as a process.
package nakadi
