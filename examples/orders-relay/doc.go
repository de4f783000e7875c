// Package orders is the reference pipeline: a table of orders in DynamoDB whose changes reach
// Nakadi, and from there three consumers, while everything on the way fails.
//
//	table ─▶ stream ─▶ relay ──────────────▶ Nakadi ─┬─▶ upsert by logical timestamp
//	                   │ Lambda or process      ▲    └─▶ bridge ─▶ SNS ─┬─▶ SQS ─▶ dedup by ID
//	                   └─▶ SQS (dead letters) ──┘                       └─▶ SQS ─▶ resequencer
//	                          requeue job, again and again
//
// It promises that its configuration files are those that the run uses, and that the table in
// README.md is what the run prints. It holds tests only: TestRealOrdersRelay is the run
// (`bash run.sh`), and the consumers in consumer_test.go are the example of how to apply once.
// It runs nothing in AWS.
package orders
