// Package queuestore keeps the marks and the state of applied effects in the embedded engine: an
// idempotency.Store on its dedup sets and an idempotency.Table on its tables, in the process that
// owns the directory or in any other.
//
//	queue.Store ─┐  Engine   ┌─ Open      ─▶ idempotency.Store
//	             ├──────────▶┤
//	client.Client┘  Tables   └─ OpenTable ─▶ idempotency.Table
//
// A claim is written when Claim returns, and survives a killed process; what is complete is synced,
// and survives a power cut. A done key takes some 2 bytes of memory, a claim some 150, and a result
// 10 beside its record in the log. Calls that a hand-over of the directory cuts off are repeated by
// the client and take effect once.
//
// After a power cut the claims of the last moment may be gone: their keys are free, and
// Answer.Takeover cannot tell that an effect may have been made. An effect that lies in the same
// directory needs no claim: queue.Tx.Once marks its key in the record of the effect itself.
//
// See ExampleOpen.
package queuestore
