package sqs

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a server of the service's protocol (AWS JSON 1.0) in memory, as strict as AWS documents
// it. Clients in other processes reach it.
type fake struct {
	URL string

	mu      sync.Mutex // guards all below
	changed chan struct{}
	queues  map[string]*fakeQueue
	faults  []*fakeFault
	ahead   time.Duration // its clock before the real one
	serial  int
	calls   map[string]int
}

// fakeFault makes the next calls of an action fail.
type fakeFault struct {
	action string
	times  int
	// One of these is set.
	code  string // the call is refused with this code, and status 400, or 500 for InternalError
	entry string // the entry at index fails with this code
	index int
	late  bool          // the entry fails in the answer only: it was carried out
	cut   bool          // the call is carried out, and the connection ends within the answer
	hold  chan struct{} // the call is carried out, and its answer waits until this is closed
	fired int
}

// unnamed, as fakeFault.entry of SendMessageBatch, leaves the entry out of the answer.
const unnamed = "not in the answer"

type fakeQueue struct {
	name       string
	fifo       bool
	attributes map[string]string
	created    time.Time
	messages   []*fakeMessage
	dedup      map[string]*fakeMessage
	attempts   map[string][]*fakeMessage
	move       string // handle of the running task
}

type fakeMessage struct {
	id, body, group, dedup, seq string
	attributes                  map[string]fakeAttribute
	sent, first, hidden, since  time.Time
	receives                    int
	receipt                     string // of the last receipt
	gone                        bool
}

type fakeAttribute struct {
	DataType    string
	StringValue string `json:",omitempty"`
	BinaryValue []byte `json:",omitempty"`
}

type fakeError struct {
	code, text string
	server     bool
}

func (e *fakeError) Error() string { return e.code + ": " + e.text }

func refuse(code, format string, args ...any) error {
	return &fakeError{code: code, text: fmt.Sprintf(format, args...)}
}

func newFake(t testing.TB) *fake {
	t.Helper()
	f := &fake{changed: make(chan struct{}), queues: map[string]*fakeQueue{}, calls: map[string]int{}}
	server := httptest.NewServer(f)
	f.URL = server.URL
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, fault := range f.faults {
			if fault.fired < fault.times {
				t.Errorf("the fault %+v fired %d times", *fault, fault.fired)
			}
		}
	})
	return f
}

// fail plans a fault; one that does not fire as often as planned fails the test.
func (f *fake) fail(fault fakeFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, &fault)
}

// advance moves the server's clock.
func (f *fake) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead += d
	f.wake()
}

// age makes all that a queue holds older.
func (f *fake) age(name string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.queues[name].messages {
		m.sent = m.sent.Add(-d)
	}
}

func (f *fake) now() time.Time { return time.Now().Add(f.ahead) }

func (f *fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// count is how many calls of an action came.
func (f *fake) count(action string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[action]
}

// stored returns what a queue holds.
func (f *fake) stored(name string) []fakeMessage {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []fakeMessage
	if q := f.queues[name]; q != nil {
		for _, m := range q.messages {
			all = append(all, *m)
		}
	}
	return all
}

// fakeRequest has every field that a supported action knows.
type fakeRequest struct {
	QueueName, QueueURL, QueueOwnerAWSAccountID, QueueNamePrefix, ReceiveRequestAttemptID string
	SourceArn, DestinationArn, TaskHandle                                                 string

	Attributes map[string]string

	AttributeNames, MessageAttributeNames, MessageSystemAttributeNames             []string
	MaxNumberOfMessages, WaitTimeSeconds, MaxResults, MaxNumberOfMessagesPerSecond int
	VisibilityTimeout                                                              *int
	Entries                                                                        []fakeEntry
}

type fakeEntry struct {
	ID, MessageBody, MessageGroupID, MessageDeduplicationID, ReceiptHandle string
	MessageAttributes                                                      map[string]fakeAttribute
	VisibilityTimeout                                                      int
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, action, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	var in fakeRequest
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		dec := json.NewDecoder(strings.NewReader(string(raw)))
		dec.DisallowUnknownFields() // a field that the fake does not know would be a rule it breaks
		err = dec.Decode(&in)
	}
	if !ok || err != nil || !strings.Contains(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256") {
		answer(w, nil, refuse("InvalidAction", "%s: %v", action, err))
		return
	}
	f.mu.Lock()
	f.calls[action]++
	fault := f.take(action)
	var out any
	if fault != nil && fault.code != "" {
		err = &fakeError{code: fault.code, text: "injected", server: fault.code == "InternalError"}
	} else {
		out, err = f.do(r, action, &in, fault)
	}
	f.mu.Unlock()
	if fault != nil && fault.cut {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
			_ = conn.Close()
		}
		return
	}
	if fault != nil && fault.hold != nil {
		<-fault.hold
	}
	answer(w, out, err)
}

func answer(w http.ResponseWriter, out any, err error) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if e, ok := errors.AsType[*fakeError](err); ok {
		status, who := http.StatusBadRequest, "Sender"
		if e.server {
			status, who = http.StatusInternalServerError, "Receiver"
		}
		w.Header().Set("x-amzn-query-error", "AWS.SimpleQueueService."+e.code+";"+who)
		w.WriteHeader(status)
		out = map[string]string{"__type": "com.amazonaws.sqs#" + e.code, "message": e.text}
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (f *fake) take(action string) *fakeFault {
	for _, fault := range f.faults {
		if fault.action == action && fault.fired < fault.times {
			fault.fired++
			return fault
		}
	}
	return nil
}

func (f *fake) do(r *http.Request, action string, in *fakeRequest, fault *fakeFault) (any, error) {
	switch action {
	case "CreateQueue":
		return f.create(in)
	case "ListQueues":
		var urls []string
		for name := range f.queues {
			urls = append(urls, f.url(name))
		}
		slices.Sort(urls)
		return map[string]any{"QueueUrls": urls}, nil
	case "ListMessageMoveTasks", "StartMessageMoveTask", "CancelMessageMoveTask":
		return f.tasks(action, in)
	}
	q := f.queues[cmp.Or(in.QueueName, in.QueueURL[strings.LastIndexByte(in.QueueURL, '/')+1:])]
	if q == nil {
		return nil, refuse("QueueDoesNotExist", "The specified queue does not exist.")
	}
	switch action {
	case "GetQueueUrl":
		return map[string]any{"QueueUrl": f.url(q.name)}, nil
	case "GetQueueAttributes":
		return map[string]any{"Attributes": q.describe(f.now())}, nil
	case "SendMessageBatch":
		return f.sendBatch(q, in, fault)
	case "ReceiveMessage":
		return f.receive(r, q, in)
	case "DeleteMessageBatch":
		return f.batch(in, fault, func(e *fakeEntry) error { return f.remove(q, e) })
	case "ChangeMessageVisibilityBatch":
		return f.batch(in, fault, func(e *fakeEntry) error { return f.change(q, e) })
	case "DeleteQueue":
		delete(f.queues, q.name)
		f.wake()
		return map[string]any{}, nil
	case "PurgeQueue":
		q.messages = nil
		return map[string]any{}, nil
	}
	return nil, refuse("UnsupportedOperation", "%s", action)
}

func (f *fake) url(name string) string { return f.URL + "/000000000000/" + name }

func arn(name string) string { return "arn:aws:sqs:eu-central-1:000000000000:" + name }

func (f *fake) create(in *fakeRequest) (any, error) {
	name := in.QueueName
	if q := f.queues[name]; q != nil {
		for k, v := range in.Attributes {
			if q.attributes[k] != v {
				return nil, refuse("QueueNameExists", "with another %s", k)
			}
		}
		return map[string]any{"QueueUrl": f.url(name)}, nil
	}
	if keep := in.Attributes["MessageRetentionPeriod"]; keep != "" {
		if n, err := strconv.Atoi(keep); err != nil || n < 60 || n > 1209600 {
			return nil, refuse("InvalidAttributeValue", "MessageRetentionPeriod %s", keep)
		}
	}
	fifo := in.Attributes["FifoQueue"] == "true"
	if fifo != strings.HasSuffix(name, ".fifo") {
		return nil, refuse("InvalidParameterValue", "the name of a FIFO queue ends in .fifo")
	}
	q := &fakeQueue{name: name, fifo: fifo, attributes: in.Attributes, created: f.now(),
		dedup: map[string]*fakeMessage{}, attempts: map[string][]*fakeMessage{}}
	if q.attributes == nil {
		q.attributes = map[string]string{}
	}
	f.queues[name] = q
	return map[string]any{"QueueUrl": f.url(name)}, nil
}

func (q *fakeQueue) describe(now time.Time) map[string]string {
	all := map[string]string{"VisibilityTimeout": "30", "MessageRetentionPeriod": "345600",
		"MaximumMessageSize": "1048576", "QueueArn": arn(q.name)}
	maps.Copy(all, q.attributes)
	hidden := 0
	for _, m := range q.messages {
		if m.hidden.After(now) {
			hidden++
		}
	}
	all["ApproximateNumberOfMessages"] = strconv.Itoa(len(q.messages) - hidden)
	all["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(hidden)
	return all
}

func (q *fakeQueue) seconds(name string) time.Duration {
	n, _ := strconv.Atoi(q.describe(time.Time{})[name])
	return time.Duration(n) * time.Second
}

// batch carries out the entries of a call.
func (f *fake) batch(in *fakeRequest, fault *fakeFault, do func(*fakeEntry) error) (any, error) {
	if err := checkBatch(in); err != nil {
		return nil, err
	}
	done, failed := []map[string]any{}, []map[string]any{}
	for i := range in.Entries {
		e := &in.Entries[i]
		hit := fault != nil && fault.entry != "" && fault.index == i
		if !hit || fault.late {
			if err, ok := errors.AsType[*fakeError](do(e)); ok {
				failed = append(failed, map[string]any{"Id": e.ID, "Code": err.code, "Message": err.text,
					"SenderFault": !err.server})
				continue
			}
		}
		if hit {
			failed = append(failed, map[string]any{"Id": e.ID, "Code": fault.entry, "Message": "injected",
				"SenderFault": fault.entry != "InternalError"})
			continue
		}
		done = append(done, map[string]any{"Id": e.ID})
	}
	f.wake()
	return map[string]any{"Successful": done, "Failed": failed}, nil
}

func checkBatch(in *fakeRequest) error {
	ids := map[string]bool{}
	for _, e := range in.Entries {
		if ids[e.ID] {
			return refuse("BatchEntryIdsNotDistinct", "%s", e.ID)
		}
		ids[e.ID] = true
	}
	switch n := len(in.Entries); {
	case n == 0:
		return refuse("EmptyBatchRequest", "there is no entry")
	case n > 10:
		return refuse("TooManyEntriesInBatchRequest", "%d entries", n)
	}
	return nil
}

func (q *fakeQueue) held(receipt string, now time.Time) (*fakeMessage, bool) {
	for _, m := range q.messages {
		if m.receipt == receipt && receipt != "" {
			return m, m.hidden.After(now)
		}
	}
	return nil, false
}

func (f *fake) remove(q *fakeQueue, e *fakeEntry) error {
	m, inFlight := q.held(e.ReceiptHandle, f.now())
	switch {
	case !strings.HasPrefix(e.ReceiptHandle, "r-"):
		return refuse("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
	case m == nil: // deleted before, or received again: it succeeds, and does nothing
		return nil
	case q.fifo && !inFlight:
		return refuse("InvalidParameterValue", "Value %s for parameter ReceiptHandle is invalid. "+
			"Reason: The receipt handle has expired.", e.ReceiptHandle)
	}
	m.gone = true
	q.messages = slices.DeleteFunc(q.messages, func(o *fakeMessage) bool { return o == m })
	return nil
}

func (f *fake) change(q *fakeQueue, e *fakeEntry) error {
	now := f.now()
	m, inFlight := q.held(e.ReceiptHandle, now)
	d := time.Duration(e.VisibilityTimeout) * time.Second
	switch {
	case !strings.HasPrefix(e.ReceiptHandle, "r-"):
		return refuse("ReceiptHandleIsInvalid", "The input receipt handle is invalid.")
	case m == nil, !inFlight:
		return refuse("InvalidParameterValue",
			"Value %s for parameter ReceiptHandle is invalid. Reason: "+
				"Message does not exist or is not available for visibility timeout change.", e.ReceiptHandle)
	case d < 0 || now.Add(d).Sub(m.since) > 12*time.Hour:
		return refuse("InvalidParameterValue",
			"Value %d for parameter VisibilityTimeout is invalid. Reason: "+
				"Total VisibilityTimeout for the message is beyond the limit [43200 seconds].",
			e.VisibilityTimeout)
	}
	m.hidden = now.Add(d)
	for id, ms := range q.attempts { // an attempt is repeated only as long as none of it is changed
		if slices.Contains(ms, m) {
			delete(q.attempts, id)
		}
	}
	return nil
}

func md5Of(s string) string {
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}
