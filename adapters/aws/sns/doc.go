// Package sns publishes messages to topics of Amazon SNS, standard and FIFO, and subscribes queues
// to them. It promises that each message's result says what became of it, by one function that
// decides (accepted only where SNS has said so, unknown where it may have been stored), and that a
// message arrives behind every subscription as it was published: ID, key, headers with all bytes,
// and body.
//
//	Publish ─▶ attr.Encode ─▶ up to 10 a call ─▶ SNS ─┬─ filter ─▶ queue A (raw) ──────┐
//	                                                  └─ filter ─▶ queue B (envelope) ─┴▶ the same
//
// User headers are message attributes, so that filter policies see them; what is ours is the two
// attributes ackwise-id and ackwise. On a FIFO topic the MessageGroupId is the key and the
// MessageDeduplicationId is the ID. Nothing is created, and no subscription is changed, unless
// Create says so.
//
// It is no source: a topic keeps nothing. Consumers read the queues that are subscribed, and what
// fails at one of them is that queue's alone, dead letters and redrive included. Permissions:
// sns:Publish and sns:GetTopicAttributes on the topic; sns:ListTopics where neither an ARN nor the
// account is named; sns:CreateTopic and sns:Subscribe for Create. See ExampleOpenSink.
package sns
