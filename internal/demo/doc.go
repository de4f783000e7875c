// Package demo shows the three guarantees and the four patterns on real input under real faults,
// with measured figures.
//
//	flights ─▶ producer ─▶ queue.Store ◀─ socket ─ consumer processes ─▶ traces ─▶ judge ─▶ Report
//	           repeats      (this             killed, leaving,          effects   beside the
//	           publishes    process)          losing acks                         engine's books
//
// It promises that faults are made outside the engine and counted where they are made, and that
// what a handler did is judged only by what its own process wrote, one write a line, before it was
// killed; where the effect is in the engine's tables, they are read. The engine's counters stand
// beside these figures and never replace them. The same seed makes the same plan of faults; which
// message a fault hits depends on the machine. Consumers end with the process that runs the demo,
// and every wait is bounded.
//
// It measures no speed of its own: what a guarantee costs is measured by internal/bench, without
// faults.
package demo
