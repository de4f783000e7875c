//go:build !linux

package process

import "syscall"

// childAttr puts a child into a group of its own. The guard alone ends it with this process.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
