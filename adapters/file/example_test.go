package file_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
)

// The lines of a file are handled once each, also when the program runs again.
func ExampleNewSource() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "flights")
	text := "AA1\nAA2\n"
	for range 2 {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			fmt.Println(err)
			return
		}
		source, err := file.NewSource(path, file.SourceOptions{})
		if err != nil {
			fmt.Println(err)
			return
		}
		handler := ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
			fmt.Println(string(d.Body), d.Cause)
			return nil
		})
		err = deliver.Run(context.Background(), source, handler,
			deliver.Options{NoDeadLetters: true, Concurrency: 1})
		fmt.Println("end", err)
		source.Close()
		text += "AA3\n"
	}
	// Output:
	// AA1 first
	// AA2 first
	// end <nil>
	// AA3 first
	// end <nil>
}

// A stream is read once: it has no position.
func ExampleNewStream() {
	source, err := file.NewStream(strings.NewReader("one\ntwo\n"), "the input",
		file.SourceOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	for range 2 {
		ds, err := source.Receive(context.Background(), 1)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(string(ds[0].Body))
		source.Settle(context.Background(), []ackwise.Settlement{{Token: ds[0].Token}})
	}
	// Output:
	// one
	// two
}

// What the sink has accepted is on the disk.
func ExampleOpenSink() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "out")
	sink, err := file.OpenSink(path, file.SinkOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sink.Close()
	for _, r := range sink.Publish(context.Background(), []ackwise.Message{
		{ID: "1", Body: []byte("one line")}, {ID: "2", Body: []byte("two\nlines")}}) {
		fmt.Println(r.ID, r.Class)
	}
	text, err := os.ReadFile(path)
	fmt.Printf("%q %v\n", text, err)
	// Output:
	// 1 accepted
	// 2 rejected
	// "one line\n" <nil>
}

func ExampleNewWriterSink() {
	sink := file.NewWriterSink(os.Stdout, "standard output", file.SinkOptions{Format: file.JSON})
	sink.Publish(context.Background(), []ackwise.Message{{ID: "1", Key: "k", Body: []byte("b")}})
	// Output:
	// {"id":"1","key":"k","body":"b"}
}
