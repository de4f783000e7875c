package sqs

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The part of the fake that takes messages in and hands them out.

func (f *fake) sendBatch(q *fakeQueue, in *fakeRequest, fault *fakeFault) (any, error) {
	if err := checkBatch(in); err != nil {
		return nil, err
	}
	total := 0
	for i := range in.Entries {
		total += in.Entries[i].size()
	}
	if total > 1<<20 {
		return nil, refuse("BatchRequestTooLong", "Batch requests cannot be longer than 1048576 bytes. "+
			"You have sent %d bytes.", total)
	}
	done, failed := []map[string]any{}, []map[string]any{}
	for i := range in.Entries {
		e := &in.Entries[i]
		hit := fault != nil && fault.entry != "" && fault.index == i
		err := e.check(q)
		if err == nil && (!hit || fault.late) {
			m := f.store(q, e)
			done = append(done, map[string]any{"Id": e.ID, "MessageId": m.id, "SequenceNumber": m.seq,
				"MD5OfMessageBody": md5Of(e.MessageBody)})
		}
		if hit {
			err = &fakeError{code: fault.entry, text: "injected", server: fault.entry == "InternalError"}
			done = slices.DeleteFunc(done, func(d map[string]any) bool { return d["Id"] == e.ID })
		}
		if err, ok := errors.AsType[*fakeError](err); ok && err.code != unnamed {
			failed = append(failed, map[string]any{"Id": e.ID, "Code": err.code, "Message": err.text,
				"SenderFault": !err.server})
		}
	}
	f.wake()
	return map[string]any{"Successful": done, "Failed": failed}, nil
}

func (e *fakeEntry) size() int {
	n := len(e.MessageBody)
	for name, a := range e.MessageAttributes {
		n += len(name) + len(a.DataType) + len(a.StringValue) + len(a.BinaryValue)
	}
	return n
}

// text is XML 1.0's characters, as the service documents them.
func text(s string) bool {
	for _, r := range s {
		ok := r == 9 || r == 10 || r == 13 || r >= 0x20 && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd ||
			r >= 0x10000
		if !ok {
			return false
		}
	}
	return utf8.ValidString(s)
}

var (
	attributeName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	groupToken    = regexp.MustCompile("^[!-~]{1,128}$") // letters, digits and all punctuation
)

func (e *fakeEntry) check(q *fakeQueue) error {
	most, _ := strconv.Atoi(q.describe(time.Time{})["MaximumMessageSize"])
	switch {
	case e.MessageBody == "":
		return refuse("MissingParameter", "The request must contain the parameter MessageBody.")
	case e.size() > most:
		return refuse("InvalidParameterValue",
			"One or more parameters are invalid. Reason: Message must "+
				"be shorter than %d bytes.", most)
	case !text(e.MessageBody):
		return refuse("InvalidMessageContents", "Invalid characters found.")
	case len(e.MessageAttributes) > 10:
		return refuse("InvalidParameterValue", "Number of message attributes [%d] exceeds the allowed "+
			"maximum [10].", len(e.MessageAttributes))
	case q.fifo && !groupToken.MatchString(e.MessageGroupID):
		return refuse("InvalidParameterValue", "MessageGroupId %q", e.MessageGroupID)
	case q.fifo && !groupToken.MatchString(e.MessageDeduplicationID):
		return refuse("InvalidParameterValue", "MessageDeduplicationId %q", e.MessageDeduplicationID)
	case !q.fifo && e.MessageDeduplicationID != "":
		return refuse("InvalidParameterValue",
			"The request include parameter that is not valid for this "+
				"queue type")
	}
	for name, a := range e.MessageAttributes {
		low := strings.ToLower(name)
		kind, _, _ := strings.Cut(a.DataType, ".")
		switch {
		case !attributeName.MatchString(name), len(name) > 256, strings.HasPrefix(low, "aws."),
			strings.HasPrefix(low, "amazon."):
			return refuse("InvalidParameterValue", "the attribute's name %q", name)
		case kind == "Binary" && len(a.BinaryValue) == 0, kind != "Binary" && a.StringValue == "":
			return refuse("InvalidParameterValue", "the attribute %s has an empty value", name)
		case kind != "Binary" && !text(a.StringValue):
			return refuse("InvalidMessageContents", "the attribute %s", name)
		}
	}
	return nil
}

func (f *fake) store(q *fakeQueue, e *fakeEntry) *fakeMessage {
	now := f.now()
	if old := q.dedup[e.MessageDeduplicationID]; q.fifo && old != nil &&
		now.Sub(old.sent) < 5*time.Minute {
		return old
	}
	f.serial++
	m := &fakeMessage{id: fmt.Sprintf("00000000-0000-0000-0000-%012d", f.serial), body: e.MessageBody,
		group: e.MessageGroupID, dedup: e.MessageDeduplicationID, attributes: e.MessageAttributes,
		sent: now}
	if q.fifo {
		m.seq = fmt.Sprintf("%020d", f.serial)
		q.dedup[m.dedup] = m
	}
	q.messages = append(q.messages, m)
	return m
}

func (f *fake) receive(r *http.Request, q *fakeQueue, in *fakeRequest) (any, error) {
	switch {
	case in.MaxNumberOfMessages < 1 || in.MaxNumberOfMessages > 10:
		return nil, refuse("InvalidParameterValue", "MaxNumberOfMessages %d", in.MaxNumberOfMessages)
	case in.WaitTimeSeconds < 0 || in.WaitTimeSeconds > 20:
		return nil, refuse("InvalidParameterValue", "WaitTimeSeconds %d", in.WaitTimeSeconds)
	case in.ReceiveRequestAttemptID != "" && !q.fifo:
		return nil, refuse("InvalidParameterValue", "ReceiveRequestAttemptId is for FIFO queues")
	}
	lease := q.seconds("VisibilityTimeout")
	if in.VisibilityTimeout != nil {
		lease = time.Duration(*in.VisibilityTimeout) * time.Second
	}
	until := time.Now().Add(time.Duration(in.WaitTimeSeconds) * time.Second)
	for {
		found := f.pick(q, in, lease)
		left := time.Until(until)
		if len(found) > 0 || left <= 0 {
			return map[string]any{"Messages": found}, nil
		}
		changed := f.changed
		f.mu.Unlock()
		timer := time.NewTimer(min(left, 50*time.Millisecond)) // a hidden one may become visible
		select {
		case <-r.Context().Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
		f.mu.Lock()
		if r.Context().Err() != nil {
			return map[string]any{}, nil
		}
		if f.queues[q.name] != q {
			return nil, refuse("QueueDoesNotExist", "The specified queue does not exist.")
		}
	}
}

// pick hands out what may be: of a FIFO queue nothing of a group of which anything is in flight.
func (f *fake) pick(q *fakeQueue, in *fakeRequest, lease time.Duration) []map[string]any {
	now := f.now()
	retention := q.seconds("MessageRetentionPeriod")
	q.messages = slices.DeleteFunc(q.messages, func(m *fakeMessage) bool {
		return now.Sub(m.sent) > retention
	})
	attempt := in.ReceiveRequestAttemptID
	chosen := q.attempts[attempt]
	same := func(m *fakeMessage) bool { return !m.gone && m.hidden.After(now) }
	if attempt == "" || len(chosen) == 0 || !all(chosen, same) {
		blocked := map[string]bool{}
		for _, m := range q.messages {
			blocked[m.group] = blocked[m.group] || q.fifo && m.hidden.After(now)
		}
		chosen = nil
		for _, m := range q.messages {
			if len(chosen) < in.MaxNumberOfMessages && !m.hidden.After(now) && !blocked[m.group] {
				chosen = append(chosen, m)
			}
		}
		for _, m := range chosen {
			f.serial++
			m.receives++
			m.receipt, m.since = fmt.Sprintf("r-%s-%d", m.id, f.serial), now
			if m.receives == 1 {
				m.first = now
			}
		}
		if attempt != "" {
			q.attempts[attempt] = chosen
		}
	}
	var found []map[string]any
	for _, m := range chosen {
		m.hidden = now.Add(lease)
		found = append(found, m.show())
	}
	return found
}

func all(ms []*fakeMessage, is func(*fakeMessage) bool) bool {
	return !slices.ContainsFunc(ms, func(m *fakeMessage) bool { return !is(m) })
}

func (m *fakeMessage) show() map[string]any {
	system := map[string]string{"SentTimestamp": strconv.FormatInt(m.sent.UnixMilli(), 10),
		"ApproximateReceiveCount":          strconv.Itoa(m.receives),
		"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.first.UnixMilli(), 10)}
	if m.seq != "" {
		maps.Copy(system, map[string]string{"MessageGroupId": m.group,
			"MessageDeduplicationId": m.dedup, "SequenceNumber": m.seq})
	}
	return map[string]any{"MessageId": m.id, "ReceiptHandle": m.receipt, "Body": m.body,
		"MD5OfBody": md5Of(m.body), "Attributes": system, "MessageAttributes": m.attributes}
}

// tasks keeps move tasks, which never end by themselves here.
func (f *fake) tasks(action string, in *fakeRequest) (any, error) {
	var source *fakeQueue
	dead := false
	for _, q := range f.queues {
		if arn(q.name) == in.SourceArn || q.move != "" && q.move == in.TaskHandle {
			source = q
		}
		dead = dead || strings.Contains(q.attributes["RedrivePolicy"], `"`+in.SourceArn+`"`)
	}
	switch {
	case action == "CancelMessageMoveTask" && source == nil:
		return nil, refuse("ResourceNotFoundException", "Task does not exist.")
	case source == nil:
		return nil, refuse("ResourceNotFoundException",
			"The resource that you specified for the SourceArn "+
				"parameter doesn't exist.")
	case action == "CancelMessageMoveTask":
		source.move = ""
		return map[string]any{"ApproximateNumberOfMessagesMoved": 3}, nil
	case action == "StartMessageMoveTask" && !dead:
		return nil, refuse("InvalidParameterValue",
			"Source queue must be configured as a Dead Letter Queue.")
	case action == "StartMessageMoveTask" && source.move != "":
		return nil, refuse("UnsupportedOperation",
			"There is already a task running. Only one active task "+
				"is allowed for a source queue arn at a given time.")
	case action == "StartMessageMoveTask":
		f.serial++
		source.move = fmt.Sprintf("task-%d", f.serial)
		return map[string]any{"TaskHandle": source.move}, nil
	}
	list := []map[string]any{}
	if source.move != "" {
		list = append(list, map[string]any{"Status": "RUNNING", "TaskHandle": source.move,
			"SourceArn": in.SourceArn, "ApproximateNumberOfMessagesMoved": 3,
			"ApproximateNumberOfMessagesToMove": 9, "StartedTimestamp": f.now().UnixMilli()})
	}
	return map[string]any{"Results": list}, nil
}
