package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/queue"
)

// bodies has one well-formed body for each call; the call is chosen by its place.
var bodies = []struct {
	call wire.Call
	body string
}{
	{wire.Owner, `{"pulse_millis":100}`},
	{wire.Receivers, `{"topic":"orders","subscription":"billing","options":{"Session":"s"}}`},
	{wire.Receive, `{"session":"s","max":10,"seq":1,"held":["AAAA"]}`},
	{wire.Settle, `{"session":"s","settlements":[{"token":"AAAA","outcome":"ack"}]}`},
	{wire.Keep, `{"session":"s","seq":1,"held":["AAAA"]}`},
	{wire.CloseReceiver, `{"session":"s"}`},
	{wire.LoseReceiver, `{"session":"s"}`},
	{wire.CreateTopic, `{"topic":"t","options":{"MaxMessages":5,"DedupWindow":1000000000}}`},
	{wire.DeleteTopic, `{"topic":"t","reason":"old"}`},
	{wire.Topics, `{}`},
	{wire.CreateSubscription, `{"topic":"orders","subscription":"x","options":{"Ordered":true}}`},
	{wire.DeleteSubscription, `{"topic":"orders","subscription":"x","reason":"old"}`},
	{wire.Subscriptions, `{"topic":"orders"}`},
	{wire.Publish, `{"messages":[{"id":"a","topic":"orders","key64":"/w==","body":"b",` +
		`"headers":[{"name":"n","value64":"AA=="}],"time":"2013-01-01T00:00:00Z"}],"delay":1000}`},
	{wire.Get, `{"table":"t","key":{"64":"/w=="}}`},
	{wire.Keys, `{"table":"t","key":"","max":10}`},
	{wire.Commit, `{"id":"c","publish":[{"topic":"orders","body":"x"}],` +
		`"writes":[{"table":"t","key":"k","value":"AA=="}]}`},
	{wire.CommitOnce, `{"id":"o","once":[{"set":"effects","key":{"64":"/w=="},"sum":[1]}]}`},
	{wire.Peek, `{"topic":"orders","subscription":"billing","options":{"Max":10}}`},
	{wire.DeadLetters, `{"topic":"orders","subscription":"billing","filter":{"Max":10}}`},
	{wire.Redrive, `{"topic":"orders","subscription":"billing","filter":{},"redo":true}`},
	{wire.DropDead, `{"topic":"orders","subscription":"billing","filter":{},"reason":"r"}`},
	{wire.ParkedKeys, `{"topic":"orders","subscription":"billing","filter":{"Max":10}}`},
	{wire.OpenSet, `{"set":"effects","window":3600000000000,"max_keys":100}`},
	{wire.BindSet, `{"set":"effects","rule":{"64":"/w=="}}`},
	{wire.Claim, `{"set":"effects","call":7,"asks":[{"key":"k","sum":[1,2],"lease":60000000000}]}`},
	{wire.Look, `{"set":"effects","asks":[{"key":{"64":"/w=="}}]}`},
	{wire.SettleClaims, `{"set":"effects","claims":[{"key":"k","fence":1099511627777,"verb":1,` +
		`"result":"AA=="},{"key":"k","fence":1,"verb":3,"lease":1000000}]}`},
	{wire.Books, `{}`},
	{wire.Verify, `{}`},
}

// FuzzCall sends any body to any call: it is answered, or refused with a problem of the client's,
// and the store goes on.
func FuzzCall(f *testing.F) {
	for i, b := range bodies {
		f.Add(uint8(i), []byte(b.body))
	}
	for _, hostile := range []string{"", "{", "null", "[]", `{"messages":[null]}`,
		`{"topic":{}}`, `{"messages":[{"topic":"orders","body64":"%"}]}`,
		`{"filter":{"Max":-9223372036854775808}}`, strings.Repeat(`{"options":`, 10_000)} {
		f.Add(uint8(13), []byte(hostile))
		f.Add(uint8(19), []byte(hostile))
	}
	store := fuzzStore(f)
	h := newHandler(store, Options{})
	f.Cleanup(h.stop)
	f.Fuzz(func(t *testing.T, call uint8, body []byte) {
		name := bodies[int(call)%len(bodies)].call
		// Streams and Receive end with their client.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, wire.Prefix+string(name),
			strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusInsufficientStorage {
			t.Errorf("%s %q: status %d: %s", name, body, w.Code, w.Body)
		}
		if w.Code >= 400 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s %q: the problem is not JSON: %s", name, body, w.Body)
		}
		if err := store.Err(); err != nil {
			t.Fatalf("%s %q stopped the store: %v", name, body, err)
		}
	})
}

// fuzzStore does not sync, and forgets its messages soon.
func fuzzStore(f *testing.F) *queue.Store {
	f.Helper()
	store, err := queue.Open(f.TempDir(), queue.Options{Sync: queue.SyncNever})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		books, err := store.Books(context.Background())
		for _, b := range books {
			if !b.Balanced() {
				f.Errorf("the books of %s/%s do not balance: %+v", b.Topic, b.Subscription, b)
			}
		}
		if err != nil {
			f.Error(err)
		}
		if err := store.Close(); err != nil {
			f.Error(err)
		}
	})
	ctx := f.Context()
	if err := store.CreateTopic(ctx, topic, queue.TopicOptions{MaxMessages: 1000}); err != nil {
		f.Fatal(err)
	}
	if err := store.OpenSet(ctx, "effects", time.Hour, 1000); err != nil {
		f.Fatal(err)
	}
	if err := store.CreateSubscription(ctx, topic, sub, queue.SubscriptionOptions{}); err != nil {
		f.Fatal(err)
	}
	r := store.Publish(ctx, []ackwise.Message{{ID: "first", Topic: topic, Key: "k"}})
	if r[0].Err != nil {
		f.Fatal(r[0].Err)
	}
	return store
}
