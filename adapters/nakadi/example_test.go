package nakadi_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/nakadi"
	fake "github.com/ackwise/ackwise/test/nakadi"
)

// exampleServer stands for a Nakadi with the event type orders.
func exampleServer() (host string, end func()) {
	s, err := fake.New(fake.Options{})
	if err != nil {
		panic(err)
	}
	h := httptest.NewServer(s)
	host = strings.TrimPrefix(h.URL, "http://")
	if err := makeKind(host, "orders", 1, nil); err != nil {
		panic(err)
	}
	return host, func() {
		s.Close()
		h.CloseClientConnections()
		h.Close()
	}
}

// A batch with a poison message: the others get through in the same call.
func ExampleOpenSink() {
	host, end := exampleServer()
	defer end()
	ctx := context.Background()
	o, err := nakadi.ParseSink("nakadi://" + host + "/orders?tls=false")
	if err != nil {
		fmt.Println(err)
		return
	}
	sink, err := nakadi.OpenSink(ctx, o)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sink.Close()
	for _, r := range sink.Publish(ctx, []ackwise.Message{
		{ID: "1", Key: "AA1", Body: []byte(`{"key":"AA1","state":"landed"}`)},
		{ID: "2", Body: []byte(`{"state":"without the field that the type is partitioned by"}`)},
		{ID: "3", Key: "BB2", Body: []byte(`{"key":"BB2","state":"landed"}`)},
	}) {
		fmt.Println(r.ID, r.Class)
	}
	// Output:
	// 1 accepted
	// 2 rejected
	// 3 accepted
}

// A subscription is made, and read with any bytes as bodies.
func ExampleOpenSource() {
	host, end := exampleServer()
	defer end()
	ctx := context.Background()
	out, err := nakadi.ParseSink("nakadi://" + host + "/orders?tls=false&wrap=body")
	if err != nil {
		fmt.Println(err)
		return
	}
	sink, err := nakadi.OpenSink(ctx, out)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sink.Close()
	sink.Publish(ctx, []ackwise.Message{{ID: "1", Key: "AA1", Body: []byte("landed")}})

	in, err := nakadi.ParseSource("nakadi://" + host +
		"?event_types=orders&application=tower&create=true&tls=false&keep_alive=1s")
	if err != nil {
		fmt.Println(err)
		return
	}
	source, err := nakadi.OpenSource(ctx, in)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer source.Close()
	ds, err := source.Receive(ctx, 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	d := ds[0]
	fmt.Printf("%s %s %s %s\n", d.Topic, d.ID, d.Key, d.Body)
	fmt.Println(source.Settle(ctx, []ackwise.Settlement{{Token: d.Token}})[0].Err)
	// Output:
	// orders 1 AA1 landed
	// <nil>
}
