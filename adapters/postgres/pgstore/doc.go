// Package pgstore keeps what idempotency needs in Postgres: which effects were made, and values
// with versions.
//
//	idempotency.Dedup ──▶ Open ──────▶ claims, and done keys in buckets by time
//	idempotency.Upsert ─▶ OpenTable ─▶ values with versions and stamps
//
// It promises what idempotency.Store and idempotency.Table promise, to any number of processes. All
// time is the server's clock. A key is forgotten exactly when the window has passed; its row goes
// with its whole bucket, a quarter of the window later at most: nothing is ever deleted row by row.
// MaxKeys counts what is claimed and what stands in the buckets; calls that are made at once may
// pass it by what they claim.
//
// The tables are those of postgres.Migrate. The store works in READ COMMITTED transactions of one
// statement, also behind a connection pooler. Where the effect is in the same database, use
// postgres.Inbox: there is no gap between effect and completion then. See ExampleOpen.
package pgstore
