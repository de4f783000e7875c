// Package kafka reads Kafka topics as deliveries and publishes messages to them.
//
//	topic/0 ─┐                               ┌─ position and journal note, in the commit's metadata
//	topic/1 ─┼▶ consumer group ─▶ logsource ─┴▶ deliver.Run ─▶ handler
//	topic/2 ─┘  (or share group, without order)
//
//	messages ─▶ Sink ─▶ idempotent or transactional producer ─▶ accepted by all in-sync replicas
//
// It promises that no committed offset passes a message that is not settled; that a partition goes
// only when what is in flight there is settled or given back, or the group's time for it is over;
// that the next owner of a partition knows what was in flight, on whatever machine; that records
// which the log dropped before they were read are a [TrimmedError], never silence; and that key,
// headers in their order, a nil body and an ID come back as they were published.
//
// [OpenSink] makes an idempotent producer that waits for all in-sync replicas; [Transact] commits
// what a batch publishes and the batch's positions in one transaction.
//
// A message that carries no ID of ours gets topic/partition/offset. It does not balance work by
// itself: the group does. It reads no schema registry and starts no broker. Start with ParseSource
// and ExampleParseSource.
package kafka
