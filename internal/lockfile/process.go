package lockfile

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ProcessID names a running process (0 = this one) so that a later process of the same number is
// not taken for it: PID.START.BOOT.NAMESPACE. What the system does not tell stays empty.
func ProcessID(pid int) string {
	if pid == 0 {
		pid = os.Getpid()
	}
	return strings.Join([]string{strconv.Itoa(pid), startOf(pid), boot(), namespace()}, ".")
}

// Alive reports whether the process that ProcessID named may still run. It says true where it
// cannot know: a process of another PID namespace is out of sight.
func Alive(id string) bool {
	f := strings.Split(id, ".")
	if len(f) != 4 {
		return true
	}
	pid, err := strconv.Atoi(f[0])
	switch {
	case err != nil || pid <= 0:
		return true
	case f[2] != "" && f[2] != boot():
		return false
	case f[3] != namespace():
		return true
	case f[1] != "":
		return f[1] == startOf(pid)
	}
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
