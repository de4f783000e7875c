package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestQueueOfDeadLetters: a queue that is made for dead letters is asked to keep them for 14 days,
// and one that keeps them for less is told in the function's log.
func TestQueueOfDeadLetters(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	var asked map[string]string // attributes of the queue that is made
	there := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Attributes map[string]string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil && r.ContentLength > 0 {
			in.Attributes = nil // names only
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		var out any = map[string]any{"QueueUrl": "http://" + r.Host + "/000000000000/dead"}
		switch _, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), "."); {
		case action == "GetQueueUrl" && !there:
			w.WriteHeader(http.StatusBadRequest)
			out = map[string]string{"__type": "com.amazonaws.sqs#QueueDoesNotExist"}
		case action == "CreateQueue":
			asked = in.Attributes
		case action == "GetQueueAttributes":
			out = map[string]any{"Attributes": map[string]string{"MessageRetentionPeriod": "345600"}}
		}
		if err := json.NewEncoder(w).Encode(out); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	open, err := readLetters("sqs://eu-central-1/dead?create=true&endpoint=" + s.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, there = range []bool{false, true} {
		var log bytes.Buffer
		sink, err := open(t.Context(), slog.New(slog.NewJSONHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Error(err)
		}
		if got := asked["MessageRetentionPeriod"]; got != "1209600" {
			t.Errorf("it is made with the retention %q", got)
		}
		if text := log.String(); strings.Count(text, "96h0m0s") != 1 {
			t.Errorf("the log is %q", text)
		}
	}
}

// TestTargetsThatAreNot: a scheme that is no target here is told as what it is elsewhere: a target
// of the ackwise command, its source, a dedup store, or nothing at all.
func TestTargetsThatAreNot(t *testing.T) {
	const run = "`ackwise run` has"
	for text, c := range map[string]struct{ want, not string }{
		"kafka://h/t":            {"kafka:// is not in this binary; the targets are sqs://", ""},
		"kafka://h:9092/t":       {run + " kafka://", ""},
		"queue://d/t":            {run + " queue://", ""},
		"file:///x":              {run + " file://", ""},
		"dynamodb-streams://r/t": {"nothing can be written to it", run},
		"dynamodb://r/t":         {"dynamodb:// is not in this binary as a target: it names a dedup store", run},
		"postgres://h/d":         {"postgres:// is not in this binary: it names a dedup store", run},
		"redis://h/d":            {"redis:// is not in this binary: it names a dedup store", run},
		"nats://h/x":             {"nats:// is not in this binary, nor any system that Ackwise knows; the targets", run},
		"amqp://h/x":             {"amqp:// is not in this binary, nor any system that Ackwise knows", run},
		"sqss://eu-central-1/q":  {`did you mean "sqs://"?`, run},
		"kafkas://h/t":           {`did you mean "kafka://", which is not in it either?`, ""},
	} {
		_, err := readSink(text)
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			c.not != "" && strings.Contains(err.Error(), c.not) {
			t.Errorf("%s: %v, want %q", text, err, c.want)
		}
	}
}
