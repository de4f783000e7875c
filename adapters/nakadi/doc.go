// Package nakadi publishes to Nakadi's event types and consumes its subscriptions.
//
//	messages ─▶ Sink ─▶ a lane per key ─▶ POST events ─┬─ 200 ▶ accepted
//	                        ▲                          ├─ 207 ▶ accepted, unknown
//	                        └─ the innocent, again ◀───┴─ 422 ▶ rejected, the others again
//
//	subscription ─▶ stream ─▶ logsource ─▶ deliver.Run ─▶ handler
//	                             └─▶ cursors (cumulative), notes (Notes)
//
// It promises that a message is accepted only when Nakadi said that its event is stored; that a
// repeated message has the same eid; that a poison event holds back no other event of its batch;
// that no two messages of a key are on their way at once; that no committed cursor passes a message
// that is not settled; and that events which were gone before a stream began are a [TrimmedError].
//
// Nakadi does not deduplicate: what is unknown and sent again may be stored twice. A cursor carries
// no note, so hand-outs are known after a crash only with SourceOptions.Notes. A message that stays
// unsettled for longer than the commit timeout costs its stream. Start with ExampleOpenSink and
// ExampleOpenSource. The package does not create event types, and does not read Avro.
package nakadi
