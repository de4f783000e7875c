package nakadi

import (
	"fmt"
	"strconv"

	"github.com/ackwise/ackwise"
)

// TrimmedError reports events that are gone from an event type though its subscription had not
// committed them.
type TrimmedError struct {
	EventType, Partition string
	// After is the offset up to which the subscription has committed, Before that of the oldest event
	// that is left. What was between them is gone.
	After, Before string
}

// Error names the partition and what is gone.
func (e *TrimmedError) Error() string {
	return fmt.Sprintf("partition %s of event type %s was trimmed before it was settled: "+
		"the events after offset %s and before %s are gone", e.Partition, e.EventType, e.After, e.Before)
}

// Final says that no other attempt will help.
func (e *TrimmedError) Final() bool { return true }

// passTrimmed looks whether events are gone that come behind what is committed. Nakadi says nothing
// of them where a stream begins, and sends what is left. It ends the source, or tells and goes on.
func (l *log) passTrimmed(p *part, one *line, oldest string) error {
	gone := missing(p.pos, oldest)
	if gone == 0 || len(one.Events) > 0 && one.Cursor.Offset < oldest {
		return nil // or the stream began before they went
	}
	loss := TrimmedError{EventType: p.kind, Partition: p.name, After: string(p.pos), Before: oldest}
	name := one.Cursor.key()
	switch known := l.passed[name] == loss; {
	case known:
	case !l.o.SkipTrimmed:
		return &finalError{&ackwise.HintError{Err: &loss, Hint: "Bring the target in line with what " +
			"was to come, then start with on_trimmed=skip until something behind it is settled: that " +
			"goes on with what is left. A longer retention_time of the event type keeps it from " +
			"happening again."}}
	default:
		l.tellOf(name, "trimmed", &loss)
	}
	l.passed[name] = loss
	p.gone = gone
	return nil
}

// prefixLen is the length of an offset's version and timeline.
const prefixLen = len("001-0001-")

// missing counts the events between what is committed and the oldest that is left. Of another
// version or timeline, or in a form that is not known, it is not known, and 0.
func missing(committed ackwise.Position, oldest string) int64 {
	if !offsetText.MatchString(oldest) || oldest[:prefixLen] != string(committed[:prefixLen]) {
		return 0
	}
	return max(0, ordinal(oldest)-ordinal(string(committed))-1)
}

// ordinal reads the digits of an offset of the known form.
func ordinal(offset string) int64 {
	n, _ := strconv.ParseInt(offset[prefixLen:], 10, 64) // 18 digits always fit
	return n
}
