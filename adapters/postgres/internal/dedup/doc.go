// Package dedup speaks to the tables in which pgstore and the inbox keep what was claimed and done.
// It promises that every call is one statement, so that it is a transaction of its own outside of
// one, and part of the caller's within.
//
//	pgstore ──┐
//	          ├─▶ Keys ─▶ ackwise_claim(), ackwise_settle() ─▶ ackwise_claim ─▶ ackwise_done_N
//	inbox  ───┘     └──▶ Tend: a new bucket when it is time, old ones dropped whole
//
// The functions in the database are those of migrations/0001_idempotency.sql; all time is the
// server's. The package opens no connection. See pgstore.ExampleOpen.
package dedup
