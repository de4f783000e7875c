// Package kill tests the command as its users meet it: separate processes on one directory, ended
// with SIGKILL, frozen, cut off from their readers, or out of disk.
//
//	lines ─▶ ackwise publish --print-ids ─┐                ┌─▶ ackwise consume --pipe --print-acks
//	            │ printed IDs             ▼                │      │ acks      └─▶ handler process
//	            ▼                  the directory ──────────┘      ▼                  │ its own file
//	       the test's lists ◀────────────────────────────────────────────────────────┘
//
// It holds only tests, and they know nothing from the inside: what counts as published or acked is
// a whole line that a process printed, what counts as handled is what the handler process wrote to
// its own file before it answered. Every fault is counted where it happens, and a kind that never
// happened fails the test. ACKWISE_FAULTS=long makes the many rounds of them.
//
// The legal faults are the end or a halt of any process at any instruction, closed pipes, and a
// disk that is full or read-only. Power cuts are simulated in package queue: a killed process
// leaves its writes with the kernel.
package kill
