// Package wal is the segmented log of the embedded engine: records in, positions out, nothing lost
// that was released as synced and nothing invented.
//
//	Append ─▶ pending group ─▶ committer: write ──▶ release written ─▶ acks, nacks, hand-outs
//	  ▲          (one fills        │                  ▲
//	  │       while one syncs)     └─▶ sync ──────▶ release synced ──▶ publishes, dead letters
//	callers                                          (release is the one place that tells anybody)
//
//	DIR/segments            which segment files there are, where each begins and ends
//	DIR/000000000007.log    header block, then groups on 512-byte boundaries; or chosen records
//	DIR/000000000003.free   holds nothing any more, and will be written again
//
// A position is logical and only grows; a segment holds the positions from its base to the base of
// the next one. The records of one Append are atomic: their group is found whole after a crash, or
// not at all. Append gives records their positions, in memory; the committer decides which segment
// a group goes to, and makes its checksums, outside of the lock. A group without a durable record
// is written but not synced; it gets its sync with the next durable group or with the mark that is
// written after a second of quiet.
//
// At [Open], a bad group behind everything that is known to be synced is a torn tail: it is cut and
// counted. A bad group before that is damage: it is refused with file and offset, and nothing is
// changed. Nothing is ever appended to a segment of an earlier open: what lay behind the last mark
// is copied to a fresh segment of a new epoch.
//
// Files are recycled: a removed segment's is written again from its beginning, with what it held
// still behind that. Every checksum is seeded with store, epoch, segment number and position, and
// no two segments share epoch and number, so that stale bytes cannot come back as records. A file
// that somebody reads is never written again.
//
// [Log.Compact] leaves of old segments only the records that live, in one sparse segment, at their
// old positions: nobody who knows a position has to learn another.
//
// A failed write or sync is final: every waiter gets the error, nothing is released after it, and
// the log has to be opened again from the disk.
//
// It does not guard the directory against a second process, does not know what a record means, and
// does not push back by itself: see [Log.PendingBytes]. The format is in docs/FORMAT.md.
package wal
