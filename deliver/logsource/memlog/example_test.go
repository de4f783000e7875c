package memlog_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

// A member of a log with one partition reads what is appended; the log keeps how far it got.
func ExampleNew() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l := memlog.New("flights", 1)
	member := l.Join("a")
	l.Rebalance(0, time.Time{})
	l.Append(0, ackwise.Message{ID: "UA1545", Key: "N14228"})
	source, err := logsource.New(member, logsource.Options{})
	if err != nil {
		log.Fatal(err)
	}
	ds, err := source.Receive(ctx, 10)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ds[0].ID, ds[0].Cause)
	source.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token, Outcome: ackwise.OutcomeAck}})
	position, _ := l.Committed(0)
	fmt.Println("committed:", position >= ds[0].Position)
	if err := source.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// UA1545 first
	// committed: true
}
