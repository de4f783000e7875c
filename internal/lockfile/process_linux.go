package lockfile

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// statStart is where the start time stands in /proc/PID/stat, counted behind the command's name
// (which may hold blanks and parentheses): field 22 of proc_pid_stat(5), in ticks since boot.
const statStart = 22 - 3

// startOf returns when a process started; "" = there is none, or it has ended and only waits to be
// reaped.
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) <= statStart || f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[statStart]
}

// boot names this run of the kernel: start times are counted from it.
func boot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	id, _, _ := strings.Cut(string(b), "-")
	return strings.TrimSpace(id)
}

// namespace names the PID namespace: the same number is another process in another one.
func namespace() string {
	s, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.Trim(strings.TrimPrefix(s, "pid:"), "[]")
}
