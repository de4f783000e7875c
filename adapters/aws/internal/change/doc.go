// Package change turns a change record of a DynamoDB stream into a message. It promises the same
// message, byte for byte, at every read of a record, whether it came from the streams' API or in an
// event of Lambda.
//
//	record                           message
//	eventID                          ID
//	table                            Topic
//	Keys                             Key: the item's key, see below
//	ApproximateCreationDateTime      Time, in whole milliseconds
//	eventName                        header dynamodb-change: INSERT, MODIFY or REMOVE
//	SequenceNumber                   header dynamodb-sequence
//	userIdentity                     header dynamodb-user: TYPE/PRINCIPAL, where there is one;
//	                                 a deletion by TTL has Service/dynamodb.amazonaws.com
//	Keys, OldImage, NewImage         Body
//
// The body is JSON in DynamoDB's own form, without spaces; an image that the record does not have
// is left out:
//
//	{"Keys":{"id":{"S":"N14228"}},"OldImage":{…},"NewImage":{…}}
//
// Attributes and members of maps stand in the order of their names, members of sets in the order of
// their bytes (a set has no order of its own), numbers as DynamoDB writes them (it has one form for
// each number), bytes in standard base64. The characters <, > and & stand for themselves.
//
// The key is the object under Keys, in the same form: {"id":{"S":"N14228"}}, or with a sort key
// {"at":{"N":"7"},"id":{"S":"N14228"}}. It is ordered by name, because an event of Lambda does not
// say which attribute is the partition key. Above ackwise.MaxKeyBytes (DynamoDB allows keys of
// 3 KiB) it is "sha256:" and the SHA-256 of that form in hexadecimal digits.
//
// A sequence number is a decimal number of up to 40 digits that grows within a shard, with gaps. It
// does not go into the header ackwise-sequence: that counts from 1 without gaps.
//
// See ExampleFromEvent. The package reads nothing from the network.
package change
