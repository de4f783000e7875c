// Package pgtest gives each test of the Postgres adapter a schema of its own on a server that is
// there.
//
//	address ─▶ Database ─▶ CREATE SCHEMA ─▶ address of it ─▶ Pool ─▶ postgres.Migrate
//
// It promises that the schema is gone when the test ends. It starts no server. See the tests of
// pgstore for an example.
package pgtest
