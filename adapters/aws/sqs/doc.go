// Package sqs makes queues of Amazon SQS, standard and FIFO, sources and sinks.
//
//	sink:   Message ─▶ attributes ─▶ SendMessageBatch (10, 1 MiB) ─▶ one Result for each entry
//	source: polls (10 each) ─▶ ready ─▶ Receive ─▶ lease = visibility timeout ─▶ Settle
//	                                                 ├─ ack, drop ──────────▶ DeleteMessageBatch
//	                                                 └─ nack, snooze, release, extend ─▶
//	                                                            ChangeMessageVisibilityBatch
//
// It promises: a message is deleted only by its ack or drop; every entry of a batch has its own
// result; what may have been accepted is unknown, never a success; a settlement of a hand-out that
// is over is refused. Of a FIFO queue it keeps the order of each group: only the first of a run is
// settled, one message of a group is sent at a time, and where one fails, those behind it wait.
//
// Why a hand-out happened the service does not say. It counts the hand-outs of a message, about; a
// cause other than first is told only where this very process ended the hand-out before. Deliveries
// carry the count, so that the loop finds a message that kills its consumers.
//
// The order of calls when a run of a FIFO queue is given back: those behind go first, the failed
// one last. A group of which one message is hidden is handed out to nobody ("While messages with a
// particular MessageGroupId are invisible, no more messages belonging to the same MessageGroupId
// are returned", API reference of ReceiveMessage). So while the later ones become visible the
// earlier one is still in flight and holds them, and while it waits for its delay it does so too. A
// call that fails, or a process that ends between the calls, leaves the group blocked until a lease
// ends, never out of order. In the other order the failed one could be handed out, and acked,
// elsewhere while those behind it are still in a handler here.
//
// Beside the two: KeepForward copies letters of a dead-letter queue before they expire, StartMove,
// ListMoves and CancelMove are the service's own move tasks. How messages become attributes is told
// in adapters/aws/internal/attr and docs/systems/sqs.md. It changes no queue: the first Create
// makes one with the service's defaults, and keeps dead letters for 14 days. See ExampleOpenSource.
package sqs
