package wal_test

import (
	"fmt"

	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

func ExampleOpen() {
	disk := vfs.NewMem()
	l, _, err := wal.Open(wal.Options{FS: disk, Dir: "/data/log"})
	if err != nil {
		fmt.Println(err)
		return
	}
	g := l.Append([]wal.Record{{Type: 1, Payload: []byte("hello")}, {Type: 2}}, true)
	<-g.Synced()
	fmt.Println("durable:", g.Err() == nil && l.Synced() == g.End())
	if err := l.Close(); err != nil {
		fmt.Println(err)
	}
	l, found, err := wal.Open(wal.Options{FS: disk, Dir: "/data/log"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("epoch", found.Epoch, "torn", found.Torn)
	err = l.Replay(0, 0, func(r wal.Record) error {
		fmt.Printf("type %d %q\n", r.Type, r.Payload)
		return nil
	})
	fmt.Println(err, l.Close())
	// Output:
	// durable: true
	// epoch 2 torn 0
	// type 1 "hello"
	// type 2 ""
	// <nil> <nil>
}
