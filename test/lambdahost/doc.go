// Package lambdahost takes AWS Lambda's place in tests: it runs the real bootstrap of a function
// as a process, behind a Lambda Runtime API of its own, and feeds it as Lambda would.
//
//	shards ─▶ Mapping.RunStream ─┐                 ┌─ GET  invocation/next ────▶┐
//	queue ──▶ Mapping.RunQueue ──┼▶ Host.Invoke ──▶┤  POST invocation/ID/response├─ bootstrap
//	topic ──▶ Async.Push ────────┘                 └─ POST invocation/ID/error ◀┘
//
// It promises the rules that AWS documents and that a function's answer depends on: one event at a
// time for each process, a deadline at which the process is killed, a new process after one that
// ended; the checkpoint at the lowest failure, answers that fail a whole batch, bisecting, limits
// of attempts and age, several batches of a shard at once by key, what is discarded; and the two
// repeats of an asynchronous invocation. Each rule has a test that cites the sentence.
//
// It is no Lambda: it scales by a fixed number, does not freeze a process between two events,
// takes no payload limits, and its pauses between attempts are those that a test asks for. See
// ExampleHost.
package lambdahost
