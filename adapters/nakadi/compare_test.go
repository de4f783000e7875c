package nakadi

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/ackwise/ackwise/deliver/logsource"
)

// TestOldStatsTakeNothing: what was asked before a partition came says nothing of it; what was
// asked after it does.
func TestOldStatsTakeNothing(t *testing.T) {
	now := time.Now()
	l := &log{changes: make(chan logsource.Change, 1), released: make(chan struct{}),
		parts: map[string]*part{"orders/0": {kind: "orders", name: "0", since: now}}}
	st, s := &stream{id: "mine"}, &stats{}
	text := `{"items":[{"event_type":"orders","partitions":[
		{"partition":"0","state":"assigned","stream_id":"another"}]}]}`
	if err := json.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	l.compare(t.Context(), st, s, now.Add(-time.Second))
	if len(l.changes) > 0 || len(l.parts) != 1 {
		t.Error("the partition was given up")
	}
	l.compare(t.Context(), st, s, now.Add(time.Second))
	if len(l.changes) != 1 || len(l.parts) != 0 {
		t.Error("the partition was not given up")
	}
}
