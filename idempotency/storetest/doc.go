// Package storetest is the contract of idempotency.Store and idempotency.Table as tests: every
// store and table that the project ships passes them, and so should yours.
//
//	RunStore(t, StoreHarness{Open: …})   Open ─▶ idempotency.Store
//	RunTable(t, TableHarness{Open: …})   Open ─▶ idempotency.Table
//
// It judges by the answers that its own calls got. Where the harness moves the clock (Advance),
// leases and windows are long and their ends are exact; where time is real, they are short, and
// the tests wait until something is over, and never claim that it is not over yet. It kills
// nothing and cuts no connection: what a store does when its server is away is for the store's own
// tests. See idempotency's own tests for a use.
package storetest
