//go:build !linux

package bench

import "io/fs"

func fileSystem(string) string { return "unknown" }

func allocated(info fs.FileInfo) int64 { return info.Size() }
