// Package process lets handlers be processes in any language: one process a message ([Exec]) or one
// long-lived process that speaks lines of JSON ([Pipe]).
//
//	Source ─▶ Sessions ─▶ loop ─▶ Exec ─▶ sh -c CMD            exit 0 = done
//	             ▲                Pipe ─▶ sh -c CMD  one line a delivery, one line an answer
//	             └── a process died: its session is lost, its deliveries are consumer-lost
//
// It promises that a process which dies settles nothing: what it held comes back with cause
// consumer-lost, charged to the crash budget by the source, and only where it was alone. Nonsense
// from a process is reported with its line and changes nothing else. Every process runs in a group
// of its own, which dies with this process, however it ends.
//
// It keeps no budget and decides no retry: those belong to the loop and the source.
package process
