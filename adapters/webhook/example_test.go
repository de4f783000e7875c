package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/webhook"
)

func ExampleOpenSink() {
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Header.Get("webhook-id"), r.Header.Get("Content-Type"))
	}))
	defer receiver.Close()
	sink, err := webhook.OpenSink(context.Background(), webhook.SinkOptions{URL: receiver.URL})
	if err != nil {
		fmt.Println(err)
		return
	}
	results := sink.Publish(context.Background(),
		[]ackwise.Message{{ID: "order-1", Body: []byte(`{"amount":7}`)}})
	fmt.Println(results[0].Class, sink.Close())
	// Output:
	// order-1 application/json
	// accepted <nil>
}

func ExampleParseSink() {
	_, err := webhook.ParseSink("https://example.com/hook?secert=env:HOOK_SECRET")
	fmt.Println(err)
	_, err = webhook.ParseSink("https://example.com/hook?secret=env:HOOK_SECRET&timeout=5s")
	fmt.Println(err)
	// Output:
	// there is no option "secert"; did you mean "secret"?; it is https://HOST/PATH?secret=env:NAME
	// <nil>
}
