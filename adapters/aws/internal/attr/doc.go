// Package attr carries messages in a body and attributes, as SQS and SNS have them, and brings them
// back. It promises that Decode gives back what Encode was given: the ID, the key, the time, the
// epoch, every header with all its bytes, in order and as often as it stood there, and a body that
// may be nil, empty, or no text.
//
//	body ───────────────────▶ the body; base64 where it is no text of the service
//	ID ─────────────────────▶ attribute ackwise-id
//	a header of the user's ─▶ attribute of its name: String, or Binary where it is no text, so that
//	                          filter policies see it
//	all else ───────────────▶ attribute ackwise, JSON: key, time, epoch, what the body is, and the
//	                          headers in order, with the values that no attribute can carry: empty
//	                          ones, repeated names, names that the service refuses, our own, and all
//	                          behind the eighth attribute: a message has at most ten
//
// More bytes than the limit are refused. What strangers wrote is read too: their attributes are the
// headers, in the order of their names. Decode refuses nothing: an attribute "ackwise" that is not
// ours is a header like others.
//
// It knows no client library, and the types of numbers are not kept: a Number becomes a header, and
// a header becomes a String. See ExampleEncode.
package attr
