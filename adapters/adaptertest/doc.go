// Package adaptertest opens the stores of the adapters by text alone, for tests that treat all of
// them alike and know no client library.
//
//	variable's address ─▶ Prepare ─▶ Open(name) ─▶ Opened{Store, Table}
//
// It promises that what is opened under one name, in several processes, is one store and one table.
// It starts no server: package test/servers does. See the tests of test/patterns for an example.
package adaptertest
