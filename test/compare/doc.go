// Command compare drains the same backlog from Ackwise and from bbolt, a key-value store that is no
// queue, alternately in one run, and shows the ratios.
//
//	go run -C test/compare .          500,000 messages, 3 rounds: about a minute
//	go run -C test/compare . -long    8,000,000 messages, 5 rounds; fails where bbolt is faster
//
//	bodies ─┬─▶ Ackwise: receive + ack, leases and history on, without keys and with 1,000
//	        └─▶ bbolt:   scan + delete, one transaction a batch, its default sync
//
// It promises that all of them hold the same bodies before the clock starts, that each of them
// gives back every body once (count and sum are checked), and that the order changes from round to
// round. A ratio is that of one round; what counts is their median. bbolt syncs each batch. Ackwise
// writes its hand-outs and acks without a sync, as it does by default: they survive a killed
// process, and after a power cut the messages come back. So a ratio compares what a user gets by
// default, not equal durability. It is a module of its own, so that bbolt is nobody's dependency.
package main
