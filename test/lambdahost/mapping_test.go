package lambdahost_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise/test/lambdahost"
)

const (
	docPartial = "lambda/latest/dg/services-ddb-batchfailurereporting.html"
	docErrors  = "lambda/latest/dg/services-dynamodb-errors.html"
)

// function is the function of a test: it notes each event and answers what the test says.
type function struct {
	mu      sync.Mutex // guards the fields below
	events  []string   // the records of each, "1 2 3"
	answers []string   // one after the other; the last one for ever. "" = an error
}

func (f *function) invoke(_ context.Context, event []byte) ([]byte, error) {
	var e struct{ Records []int }
	if err := json.Unmarshal(event, &e); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, strings.Trim(fmt.Sprint(e.Records), "[]"))
	a := f.answers[0]
	if len(f.answers) > 1 {
		f.answers = f.answers[1:]
	}
	if a == "" {
		return nil, errors.New("broken")
	}
	return []byte(a), nil
}

func (f *function) want(t *testing.T, events ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.events, events) {
		t.Errorf("the events are %q, want %q", f.events, events)
	}
}

func numbered(from, to int) []lambdahost.Record {
	var rs []lambdahost.Record
	for i := from; i <= to; i++ {
		n := strconv.Itoa(i)
		rs = append(rs, lambdahost.Record{Sequence: n, Data: json.RawMessage(n), Time: time.Now(),
			Key: "k" + n})
	}
	return rs
}

// shard runs a mapping over one shard of n records for a while of the bubble's time.
func shard(t *testing.T, m lambdahost.Mapping, f *function, n int) {
	t.Helper()
	m.Invoke = f.invoke
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.RunStream(ctx, lambdahost.Fixed{"s": numbered(1, n)}); err != nil {
		t.Error(err)
	}
}

const ok = `{"batchItemFailures":[]}`

func failing(ids ...string) string {
	var all []string
	for _, id := range ids {
		all = append(all, `{"itemIdentifier":"`+id+`"}`)
	}
	return `{"batchItemFailures":[` + strings.Join(all, ",") + `]}`
}

func TestStreamRules(t *testing.T) {
	retry := []string{"1 2 3", "1 2 3"}
	for _, c := range []struct {
		name, says string
		m          lambdahost.Mapping
		answers    []string
		want       []string
	}{
		{"lowest is the checkpoint", "If the batchItemFailures array contains multiple items, Lambda " +
			"uses the record with the lowest sequence number as the checkpoint. Lambda then retries all " +
			"records starting from that checkpoint.", lambdahost.Mapping{Report: true},
			[]string{failing("3", "2"), ok}, []string{"1 2 3", "2 3"}},
		{"not read unless asked for", "Even when your function code returns partial batch failure " +
			"responses, these responses will not be processed by Lambda unless the " +
			"ReportBatchItemFailures feature is explicitly turned on for your event source mapping.",
			lambdahost.Mapping{}, []string{failing("2")}, []string{"1 2 3"}},
		{"empty list", "Lambda treats a batch as a complete success if you return any of the " +
			"following: An empty batchItemFailure list", lambdahost.Mapping{Report: true}, []string{ok},
			[]string{"1 2 3"}},
		{"null list", "A null batchItemFailure list", lambdahost.Mapping{Report: true},
			[]string{`{"batchItemFailures":null}`}, []string{"1 2 3"}},
		{"empty answer", "An empty EventResponse", lambdahost.Mapping{Report: true}, []string{`{}`},
			[]string{"1 2 3"}},
		{"null answer", "A null EventResponse", lambdahost.Mapping{Report: true}, []string{`null`},
			[]string{"1 2 3"}},
		{"empty identifier", "Lambda treats a batch as a complete failure if you return any of the " +
			"following: An empty string itemIdentifier", lambdahost.Mapping{Report: true},
			[]string{failing(""), ok}, retry},
		{"null identifier", "A null itemIdentifier", lambdahost.Mapping{Report: true},
			[]string{`{"batchItemFailures":[{"itemIdentifier":null}]}`, ok}, retry},
		{"bad key name", "An itemIdentifier with a bad key name", lambdahost.Mapping{Report: true},
			[]string{`{"batchItemFailures":[{"itemId":"2"}]}`, ok}, retry},
		{"identifier of no record", "An itemIdentifier value with a message ID that doesn't exist (of " +
			"queues; taken for streams as well)", lambdahost.Mapping{Report: true},
			[]string{failing("9"), ok}, retry},
		{"an error fails all", "by default Lambda checkpoints to the highest sequence number of a " +
			"batch only when the batch is a complete success. Lambda treats all other results as a " +
			"complete failure and retries processing the batch up to the retry limit.",
			lambdahost.Mapping{Report: true}, []string{"", ok}, retry},
		{"bisect", "For function errors, you can also configure BisectBatchOnFunctionError, which " +
			"splits a failed batch into two smaller batches, isolating bad records and avoiding timeouts.",
			lambdahost.Mapping{Bisect: true}, []string{"", ok}, []string{"1 2 3", "1", "2 3"}},
		{"bisect in spite of reports", "If the invocation fails and BisectBatchOnFunctionError is " +
			"turned on, the batch is bisected regardless of your ReportBatchItemFailures setting.",
			lambdahost.Mapping{Bisect: true, Report: true}, []string{"", ok},
			[]string{"1 2 3", "1", "2 3"}},
		{"bisect at the reported record", "When a partial batch success response is received and both " +
			"BisectBatchOnFunctionError and ReportBatchItemFailures are turned on, the batch is bisected " +
			"at the returned sequence number and Lambda retries only the remaining records.",
			lambdahost.Mapping{Bisect: true, Report: true}, []string{failing("2"), ok},
			[]string{"1 2 3", "2 3"}},
		{"batch size", "BatchSize: the maximum number of records in each batch that Lambda pulls from " +
			"your stream", lambdahost.Mapping{BatchSize: 2}, []string{ok}, []string{"1 2", "3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &function{answers: c.answers}
				shard(t, c.m, f, 3)
				f.want(t, c.want...)
				if t.Failed() {
					t.Logf("AWS says (%s): %s", docPartial, c.says)
				}
			})
		})
	}
}

// TestAttempts: "if the function is invoked but returns an error, Lambda retries until the records
// expire, exceed the maximum age (MaximumRecordAgeInSeconds), or reach the configured retry quota
// (MaximumRetryAttempts). … Splitting batches doesn't consume the retry quota. If the error
// handling measures fail, Lambda discards the records and continues processing batches from the
// stream."
func TestAttempts(t *testing.T) {
	for _, c := range []struct {
		name      string
		m         lambdahost.Mapping
		answers   []string
		events    []string
		discarded string
	}{
		{"attempts", lambdahost.Mapping{MaxAttempts: 3, BatchSize: 2}, []string{"", "", "", ok},
			[]string{"1 2", "1 2", "1 2", "3"}, "[{RetryAttemptsExhausted s 1 2 2 3}]"},
		{"a split spends none", lambdahost.Mapping{MaxAttempts: 2, Bisect: true},
			[]string{"", "", "", ok}, []string{"1 2 3", "1", "1", "2 3"},
			"[{RetryAttemptsExhausted s 1 1 1 2}]"},
		{"the checkpoint stays", lambdahost.Mapping{MaxAttempts: 2, Report: true},
			[]string{failing("1"), failing("1")}, []string{"1 2 3", "1 2 3"},
			"[{RetryAttemptsExhausted s 1 3 3 2}]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &function{answers: c.answers}
				var gone []lambdahost.Discarded
				c.m.Discarded = func(d lambdahost.Discarded) { gone = append(gone, d) }
				shard(t, c.m, f, 3)
				f.want(t, c.events...)
				if got := fmt.Sprint(gone); got != c.discarded {
					t.Errorf("discarded %s, want %s (%s)", got, c.discarded, docErrors)
				}
			})
		})
	}
}

// TestAge: "MaximumRecordAgeInSeconds: discard records older than the specified age".
func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &function{answers: []string{""}}
		var gone []lambdahost.Discarded
		shard(t, lambdahost.Mapping{MaxAge: 10 * time.Second, Pause: 3 * time.Second,
			Discarded: func(d lambdahost.Discarded) { gone = append(gone, d) }}, f, 3)
		f.want(t, "1 2 3", "1 2 3", "1 2 3", "1 2 3")
		if got := fmt.Sprint(gone); got != "[{RecordAgeExceeded s 1 3 3 4}]" {
			t.Errorf("discarded %s", got)
		}
	})
}

// TestParallel: "With the parallelization factor set, … Lambda ensures in-order processing at the
// partition-key level" (of an item for DynamoDB): one key is in one batch at a time, in order.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := numbered(1, 60)
		for i := range records {
			records[i].Key = strconv.Itoa(i % 7)
		}
		var mu sync.Mutex // guards the fields below
		held := map[int]bool{}
		last := map[int]int{}
		at, most := 0, 0
		m := lambdahost.Mapping{Parallel: 3, BatchSize: 4,
			Invoke: func(_ context.Context, event []byte) ([]byte, error) {
				var e struct{ Records []int }
				if err := json.Unmarshal(event, &e); err != nil {
					return nil, err
				}
				mu.Lock()
				at++
				most = max(most, at)
				keys := map[int]bool{}
				for _, n := range e.Records {
					key := (n - 1) % 7
					if held[key] && !keys[key] || last[key] > n {
						t.Errorf("record %d of key %d: held %t, after %d", n, key, held[key], last[key])
					}
					held[key], keys[key], last[key] = true, true, n
				}
				mu.Unlock()
				wait(time.Second)
				mu.Lock()
				defer mu.Unlock()
				at--
				for key := range keys {
					held[key] = false
				}
				return []byte(ok), nil
			}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		if err := m.RunStream(ctx, lambdahost.Fixed{"s": records}); err != nil {
			t.Error(err)
		}
		if most != 3 || len(last) != 7 {
			t.Errorf("%d batches at once of 7 keys %v, want 3", most, last)
		}
	})
}

func wait(d time.Duration) { <-time.NewTimer(d).C }

// family is a stream whose shard p has been split.
type family struct{ lambdahost.Fixed }

func (f family) Shards(context.Context) ([]lambdahost.Shard, error) {
	return []lambdahost.Shard{{ID: "a", Parent: "p"}, {ID: "b", Parent: "p"}, {ID: "p", Parent: "gone"}},
		nil
}

// TestParentFirst: "Lambda processes the parent shard before its child shards" (DynamoDB: "an
// application must process a parent shard before it processes a child shard").
func TestParentFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &function{answers: []string{"", ok}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := lambdahost.Mapping{Invoke: f.invoke}
		if err := m.RunStream(ctx, family{lambdahost.Fixed{"p": numbered(1, 2), "a": numbered(3, 3),
			"b": numbered(4, 4)}}); err != nil {
			t.Error(err)
		}
		slices.Sort(f.events[2:])
		f.want(t, "1 2", "1 2", "3", "4")
	})
}

// queue is a queue in memory: what is not deleted is seen again at once.
type queue struct {
	mu      sync.Mutex // guards the fields below
	waiting []lambdahost.QueueMessage
	deleted []string
}

func (q *queue) Receive(_ context.Context, max int) ([]lambdahost.QueueMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.waiting[:min(max, len(q.waiting))]), nil
}

func (q *queue) Delete(_ context.Context, ms []lambdahost.QueueMessage) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range ms {
		q.deleted = append(q.deleted, m.ID)
		q.waiting = slices.DeleteFunc(q.waiting,
			func(o lambdahost.QueueMessage) bool { return o.ID == m.ID })
	}
	return nil
}

// TestQueueRules cites lambda/latest/dg/services-sqs-errorhandling.html.
func TestQueueRules(t *testing.T) {
	for _, c := range []struct {
		name, says string
		report     bool
		answers    []string
		want       []string
	}{
		{"only the failed stay", "you can include ReportBatchItemFailures … This allows your function " +
			"to return a partial success", true, []string{failing("2"), ok}, []string{"1 2 3", "2"}},
		{"an error keeps all", "When your Lambda function encounters an error while processing a " +
			"batch, all messages in that batch become visible in the queue again by default",
			true, []string{"", ok}, []string{"1 2 3", "1 2 3"}},
		{"an unknown message ID keeps all",
			"An itemIdentifier value with a message ID that doesn't exist",
			true, []string{failing("9"), ok}, []string{"1 2 3", "1 2 3"}},
		{"invalid JSON keeps all", "An invalid JSON response", true, []string{"no", ok},
			[]string{"1 2 3", "1 2 3"}},
		{"not asked for", "(see above)", false, []string{failing("2")}, []string{"1 2 3"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := &queue{}
				for i := 1; i <= 3; i++ {
					n := strconv.Itoa(i)
					q.waiting = append(q.waiting, lambdahost.QueueMessage{ID: n, Data: json.RawMessage(n)})
				}
				f := &function{answers: c.answers}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				m := lambdahost.Mapping{Invoke: f.invoke, Report: c.report}
				if err := m.RunQueue(ctx, q); err != nil {
					t.Error(err)
				}
				f.want(t, c.want...)
				if len(q.deleted) != 3 {
					t.Errorf("deleted %v: %s", q.deleted, c.says)
				}
			})
		})
	}
}

// TestAsync: "If the function returns an error, by default Lambda attempts to run it two more
// times, with a one-minute wait between the first two attempts, and two minutes between the second
// and third attempts." (lambda/latest/dg/invocation-async-error-handling.html)
func TestAsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &function{answers: []string{""}}
		began := time.Now()
		n, err := lambdahost.Async{Invoke: f.invoke}.Push(t.Context(), []byte(`{"Records":[1]}`))
		if n != 3 || err == nil || time.Since(began) != 3*time.Minute {
			t.Errorf("tried %d times in %s: %v", n, time.Since(began), err)
		}
		f.answers = []string{"", "null"}
		if n, err := (lambdahost.Async{Invoke: f.invoke}).Push(t.Context(), []byte(`{}`)); n != 2 ||
			err != nil {
			t.Errorf("tried %d times: %v", n, err)
		}
	})
}

// TestWindow: "MaximumBatchingWindowInSeconds: the maximum amount of time to gather records before
// invoking the function".
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &function{answers: []string{ok}}
		began := time.Now()
		grows := growing{began: began, records: numbered(1, 6)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := lambdahost.Mapping{Invoke: f.invoke, Window: 2500 * time.Millisecond}
		if err := m.RunStream(ctx, grows); err != nil {
			t.Error(err)
		}
		f.want(t, "1 2 3", "4 5 6")
	})
}

// growing is a shard that gets a record each second.
type growing struct {
	began   time.Time
	records []lambdahost.Record
}

func (g growing) Shards(context.Context) ([]lambdahost.Shard, error) {
	return []lambdahost.Shard{{ID: "s"}}, nil
}

func (g growing) Read(ctx context.Context, shard, after string, max int) (
	[]lambdahost.Record, bool, error) {
	n := min(len(g.records), 1+int(time.Since(g.began)/time.Second))
	rs, _, err := lambdahost.Fixed{shard: g.records[:n]}.Read(ctx, shard, after, max)
	return rs, false, err
}
