package file

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
)

// Format is how a message stands on a line.
type Format uint8

const (
	// Body takes the line as the body. The default.
	Body Format = iota
	// JSON takes the line as the JSON form of a whole message: id, key, headers, body, time.
	JSON
)

// String returns the format's word.
func (f Format) String() string { return word(f, "body", "json") }

// OnBad is what a line does that is no message.
type OnBad uint8

const (
	// StopAtBad ends the source with an error that names the line. The default.
	StopAtBad OnBad = iota
	// SkipBad tells SourceOptions.Bad and goes on with the next line.
	SkipBad
)

// String returns the word "stop" or "skip".
func (o OnBad) String() string { return word(o, "stop", "skip") }

// OnChange is what happens when the file that was read is gone, cut or replaced.
type OnChange uint8

const (
	// StopAtChange ends the source with a *ChangedError. The default.
	StopAtChange OnChange = iota
	// RestartAtChange reads what is under the name now from its start. A file that was renamed while
	// it was followed is read to its end first. Lines of the old file that were not read, or were
	// read and not settled when the process ended, are not read again: they are not there any more.
	RestartAtChange
)

// String returns the word "stop" or "restart".
func (o OnChange) String() string { return word(o, "stop", "restart") }

func word[T ~uint8](v T, words ...string) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}

// SourceOptions configure a source of lines. The zero value is ready to use.
type SourceOptions struct {
	// Follow waits for more at the end of the file. A last line without a line feed is then not
	// whole yet. Default: false, the source ends there, and a last line without one counts.
	// Unused by NewStream.
	Follow bool
	// Once, with Follow, ends the source at the present end all the same, without a last line that
	// is not whole. Default: false.
	Once bool
	// Position is the file that remembers how far all is settled. It is made where it is missing.
	// Default: the path with ".position" added. Unused by NewStream.
	Position string
	// OnChange is what happens when the file that was read is gone, cut or replaced.
	// Default: StopAtChange. Unused by NewStream.
	OnChange OnChange
	// Every is how often a followed file is looked at. Default: 200 ms.
	Every time.Duration

	// Format is how a message stands on a line. Default: Body.
	Format Format
	// IDField names the field of a line, then a JSON object, that is its message's ID: a string or
	// a number. Only with Body. Default: "", the ID is the path and the line's offset.
	IDField string
	// KeyField names the field of a line, then a JSON object, that is its message's key: a string
	// or a number. Only with Body. Default: "", there is no key.
	KeyField string
	// OnBad is what a line does that is no message. Default: StopAtBad.
	OnBad OnBad
	// MaxLine bounds a line in bytes; a longer one is bad. Default: 1 MiB.
	MaxLine int

	// Topic is the messages' topic. Default: "", none.
	Topic string
	// Pipeline is the name that goes into events. Default: "".
	Pipeline string
	// Bad is told of each line that is skipped. Default: nobody.
	Bad func(line int, err error)
	// Report is told when a source begins with another file. Default: nobody.
	Report func(text string)
}

func (o SourceOptions) withDefaults(path string) SourceOptions {
	o.Position = cmp.Or(o.Position, path+".position")
	o.Every = cmp.Or(o.Every, 200*time.Millisecond)
	o.MaxLine = cmp.Or(o.MaxLine, 1<<20)
	if o.Bad == nil {
		o.Bad = func(int, error) {}
	}
	if o.Report == nil {
		o.Report = func(string) {}
	}
	return o
}

func (o SourceOptions) validate() error {
	var faults []error
	bad := func(wrong bool, field, reason string) {
		if wrong {
			faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
		}
	}
	bad(o.Every < 0, "Every", "it is negative")
	bad(o.MaxLine < 1, "MaxLine", "it is less than 1")
	bad(o.Format > JSON, "Format", "no such format")
	bad(o.OnBad > SkipBad, "OnBad", "no such word")
	bad(o.OnChange > RestartAtChange, "OnChange", "no such word")
	bad(o.Once && !o.Follow, "Once", "it goes with Follow")
	bad(o.Format == JSON && o.IDField+o.KeyField != "", "IDField",
		"with JSON a line says its ID and key itself: leave IDField and KeyField out")
	return errors.Join(faults...)
}

// ChangedError reports that the file that a position belongs to is gone, cut or replaced.
type ChangedError struct {
	Path     string
	Position string // the position file
	Reason   string // what was seen, as a clause
}

// Error names the file and what was seen.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("the file %s is not the one that was read: %s", e.Path, e.Reason)
}

// Final says that no other attempt will help.
func (e *ChangedError) Final() bool { return true }

// lineError reports a line that is no message.
type lineError struct {
	path string
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("%s, line %d: %v", e.path, e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }
func (e *lineError) Final() bool   { return true }
