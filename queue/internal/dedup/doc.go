// Package dedup remembers, for the window of one topic, which message IDs were accepted, or of one
// dedup set, which keys are done, in about two bytes of memory an ID. It promises that an ID is
// known for the whole window and forgotten by time only: what has no room any more is refused,
// never forgotten early.
//
//	Add ─▶ open bucket (memory) ─▶ closed buckets ─▶ files, a filter of each in memory ─▶ gone
//	        under the owner's lock    from memory       read without the lock           by time,
//	                                  until synced                                      whole
//
// A [Window] is an index for admission, not part of the state: it says nothing that the log does
// not say. A checkpoint carries its [Snapshot], and the log behind it adds the rest by the same
// Add.
//
// The owner guards the window with its own lock. Under it only memory is read: Probe looks at
// closed buckets before the lock is taken, Confirm at what came since. Maintain does the disk's
// part.
//
// Where a bucket's file is damaged, an ID that might stand there is neither known nor unknown: its
// lookup gives a [DamageError], and all others go on.
package dedup
