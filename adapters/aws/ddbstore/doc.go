// Package ddbstore keeps the stores and tables of package idempotency in one DynamoDB table. It
// promises what idempotency.Store and idempotency.Table promise, without trusting DynamoDB's
// deletion by time (TTL) or another machine's clock.
//
//	key ─▶ one item ─▶ one conditional write; where it is refused, the item comes with the refusal
//
// A claim is taken over only by a handle that has seen it unchanged, with no word of its holder,
// for its whole lease, on a clock that cannot be set; handles remember in memory what they have
// seen. So one that was opened later waits for a whole lease itself, and a claim whose key nobody
// asks for again stays. A call that the client sends again, because the answer was lost, knows its
// own claim by a nonce; a Swap is not sent again. A fence is above the one before, and not below
// the clock in microseconds: of a key whose item is gone it grows as long as clocks are less than
// MaxSkew apart.
//
// A key is done until Window and MaxSkew have passed, by the clock of who completed it and of who
// asks; the window is honest as long as these are less than MaxSkew apart. An item that is past its
// time counts as free though it is still there. TTL only cleans: its time is an hour and twice
// MaxSkew later, item by item, since DynamoDB cannot drop a bucket whole; that costs nothing.
//
// The keys of a batch are written one by one, some at once: BatchWriteItem knows no conditions, and
// TransactWriteItems costs twice and refuses all for one.
//
// What it cannot do: count exactly. MaxKeys is kept by a counter that each handle adds to after a
// thousandth of MaxKeys, see Options.MaxKeys. A throttled ask is answered ackwise.ErrFull.
//
// The table (CreateTable makes it) has the partition key "pk", a text; TTL on "expires"; and, for
// OpenTable, the index "graves" with the partition key "gname", a text, and the sort key "gtime", a
// number. Permissions: dynamodb:GetItem, PutItem, UpdateItem, DeleteItem, DescribeTable and
// DescribeTimeToLive on the table, dynamodb:Query on the index for Purge; CreateTable and
// UpdateTimeToLive for CreateTable. See ExampleOpen.
package ddbstore
