// Package file reads lines of files and of streams as deliveries, and writes messages as lines.
//
//	PATH ─▶ lines ─▶ logsource ─▶ deliver.Run ─▶ handler
//	          │          │
//	          │          └─▶ PATH.position: how far all is settled, what is in flight, how often
//	          └─ gone, cut or replaced: stop with an error, or begin anew (OnChange)
//
//	messages ─▶ Sink ─▶ one write ─▶ sync ─▶ accepted
//
// It promises that the position never passes a line that is not settled, through crashes too; that
// no line is taken for settled because another file has come under the name, within what a
// fingerprint of the file's first KiB and its length can tell; and that what a [Sink] of a file has
// accepted is on the disk. A line's ID is the file's absolute path and the line's offset, unless a
// field of the line says it, so that it is the same at every read.
//
// The position file has two slots that are written in turn, each with a checksum, so that a write
// that is cut short leaves the other. It is locked while a source uses it.
//
// A stream ([NewStream]) has no position: what was read and not settled is gone when the process
// ends. A [Sink] does not deduplicate: after a crash a message may stand twice. Start with
// ExampleNewSource.
package file
