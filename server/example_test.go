package server_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

func ExampleHandler() {
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := queue.Open(dir, queue.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	s := httptest.NewServer(server.Handler(store, server.Options{}))
	defer s.Close()
	res, err := s.Client().Post(s.URL+"/v1/subscriptions", "application/json",
		strings.NewReader(`{"topic":"orders"}`))
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(res.StatusCode, err)
	fmt.Println(strings.Contains(string(body), `"type":"urn:ackwise:not-found"`))
	// Output:
	// 404 <nil>
	// true
}

func ExampleLocal() {
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := queue.Open(dir, queue.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	socket, err := server.Local(store)
	if err != nil {
		panic(err)
	}
	fi, err := os.Stat(filepath.Join(dir, "socket"))
	fmt.Println(fi.Mode(), err)
	fmt.Println(socket.Close())
	// Output:
	// Srw------- <nil>
	// <nil>
}
