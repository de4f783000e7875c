//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package bench

import "time"

// CPU returns the processor time that this process has used, 0 where the system does not say.
func CPU() time.Duration { return 0 }
