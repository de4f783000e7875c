package sns_test

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

// fake is an SNS of the query protocol that refuses what the real one refuses, and keeps what it
// was given as a subscription with raw delivery would get it.
type fake struct {
	url string

	mu     sync.Mutex // guards the fields below
	topics map[string]*fakeTopic
	subs   []fakeSub
	calls  []string
	// fault answers the next call of an action instead, after it was carried out where done is set.
	faults []fault
	fired  int
}

type fakeTopic struct {
	arn   string
	max   int
	got   []published
	dedup map[string]bool
	n     int
}

type published struct {
	attr.Encoded
	group, dedup string
}

type fakeSub struct {
	arn, topic, queue string
	attributes        map[string]string
}

type fault struct {
	action string
	entry  string // of a batch: its body; "" = the whole call
	status int    // 0 = the connection is cut
	code   string
	text   string
	done   bool
}

const arnBase = "arn:aws:sns:eu-central-1:000000000000:"

func newFake(t *testing.T, topics ...string) *fake {
	t.Helper()
	f := &fake{topics: map[string]*fakeTopic{}}
	for _, name := range topics {
		f.create(name)
	}
	s := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

func (f *fake) create(name string) *fakeTopic {
	arn := arnBase + name
	if f.topics[arn] == nil {
		f.topics[arn] = &fakeTopic{arn: arn, max: 262144, dedup: map[string]bool{}}
	}
	return f.topics[arn]
}

func (f *fake) inject(one fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, one)
}

func (f *fake) hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

func (f *fake) bodies(topic string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, p := range f.topics[arnBase+topic].got {
		all = append(all, p.Body)
	}
	return all
}

type refusal struct {
	status     int
	code, text string
}

func refuse(code, format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	action := r.PostForm.Get("Action")
	f.calls = append(f.calls, action)
	i := slices.IndexFunc(f.faults, func(o fault) bool { return o.action == action && o.entry == "" })
	var planned *fault
	if i >= 0 {
		one := f.faults[i]
		planned, f.faults = &one, slices.Delete(f.faults, i, i+1)
		f.fired++
	}
	var body string
	var no *refusal
	if planned == nil || planned.done {
		body, no = f.do(action, r.PostForm)
	}
	switch {
	case planned != nil && planned.status == 0:
		panic(http.ErrAbortHandler) // the connection ends without an answer
	case planned != nil:
		no = &refusal{planned.status, planned.code, planned.text}
	}
	w.Header().Set("Content-Type", "text/xml")
	if no != nil {
		w.WriteHeader(no.status)
		fmt.Fprintf(w, `<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error>`+
			`<Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`,
			no.code, escape(no.text))
		return
	}
	fmt.Fprintf(w, `<%[1]sResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><%[1]sResult>%[2]s`+
		`</%[1]sResult></%[1]sResponse>`, action, body)
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a builder takes all
	return b.String()
}

func (f *fake) do(action string, q url.Values) (string, *refusal) {
	if action == "ListTopics" {
		body := "<Topics>"
		for arn := range f.topics {
			body += "<member><TopicArn>" + arn + "</TopicArn></member>"
		}
		return body + "</Topics>", nil
	}
	if action == "CreateTopic" {
		name := q.Get("Name")
		if strings.HasSuffix(name, ".fifo") != (q.Get("Attributes.entry.1.value") == "true") {
			return "", refuse("InvalidParameter", "the name %s and FifoTopic do not fit", name)
		}
		return "<TopicArn>" + f.create(name).arn + "</TopicArn>", nil
	}
	if action == "GetSubscriptionAttributes" {
		return f.attributes(q.Get("SubscriptionArn"))
	}
	t := f.topics[q.Get("TopicArn")]
	if t == nil {
		return "", &refusal{http.StatusNotFound, "NotFound", "Topic does not exist"}
	}
	switch action {
	case "GetTopicAttributes":
		return pairs(map[string]string{"TopicArn": t.arn, "MaximumMessageSize": strconv.Itoa(t.max)}), nil
	case "Publish":
		p, no := t.read(q, "")
		if no != nil {
			return "", no
		}
		return t.take(p), nil
	case "PublishBatch":
		return f.batch(t, q)
	case "Subscribe":
		return f.subscribe(t, q)
	case "ListSubscriptionsByTopic":
		body := "<Subscriptions>"
		for _, s := range f.subs {
			if s.topic == t.arn {
				body += "<member><SubscriptionArn>" + s.arn + "</SubscriptionArn><Protocol>sqs</Protocol>" +
					"<Endpoint>" + s.queue + "</Endpoint><TopicArn>" + t.arn + "</TopicArn></member>"
			}
		}
		return body + "</Subscriptions>", nil
	}
	return "", refuse("InvalidAction", "%s", action)
}

func pairs(all map[string]string) string {
	body := "<Attributes>"
	for k, v := range all {
		body += "<entry><key>" + k + "</key><value>" + escape(v) + "</value></entry>"
	}
	return body + "</Attributes>"
}

// read reads a message of a call, or of an entry of a batch.
func (t *fakeTopic) read(q url.Values, at string) (published, *refusal) {
	p := published{group: q.Get(at + "MessageGroupId"), dedup: q.Get(at + "MessageDeduplicationId")}
	if p.Body = q.Get(at + "Message"); p.Body == "" {
		return p, refuse("InvalidParameter", "Invalid parameter: Empty message")
	}
	for i := 1; ; i++ {
		e := fmt.Sprintf("%sMessageAttributes.entry.%d.", at, i)
		name := q.Get(e + "Name")
		if name == "" {
			break
		}
		a := attr.Attribute{Name: name, Type: q.Get(e + "Value.DataType"),
			Text: q.Get(e + "Value.StringValue")}
		if a.Type == attr.Binary {
			data, err := base64.StdEncoding.DecodeString(q.Get(e + "Value.BinaryValue"))
			if err != nil {
				return p, refuse("InvalidParameter", "binary: %v", err)
			}
			a.Data = data
		}
		if a.Text == "" && len(a.Data) == 0 {
			return p, refuse("ParameterValueInvalid", "The message attribute %s has no value", name)
		}
		p.Attributes = append(p.Attributes, a)
	}
	fifo := strings.HasSuffix(t.arn, ".fifo")
	switch {
	case p.Size() > t.max:
		return p, refuse("InvalidParameter", "Invalid parameter: Message too long")
	case fifo && (p.group == "" || p.dedup == ""):
		return p, refuse("InvalidParameter", "The MessageGroupId parameter is required for FIFO topics")
	case !fifo && p.dedup != "":
		return p, refuse("InvalidParameter", "MessageDeduplicationId is for FIFO topics")
	case len(p.group) > 128 || len(p.dedup) > 128:
		return p, refuse("InvalidParameter", "the group or the deduplication ID is too long")
	case len(p.Attributes) > 10:
		return p, refuse("InvalidParameter", "more than 10 attributes: raw delivery discards it")
	}
	return p, nil
}

func (t *fakeTopic) take(p published) string {
	t.n++
	answer := fmt.Sprintf("<MessageId>m-%d</MessageId>", t.n)
	if p.dedup != "" {
		answer += fmt.Sprintf("<SequenceNumber>%020d</SequenceNumber>", t.n)
		if t.dedup[p.dedup] {
			return answer
		}
		t.dedup[p.dedup] = true
	}
	t.got = append(t.got, p)
	return answer
}

func (f *fake) batch(t *fakeTopic, q url.Values) (string, *refusal) {
	ok, failed, size, seen := "", "", 0, map[string]bool{}
	var entries []published
	var ids []string
	for i := 1; ; i++ {
		at := fmt.Sprintf("PublishBatchRequestEntries.member.%d.", i)
		id := q.Get(at + "Id")
		switch {
		case id == "" && i == 1:
			return "", refuse("EmptyBatchRequest", "no entries")
		case id == "":
		case i > 10:
			return "", refuse("TooManyEntriesInBatchRequest", "more than 10 entries")
		case seen[id]:
			return "", refuse("BatchEntryIdsNotDistinct", "two entries %s", id)
		}
		if id == "" {
			break
		}
		seen[id] = true
		p, no := t.read(q, at)
		if no == nil {
			size += p.Size()
			entries, ids = append(entries, p), append(ids, id)
			continue
		}
		failed += entryFault(id, no.code, no.text, true)
	}
	if size > t.max {
		return "", refuse("BatchRequestTooLong", "%d bytes", size)
	}
	for i, p := range entries {
		j := slices.IndexFunc(f.faults, func(o fault) bool {
			return o.action == "PublishBatch" && o.entry == p.Body
		})
		if j >= 0 {
			o := f.faults[j]
			f.faults = slices.Delete(f.faults, j, j+1)
			f.fired++
			if o.code != "" {
				failed += entryFault(ids[i], o.code, o.text, o.status < 500)
			}
			continue
		}
		ok += "<member><Id>" + ids[i] + "</Id>" + t.take(p) + "</member>"
	}
	return "<Successful>" + ok + "</Successful><Failed>" + failed + "</Failed>", nil
}

func entryFault(id, code, text string, sender bool) string {
	return fmt.Sprintf("<member><Id>%s</Id><Code>%s</Code><Message>%s</Message><SenderFault>%t"+
		"</SenderFault></member>", id, code, escape(text), sender)
}

func (f *fake) subscribe(t *fakeTopic, q url.Values) (string, *refusal) {
	s := fakeSub{arn: fmt.Sprintf("%s:sub-%d", t.arn, len(f.subs)), topic: t.arn,
		queue:      q.Get("Endpoint"),
		attributes: map[string]string{"RawMessageDelivery": "false"}}
	for i := 1; q.Get(fmt.Sprintf("Attributes.entry.%d.key", i)) != ""; i++ {
		s.attributes[q.Get(fmt.Sprintf("Attributes.entry.%d.key", i))] =
			q.Get(fmt.Sprintf("Attributes.entry.%d.value", i))
	}
	f.subs = append(f.subs, s)
	return "<SubscriptionArn>" + s.arn + "</SubscriptionArn>", nil
}

func (f *fake) attributes(arn string) (string, *refusal) {
	for _, s := range f.subs {
		if s.arn == arn {
			return pairs(s.attributes), nil
		}
	}
	return "", &refusal{http.StatusNotFound, "NotFound", "Subscription does not exist"}
}
