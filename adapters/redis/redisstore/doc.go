// Package redisstore keeps the stores and tables of package idempotency in Redis, version 6.2 or
// later, or in Valkey. It promises what idempotency.Store and idempotency.Table promise, as far as
// the server keeps what it acknowledged.
//
//	client ─▶ one script a shard and call ─▶ meta · claims · done:0 … done:8, a ring of buckets
//
// Every call is one atomic script, or one for each shard, sent in one round trip; the clock is the
// server's. Done keys stand in buckets, each an eighth of the window, which are dropped whole. Each
// script declares its keys, and those of a shard share a hash tag, so that a cluster has them in
// one slot: "ackwise:dedup:{NAME:SHARD}:…". A call that the client sends again, because the answer
// was lost, finds its own claim; a Swap is not sent again.
//
// What it cannot do: be more durable than the server. Redis answers before its replicas have a
// write, so that a failover may forget the last completions, and their effects are made again;
// without PersistAlways a crash of the server may do so too. Open refuses a server that may evict
// keys. MaxKeys is counted exactly, by the scripts; a server without memory is ackwise.ErrFull too,
// and still takes completions. See ExampleOpen.
package redisstore
