package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
)

func ExampleProblemOf() {
	b, err := json.Marshal(wire.ProblemOf(fmt.Errorf("publish o-1: %w", ackwise.ErrFull)))
	fmt.Println(string(b), err)
	var p wire.Problem
	err = json.Unmarshal(b, &p)
	fmt.Println(p.Err(), errors.Is(p.Err(), ackwise.ErrFull), err)
	// Output:
	// {"type":"urn:ackwise:full","title":"full","status":507,"detail":"publish o-1: full"} <nil>
	// publish o-1: full true <nil>
}
