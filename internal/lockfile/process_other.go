//go:build !linux

package lockfile

// Other systems name a process by its number alone.

func startOf(int) string { return "" }
func boot() string       { return "" }
func namespace() string  { return "" }
