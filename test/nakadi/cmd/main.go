package main

import (
	"fmt"
	"os"

	"github.com/ackwise/ackwise/test/nakadi"
)

func main() {
	if err := nakadi.Main(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nakadi:", err)
		os.Exit(1)
	}
}
