// Package reach opens systems that may be away.
//
//	Within: open ─┬─▶ it is open
//	              ├─▶ an error that Passes: try again, or begin with a Late sink
//	              └─▶ another error: what was asked for is wrong
//
// It promises that an opening ends in time, that what a person has to mend is told from what may
// pass by itself, and that a Late sink never says of a message that it may have arrived while it
// is not open. It decides no pauses between attempts: those are the caller's.
package reach
