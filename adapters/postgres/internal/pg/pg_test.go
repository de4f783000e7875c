package pg

import (
	"errors"
	"fmt"
	"testing"
)

type stateError string

func (e stateError) Error() string    { return "of the server" }
func (e stateError) SQLState() string { return string(e) }

func TestAgain(t *testing.T) {
	for state, want := range map[string]bool{StateSerialization: true, StateDeadlock: true,
		StateLockTimeout: false, "23505": false, "": false} {
		if got := Again(fmt.Errorf("wrapped: %w", stateError(state))); got != want {
			t.Errorf("%q: %t, want %t", state, got, want)
		}
	}
	if Again(errors.New("the connection is cut")) {
		t.Error("a transaction whose outcome nobody knows would be made again")
	}
}

func TestOfOneRow(t *testing.T) {
	for state, want := range map[string]bool{"23505": true, "23503": true, StateAborted: true,
		StateRaised: true, StateSerialization: true, StateDeadlock: true, StateLockTimeout: false,
		StateUndefinedTable: false, "57P01": false, "": false} {
		if got := OfOneRow(fmt.Errorf("wrapped: %w", stateError(state))); got != want {
			t.Errorf("%q: %t, want %t", state, got, want)
		}
	}
}

func ExampleArray() {
	fmt.Println(Array([]int64{1, -2}))
	fmt.Println(Array([]string{`a`, `"quoted" \`, ``}))
	fmt.Println(Array([][]byte{{0, 255}, {}, nil}))
	// Output:
	// {1,-2}
	// {"a","\"quoted\" \\",""}
	// {"\\x00ff","\\x",NULL}
}
