package wal

import "errors"

// NotKept reports whether err says that a position is in no segment that is kept: it was freed, or
// never was.
func NotKept(err error) bool { return errors.Is(err, errNotKept) }
