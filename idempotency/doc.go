// Package idempotency applies the effect of a message once, however often the message is delivered.
// It promises that a state which is written through one of its four patterns is, after any number
// of redeliveries, what one delivery of each message would have made of it.
//
//	pattern                the effect                        what it needs
//	Dedup    by ID         anything (mail, card, counter)    a Store: claim ─▶ effect ─▶ complete
//	Write    set X         a value that the message holds    a Table
//	Upsert   by Stamp      the newest of many values         a Table, a logical clock
//	Compare  and swap      what is missing of a wanted state a Table
//
// Each pattern is a handler, and a plain function: Once, Table.Put, Table.Upsert, Apply. A Store
// remembers keys for a bounded time, a Table holds values with versions; both have one conformance
// suite, storetest, and are kept in memory, in the embedded engine (queue/queuestore), in Postgres,
// Redis and DynamoDB (beside their adapters).
//
// What it cannot do: where the effect is outside of the Store's own database, a process that dies
// between the effect and its completion leaves a claim that runs out, and whoever takes it over is
// told by Claim.Takeover that the effect may have been made, as is everyone after it until the key
// is done. A handler that then looks for its effect makes it once; one that cannot look makes it
// again. Where the two share a database, use its transaction (queue.Transact, postgres.Inbox), and
// there is no gap. See ExampleDedup.
package idempotency
