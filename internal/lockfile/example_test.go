package lockfile_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/ackwise/ackwise/internal/lockfile"
)

func ExampleAcquire() {
	dir, err := os.MkdirTemp("", "lockfile")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	lock, err := lockfile.Acquire(dir)
	fmt.Println("mine:", err == nil)
	_, err = lockfile.Acquire(dir)
	var held *lockfile.HeldError
	fmt.Println("held:", errors.As(err, &held), held.Info.PID == os.Getpid())
	fmt.Println("given up:", lock.Release() == nil)
	// Output:
	// mine: true
	// held: true true
	// given up: true
}
