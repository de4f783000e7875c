// Package adaptertest is the conformance suite of all adapters: each one, and the embedded engine,
// runs it on a fake or in a unit test, and on the real server.
//
//	Harness ─▶ Run ─▶ a Check ─▶ New: a Bed ─▶ publish ──────────▶ the system
//	(features)                                                      │  ▲
//	                  book ◀─ JSON lines ── consumers, processes ◀──┘  │ killed, frozen, cut
//	                    │                    of the test binary ───────┘
//	                    └─▶ judge: nothing lost, every cause right, every key in order
//
// It promises that what passes was seen from outside: the oracle is the test's own list of what it
// published and what the handlers of the consumers were called with, never what an adapter counts
// of itself. A consumer is killed only while it holds a delivery, and a fault that never fired
// fails the check. What a system cannot, its Harness says with the sentence of its documentation,
// and the check has to fail then; what it can is one line of docs/systems/README.md, and another
// line fails. TestTheSuiteConvicts shows each check red, on systems that do one thing wrong.
//
// An adapter's test package calls Main from TestMain and Run from a test; engine_test.go here is
// the sample. With ACKWISE_FAULTS=long each check runs ten times. The suite opens systems by their
// addresses alone and starts no server: package test/servers does.
//
// The package also opens the stores of the adapters by text alone, see Backends, for tests that
// treat all of them alike and know no client library:
//
//	variable's address ─▶ Prepare ─▶ Open(name) ─▶ Opened{Store, Table}
//
// What is opened under one name, in several processes, is one store and one table. See the tests of
// test/patterns for an example.
package adaptertest
