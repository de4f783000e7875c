// Package kill tests the command as its users meet it: separate processes on one directory, ended
// with SIGKILL, frozen, cut off from their readers, out of disk, on a disk whose syncs fail, or on
// one whose plug is pulled.
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
// The legal faults are the end or a halt of any process at any instruction, closed pipes, a disk
// that is full or read-only, a sync that fails, hangs or kills (strace does that), and the loss of
// what was not synced: a file system on a loop device is shut down without its journal. What is
// printed after that moment does not count. Power cuts with every subset of the unsynced blocks are
// simulated in package queue.
//
// Some machines cannot do all of this. TestMachine says what this one can; the long runs fail where
// a test is skipped without a proof that the machine never could.
package kill
