// Package lambda makes a handler of ackwise a function of AWS Lambda: events of SQS queues,
// DynamoDB streams and SNS topics become deliveries, which run through deliver.Process, and the
// settlements become the answer that each of these systems understands.
//
//	event ─▶ Function.Invoke ─┬─ aws:sqs ──────┐                    ┌─ SQS: all that failed; FIFO: of
//	                          ├─ aws:dynamodb ─┼─▶ deliver.Process ─┤  a group also all behind it
//	                          └─ aws:sns ──────┘   until Margin     ├─ stream: the lowest unsettled
//	                                               before the end   └─ SNS: an error, or nothing
//
// It promises that no message is answered as done whose handler did not succeed, whose dead letter
// is not durable, or that was not dropped with a reason; that retries with backoff end a margin
// before the deadline, so that the answer is heard; and that a cause is known or unknown:
// CauseFirst where the queue counted one hand-out, what this process itself did with the hand-out
// before where the count is exactly one higher, else CauseUnknown. A stream and a topic do not
// count at all.
//
// Answers are only read by a mapping with FunctionResponseTypes: ReportBatchItemFailures; for one
// without, set Options.WholeBatch, or what failed is lost. An answer for a stream is a checkpoint:
// what succeeded behind it comes again, and is made again unless Options.Dedup remembers it. A
// topic invokes asynchronously: Lambda repeats a failed event twice and discards it then, so that
// with dead letters whatever is not done in time becomes one.
//
// What it cannot do: count the crashes of a message that ends its process. On a queue MaxHandOuts
// finds it; on a stream only the mapping's own limits do (bisect and maximum retry attempts), and
// its destination gets a pointer, not the message. See ExampleNew.
package lambda
