package dynamostreams

import "os"

// long reports whether the long runs are asked for.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

// seeds returns how many seeds to run: few, or twenty.
func seeds(few uint64) uint64 {
	if long() {
		return 20
	}
	return few
}
