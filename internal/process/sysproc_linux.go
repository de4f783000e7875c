package process

import "syscall"

// childAttr puts a child into a group of its own and has the kernel kill it when the thread that
// started it ends, which is why a family starts its children from one thread that it keeps.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
