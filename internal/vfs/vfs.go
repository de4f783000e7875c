// Package vfs is the small part of a file system that the engine stands on, so that its faults can
// be played: [OS] is the real one, [Mem] one in memory that can lose power, and [Faults] a wrapper
// that makes chosen calls fail, fall short or hang.
//
// The legal model, which [Mem.CrashClone] plays: memory is right, and what a successful Sync or
// SyncDir covered holds. Of what was written to a file since its last Sync, any subset of the
// 512-byte blocks persists, in any order; a block that does not shows its synced content, or zeros
// where it had none. The file's length is any between the synced and the written one; room that
// was allocated and not synced may be lost, and what was cut may be there again. Of the
// directory operations since the last SyncDir of their directory, any subset persists, independent
// of the files' data: a file may be there under a new name, an old one, or none. A rename is
// atomic. A block written several times between two syncs shows its last content or its synced one,
// none between.
//
// It is not a general file system: no links, no working directory, no permissions in [Mem], and
// directories made by MkdirAll are there at once.
package vfs

import "io"

// BlockBytes is the unit in which a power cut keeps or loses what was written.
const BlockBytes = 512

// FS is a file system.
type FS interface {
	Files
	Dirs
}

// Files are the operations on named files.
type Files interface {
	// Create makes a file with mode 0600 for reading and writing. One that exists is an error.
	Create(name string) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// Edit opens a file that is there for reading and writing.
	Edit(name string) (File, error)
	// Rename gives a file another name in the same directory, in place of what had it.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
}

// Dirs are the operations on directories.
type Dirs interface {
	// MkdirAll makes a directory with mode 0700, and those above it.
	MkdirAll(dir string) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes the creations, renames and removals in a directory durable.
	SyncDir(dir string) error
	// FreeBytes returns the space left for dir.
	FreeBytes(dir string) (int64, error)
	// Inode returns a number that tells a directory from its copy.
	Inode(dir string) (uint64, error)
}

// File is an open file.
type File interface {
	Content
	Room
	io.Closer
}

// Content is what a file holds.
type Content interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes the content and the length durable.
	Sync() error
}

// Room is what a file takes of the disk.
type Room interface {
	// Size returns the length.
	Size() (int64, error)
	// Allocate makes sure that the first size bytes have room on the disk; a file that is shorter
	// becomes as long, with zeros. Where there is no room, nothing has changed.
	Allocate(size int64) error
	// Ahead asks for room up to size, which makes writing there cheaper, and leaves the length as it
	// is. Where there is none nothing is promised; Truncate gives what is left of it back.
	Ahead(size int64) error
	// Truncate cuts the file to a length, and gives the room behind it back.
	Truncate(size int64) error
}
