// Package memstore keeps an idempotency.Store and an idempotency.Table in this process's memory. It
// promises what their contracts say for as long as the process lives, and is for tests and for
// effects that the process itself holds. See ExampleOpen.
//
// It remembers nothing over a restart: what was done before it is done again.
package memstore
