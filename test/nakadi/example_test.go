package nakadi_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/ackwise/ackwise/test/nakadi"
)

// A server that stores a batch and loses its answer.
func ExampleNew() {
	s, err := nakadi.New(nakadi.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	h := httptest.NewServer(s)
	defer h.Close()
	post := func(path, body string) {
		res, err := http.Post(h.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			fmt.Println("no answer")
			return
		}
		fmt.Println(res.StatusCode)
		_ = res.Body.Close()
	}
	post("/event-types", `{"name":"orders","owning_application":"x","category":"undefined",
		"schema":{"type":"json_schema","schema":"{}"}}`)
	s.Inject(nakadi.Fault{Kind: nakadi.LoseAnswer, Times: 1})
	post("/event-types/orders/events", `[{"n":1}]`)
	post("/event-types/orders/events", `[{"n":1}]`)
	fmt.Println(len(s.Events("orders")), "stored, fired", s.Fired(nakadi.LoseAnswer))
	// Output:
	// 201
	// no answer
	// 200
	// 2 stored, fired 1
}
