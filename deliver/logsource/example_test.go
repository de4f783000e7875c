package logsource_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

// A message kills its process. The next owner of the partition, which knows nothing but what was
// committed with the position, finds it.
func ExampleNew() {
	ctx := context.Background()
	topic := memlog.New("flights", 1)
	topic.Append(0, ackwise.Message{ID: "good", Topic: "flights", Key: "AA1"},
		ackwise.Message{ID: "poison", Topic: "flights", Key: "AA1"})

	for crash := range 3 {
		member := topic.Join(fmt.Sprint("member ", crash+1))
		topic.Rebalance(0, time.Time{})
		source, err := logsource.New(member, logsource.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		for {
			ds, err := source.Receive(ctx, 10)
			if errors.Is(err, ackwise.ErrClosed) {
				break
			}
			for _, d := range ds {
				fmt.Printf("%s: %s, %s, crashes %d\n",
					member.Name(), d.ID, d.Cause, d.Counts.Crashes)
				if d.ID == "poison" {
					member.Kill() // without a word
					continue
				}
				source.Settle(ctx, []ackwise.Settlement{{Token: d.Token}})
			}
		}
		source.Close()
	}
	position, _ := topic.Committed(0)
	fmt.Println("position", position)
	// Output:
	// member 1: good, first, crashes 0
	// member 1: poison, first, crashes 0
	// member 2: poison, consumer-lost, crashes 1
	// member 3: poison, consumer-lost, crashes 2
	// position 000000000001
}
