// Package webhook is a Sink that posts each message to an HTTPS address, signed as Standard
// Webhooks asks (v1, HMAC-SHA256).
//
//	message ─▶ POST, webhook-id = the message's ID ─┬─ 2xx ─────────────────▶ accepted
//	                                                ├─ 408 425 429 5xx ────▶ retryable (Retry-After)
//	                                                ├─ 3xx 401 403 404 ────▶ retryable: configuration
//	                                                ├─ 410, other 4xx ─────▶ rejected
//	                                                └─ 502 504, no answer ─▶ unknown: same ID again
//
// It promises that a message is accepted only after the receiver answered 2xx, that every attempt
// carries the same webhook-id (by which the receiver tells repeats), and that it connects to no
// private address unless told so, whatever a name resolves to at that moment. It follows no
// redirect, uses no proxy of the environment, and neither logs nor keeps what the receiver answers.
//
// It is no source, makes no batches, and does not deduplicate. Start with ExampleOpenSink.
package webhook
