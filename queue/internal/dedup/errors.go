package dedup

import "fmt"

// DamageError reports a bucket's file that is missing or not what was written. Nothing was changed
// on the disk.
type DamageError struct {
	File   string // its path
	Offset int64
	Err    error // what is wrong there
}

// Error names the file, the offset and what is wrong.
func (e *DamageError) Error() string {
	return fmt.Sprintf("damaged dedup bucket: %s at offset %d: %v", e.File, e.Offset, e.Err)
}

// Unwrap returns Err.
func (e *DamageError) Unwrap() error { return e.Err }

// VersionError reports a bucket's file of a format version that this program does not know.
type VersionError struct {
	File      string
	Found     uint32
	Supported uint32
}

// Error names the file and both versions.
func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has format version %d; this program reads versions up to %d",
		e.File, e.Found, e.Supported)
}
