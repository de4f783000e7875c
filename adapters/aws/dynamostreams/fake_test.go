package dynamostreams

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fake stands in for DynamoDB and its streams, as far as this package uses them: an http.Handler
// that keeps their rules. Its clock is package time, so that a synctest bubble moves it.
type fake struct {
	mu        sync.Mutex // guards all below
	arn, view string
	status    string
	page      int // shards of one answer of DescribeStream
	shards    []*fakeShard
	sequence  int64
	tables    map[string]*fakeTable
	calls     map[string]int // by operation
	// fault may answer a call in the place of the server, or lose its answer: see faultKind.
	fault func(operation string) faultKind
	fired map[string]int
	// noFirst: an iterator begins only at numbers that records have.
	noFirst bool
	// hidden is how many lists lack the shard before the last; one with fewer than three is whole.
	hidden     int
	noIterator int // how many answers lack their iterator
	more       int // tables that ListTables names before the others
	// makes is how long a table takes to be made, and its stream to be enabled. Until then a table
	// answers all but its description as if it were not there.
	makes time.Duration
	// behind is how long a new table and a new stream are not described: descriptions are eventually
	// consistent.
	behind time.Duration
}

// faultKind is what becomes of one call.
type faultKind string

const (
	works     faultKind = ""
	throttles faultKind = "throttled"
	breaks    faultKind = "500"
	loses     faultKind = "the answer is lost" // the call is carried out
	expires   faultKind = "the iterator has expired"
	denies    faultKind = "denied"
	misses    faultKind = "not found"
)

type fakeShard struct {
	id, parent  string
	first, last int64 // last is 0 while the shard is open
	low, high   uint32
	records     []fakeRecord
	trimmed     int64 // records up to here are gone
}

type fakeRecord struct {
	sequence int64
	json     map[string]any
}

type attributes map[string]map[string]json.RawMessage

type fakeTable struct {
	hash, sort string
	stream     bool
	items      map[string]attributes
	// made and enabled are when it is ready, and its stream; deleted is when it is gone. The zero time
	// of the last is never.
	made, enabled, deleted time.Time
}

const space = 1 << 16

func newFake(shards int) *fake {
	f := &fake{arn: "arn:aws:dynamodb:eu-central-1:000000000000:table/orders/stream/1", page: 2,
		view: "NEW_AND_OLD_IMAGES", status: "ENABLED", sequence: 1000,
		calls: map[string]int{}, fired: map[string]int{}, tables: map[string]*fakeTable{
			"orders": {hash: "id", stream: true, items: map[string]attributes{}},
			"leases": {hash: "reader", sort: "shard", items: map[string]attributes{}}}}
	for i := range shards {
		f.open("", uint32(i*space/shards), uint32((i+1)*space/shards))
	}
	return f
}

// open adds an open shard. mu is held, or nobody else knows f.
func (f *fake) open(parent string, low, high uint32) {
	f.sequence += 10
	f.shards = append(f.shards, &fakeShard{id: fmt.Sprintf("shardId-%020d", len(f.shards)+1),
		parent: parent, first: f.sequence, low: low, high: high})
}

func (f *fake) leaves() []*fakeShard {
	var out []*fakeShard
	for _, s := range f.shards {
		if s.last == 0 {
			out = append(out, s)
		}
	}
	return out
}

// split closes the n-th open shard and opens two in its place; roll opens one.
func (f *fake) split(n int) { f.follow(n, true) }
func (f *fake) roll(n int)  { f.follow(n, false) }

func (f *fake) follow(n int, two bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	leaves := f.leaves()
	s := leaves[n%len(leaves)]
	f.sequence += 10
	s.last = f.sequence
	if middle := (s.low + s.high) / 2; two {
		f.open(s.id, s.low, middle)
		f.open(s.id, middle, s.high)
	} else {
		f.open(s.id, s.low, s.high)
	}
}

// trim drops the first n records of a shard that are left, and returns the last one's number.
func (f *fake) trim(n int, shard int) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.shards[shard]
	s.trimmed = s.records[n-1].sequence
	s.records = s.records[n:]
	return s.trimmed
}

// forget takes a shard out of the stream, as it is after 24 hours.
func (f *fake) forget(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards = slices.DeleteFunc(f.shards, func(s *fakeShard) bool { return s.id == id })
}

// put writes an item of the table "orders", which makes a change.
func (f *fake) put(key, value string) string {
	raw := func(s string) map[string]json.RawMessage {
		b, _ := json.Marshal(s)
		return map[string]json.RawMessage{"S": b}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.write(f.tables["orders"], attributes{"id": raw(key), "value": raw(value)})
}

func hash(key string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return h.Sum32() % space
}

// write keeps an item and makes its change. mu is held.
func (f *fake) write(t *fakeTable, item attributes) string {
	key := t.key(item)
	old := t.items[key]
	t.items[key] = item
	h := hash(key)
	i := slices.IndexFunc(f.shards, func(s *fakeShard) bool {
		return s.last == 0 && s.low <= h && h < s.high
	})
	s := f.shards[i]
	f.sequence += 1 + int64(h%3) // there are gaps
	id := fmt.Sprintf("event-%d", f.sequence)
	d := map[string]any{"Keys": attributes{"id": item["id"]}, "NewImage": item,
		"SequenceNumber":              digits(f.sequence),
		"ApproximateCreationDateTime": time.Now().Unix(), "StreamViewType": f.view}
	name := "INSERT"
	if old != nil {
		name, d["OldImage"] = "MODIFY", old
	}
	s.records = append(s.records, fakeRecord{sequence: f.sequence, json: map[string]any{
		"eventID": id, "eventName": name, "eventSource": "aws:dynamodb", "dynamodb": d}})
	return id
}

func digits(n int64) string { return fmt.Sprintf("%021d", n) }

func (t *fakeTable) key(item attributes) string {
	key := string(item[t.hash]["S"])
	if t.sort != "" {
		key += "\x00" + string(item[t.sort]["S"])
	}
	return key
}

// fakeError is an answer that says no.
type fakeError struct {
	status int
	code   string
	item   attributes
}

func (e *fakeError) Error() string { return e.code }

func refuse(code string) error { return &fakeError{status: 400, code: code} }

// request holds the fields of all requests.
type request struct {
	TableName, StreamArn, ShardID, ShardIteratorType, SequenceNumber string
	ShardIterator, ExclusiveStartShardID, ExclusiveStartTableName    string
	Limit                                                            int
	Item, Key, ExclusiveStartKey                                     attributes
	UpdateExpression, ConditionExpression                            string
	ExpressionAttributeNames                                         map[string]string
	ExpressionAttributeValues                                        attributes
}

// ServeHTTP answers one call.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	_, operation, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var q request
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	var answer any
	kind := f.hit(operation)
	if err == nil {
		answer, err = f.answer(operation, &q, kind)
	}
	if kind == loses {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	var no *fakeError
	switch {
	case errors.As(err, &no):
		w.WriteHeader(no.status)
		answer = map[string]any{"__type": "com.amazonaws.dynamodb.v20120810#" + no.code,
			"message": "the fake says no", "Item": no.item}
	case err != nil:
		w.WriteHeader(400)
		answer = map[string]any{"__type": "com.amazon.coral.validate#ValidationException",
			"message": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// hit counts a call and asks what becomes of it.
func (f *fake) hit(operation string) faultKind {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[operation]++
	if f.fault == nil {
		return works
	}
	kind := f.fault(operation)
	if kind != works {
		f.fired[operation+" "+string(kind)]++
	}
	return kind
}

func (f *fake) answer(operation string, q *request, kind faultKind) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch kind {
	case throttles:
		return nil, refuse("LimitExceededException")
	case breaks:
		return nil, &fakeError{status: 500, code: "InternalServerError"}
	case expires:
		return nil, refuse("ExpiredIteratorException")
	case denies:
		return nil, refuse("AccessDeniedException")
	case misses:
		return nil, refuse("ResourceNotFoundException")
	case works, loses:
	}
	switch operation {
	case "DescribeStream", "GetShardIterator", "GetRecords":
		return f.streamCall(operation, q)
	case "ListTables":
		return f.list(q), nil
	}
	t, answer, err := f.table(operation, q)
	if t == nil {
		return answer, err
	}
	switch operation {
	case "Query":
		return f.query(t, q)
	case "PutItem":
		if err := t.check(t.items[t.key(q.Item)], q); err != nil {
			return nil, err
		}
		if t.stream {
			f.write(t, q.Item)
		} else {
			t.items[t.key(q.Item)] = q.Item
		}
		return map[string]any{}, nil
	case "UpdateItem":
		return t.update(q)
	case "DeleteItem":
		if err := t.check(t.items[t.key(q.Key)], q); err != nil {
			return nil, err
		}
		delete(t.items, t.key(q.Key))
		return map[string]any{}, nil
	}
	return nil, errors.New("the fake has no " + operation)
}

// table answers what is about a table, and returns it for what is about its items.
func (f *fake) table(operation string, q *request) (*fakeTable, any, error) {
	t := f.tables[q.TableName]
	if t != nil && !t.deleted.IsZero() && !time.Now().Before(t.deleted) {
		delete(f.tables, q.TableName)
		t = nil
	}
	state := "not there"
	if t != nil {
		state = t.state()
	}
	switch operation {
	case "CreateTable":
		if t != nil {
			return nil, nil, refuse("ResourceInUseException")
		}
		f.tables[q.TableName] = &fakeTable{hash: "reader", sort: "shard",
			items: map[string]attributes{}, made: time.Now().Add(f.makes)}
		return nil, map[string]any{}, nil
	case "DescribeTable":
		f.fired["described as "+state]++
		if t == nil || f.behind > 0 && time.Until(t.made) > f.makes-f.behind {
			return nil, nil, refuse("ResourceNotFoundException")
		}
		return nil, map[string]any{"Table": f.describe(t, q.TableName)}, nil
	case "UpdateTable":
		switch {
		case t == nil:
			return nil, nil, refuse("ResourceNotFoundException")
		case state != "ACTIVE":
			f.fired["busy"]++
			return nil, nil, refuse("ResourceInUseException")
		case t.stream:
			f.fired["enabled before"]++
			return nil, nil, errors.New("the table has an enabled stream already")
		}
		t.stream, t.enabled = true, time.Now().Add(f.makes)
		return nil, map[string]any{}, nil
	}
	if state != "ACTIVE" && state != "UPDATING" {
		return nil, nil, refuse("ResourceNotFoundException")
	}
	return t, nil, nil
}

func (t *fakeTable) state() string {
	switch now := time.Now(); {
	case now.Before(t.deleted):
		return "DELETING"
	case now.Before(t.made):
		return "CREATING"
	case now.Before(t.enabled):
		return "UPDATING"
	}
	return "ACTIVE"
}

func (f *fake) describe(t *fakeTable, name string) map[string]any {
	d := map[string]any{"TableName": name, "TableStatus": t.state()}
	schema := []map[string]string{{"AttributeName": t.hash, "KeyType": "HASH"}}
	if t.sort != "" {
		schema = append(schema, map[string]string{"AttributeName": t.sort, "KeyType": "RANGE"})
	}
	d["KeySchema"] = schema
	if t.stream {
		d["LatestStreamArn"] = f.arn
		d["StreamSpecification"] = map[string]any{"StreamEnabled": true, "StreamViewType": f.view}
	}
	return d
}

// list returns a page of names, at most as many as DynamoDB's.
func (f *fake) list(q *request) map[string]any {
	names := slices.Collect(maps.Keys(f.tables))
	for i := range f.more {
		names = append(names, fmt.Sprintf("a-%04d", i))
	}
	slices.Sort(names)
	from, _ := slices.BinarySearch(names, q.ExclusiveStartTableName+"\x00")
	to := min(from+cmp.Or(q.Limit, 100), from+100, len(names))
	d := map[string]any{"TableNames": names[from:to]}
	if to < len(names) {
		d["LastEvaluatedTableName"] = names[to-1]
	}
	return d
}

// query returns two items a page.
func (f *fake) query(t *fakeTable, q *request) (any, error) {
	prefix := string(q.ExpressionAttributeValues[":reader"]["S"]) + "\x00"
	var keys []string
	for key := range t.items {
		if strings.HasPrefix(key, prefix) &&
			(q.ExclusiveStartKey == nil || key > t.key(q.ExclusiveStartKey)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	out := map[string]any{}
	if len(keys) > 2 {
		keys = keys[:2]
		last := t.items[keys[1]]
		out["LastEvaluatedKey"] = attributes{t.hash: last[t.hash], t.sort: last[t.sort]}
	}
	items := []attributes{}
	for _, key := range keys {
		items = append(items, t.items[key])
	}
	out["Items"] = items
	return out, nil
}

// check evaluates "A AND B …", each "#x = :y", "#x < :y" or "attribute_not_exists(#x)".
func (t *fakeTable) check(there attributes, q *request) error {
	if q.ConditionExpression == "" {
		return nil
	}
	for part := range strings.SplitSeq(q.ConditionExpression, " AND ") {
		ok := false
		if name, is := strings.CutPrefix(part, "attribute_not_exists("); is {
			ok = there[q.name(strings.TrimSuffix(name, ")"))] == nil
		} else {
			words := strings.Fields(part)
			have, want := there[q.name(words[0])], q.value(words[2])
			switch words[1] {
			case "=":
				ok = have != nil && fmt.Sprint(have) == fmt.Sprint(want)
			case "<":
				ok = have != nil && numberIn(have) < numberIn(want)
			}
		}
		if !ok {
			return &fakeError{status: 400, code: "ConditionalCheckFailedException", item: there}
		}
	}
	return nil
}

func numberIn(v map[string]json.RawMessage) int64 {
	n, err := strconv.ParseInt(strings.Trim(string(v["N"]), `"`), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func (q *request) name(token string) string {
	name, ok := q.ExpressionAttributeNames[token]
	if !ok {
		panic("the name " + token + " is not given")
	}
	return name
}

func (q *request) value(token string) map[string]json.RawMessage {
	v, ok := q.ExpressionAttributeValues[token]
	if !ok {
		panic("the value " + token + " is not given")
	}
	return v
}

// update carries out "SET #x = :y, #z = #z + :one REMOVE #a, #b".
func (t *fakeTable) update(q *request) (any, error) {
	key := t.key(q.Key)
	if err := t.check(t.items[key], q); err != nil {
		return nil, err
	}
	next := attributes{}
	maps.Copy(next, t.items[key])
	maps.Copy(next, q.Key)
	sets, removes, _ := strings.Cut(strings.TrimPrefix(q.UpdateExpression, "SET "), " REMOVE ")
	for part := range strings.SplitSeq(sets, ", ") {
		words := strings.Fields(part)
		v := words[2]
		if len(words) == 5 {
			sum := numberIn(next[q.name(v)]) + numberIn(q.value(words[4]))
			next[q.name(words[0])] = map[string]json.RawMessage{
				"N": json.RawMessage(strconv.Quote(strconv.FormatInt(sum, 10)))}
			continue
		}
		next[q.name(words[0])] = q.value(v)
	}
	for part := range strings.SplitSeq(removes, ", ") {
		if part != "" {
			delete(next, q.name(part))
		}
	}
	t.items[key] = next
	return map[string]any{"Attributes": next}, nil
}

func (f *fake) streamCall(operation string, q *request) (any, error) {
	if operation != "GetRecords" && q.StreamArn != f.arn {
		return nil, refuse("ResourceNotFoundException")
	}
	left := time.Duration(0) // until the stream is enabled
	if t := f.tables["orders"]; t != nil {
		left = time.Until(t.enabled)
	}
	switch {
	case operation == "DescribeStream" && f.behind > 0 && left > f.makes-f.behind:
		f.fired["the stream is not there"]++
		return nil, refuse("ResourceNotFoundException")
	case operation == "DescribeStream" && left > 0:
		f.fired["the stream is ENABLING"]++
		return map[string]any{"StreamDescription": map[string]any{"StreamArn": f.arn,
			"Shards": []any{}, "StreamStatus": "ENABLING", "StreamViewType": f.view}}, nil
	}
	switch operation {
	case "DescribeStream":
		return f.describeStream(q), nil
	case "GetShardIterator":
		return f.iterator(q)
	}
	id, rest, _ := strings.Cut(q.ShardIterator, "|")
	after, made, _ := strings.Cut(rest, "|")
	s := f.shard(id)
	if s == nil {
		return nil, refuse("ResourceNotFoundException")
	}
	from, err1 := strconv.ParseInt(after, 10, 64)
	millis, err2 := strconv.ParseInt(made, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	switch {
	case time.Since(time.UnixMilli(millis)) > 15*time.Minute:
		return nil, refuse("ExpiredIteratorException")
	case from < s.trimmed:
		return nil, refuse("TrimmedDataAccessException")
	}
	records := []map[string]any{}
	last := from
	for _, r := range s.records {
		if r.sequence > from && len(records) < cmp.Or(q.Limit, 1000) {
			records = append(records, r.json)
			last = r.sequence
		}
	}
	out := map[string]any{"Records": records}
	if n := len(s.records); s.last == 0 || n > 0 && last < s.records[n-1].sequence {
		out["NextShardIterator"] = fmt.Sprintf("%s|%d|%d", id, last, time.Now().UnixMilli())
	}
	return out, nil
}

func (f *fake) shard(id string) *fakeShard {
	i := slices.IndexFunc(f.shards, func(s *fakeShard) bool { return s.id == id })
	if i < 0 {
		return nil
	}
	return f.shards[i]
}

func (f *fake) describeStream(q *request) any {
	var list []map[string]any
	var more any
	var behind *fakeShard
	if f.hidden > 0 && len(f.shards) > 2 {
		f.hidden--
		behind = f.shards[len(f.shards)-2]
	}
	for _, s := range f.shards {
		if s.id <= q.ExclusiveStartShardID || s == behind {
			continue
		}
		if len(list) == f.page {
			more = list[f.page-1]["ShardId"]
			break
		}
		numbers := map[string]any{"StartingSequenceNumber": digits(s.first)}
		if s.last != 0 {
			numbers["EndingSequenceNumber"] = digits(s.last)
		}
		one := map[string]any{"ShardId": s.id, "SequenceNumberRange": numbers}
		if s.parent != "" {
			one["ParentShardId"] = s.parent
		}
		list = append(list, one)
	}
	return map[string]any{"StreamDescription": map[string]any{"StreamArn": f.arn, "Shards": list,
		"StreamStatus": f.status, "StreamViewType": f.view, "LastEvaluatedShardId": more}}
}

func (f *fake) iterator(q *request) (any, error) {
	s := f.shard(q.ShardID)
	if s == nil {
		return nil, refuse("ResourceNotFoundException")
	}
	after := s.trimmed
	n, _ := strconv.ParseInt(q.SequenceNumber, 10, 64)
	switch q.ShardIteratorType {
	case "TRIM_HORIZON":
	case "AT_SEQUENCE_NUMBER":
		after = n - 1
		if f.noFirst && !slices.ContainsFunc(s.records, func(r fakeRecord) bool {
			return r.sequence == n
		}) {
			return nil, errors.New("no record has the sequence number")
		}
	case "AFTER_SEQUENCE_NUMBER":
		after = n
	default:
		return nil, errors.New("the reader asks for " + q.ShardIteratorType)
	}
	if q.SequenceNumber != "" && len(q.SequenceNumber) < minDigits {
		return nil, errors.New("a sequence number has too few digits")
	}
	if after < s.trimmed {
		return nil, refuse("TrimmedDataAccessException")
	}
	if f.noIterator > 0 {
		f.noIterator--
		return map[string]any{}, nil
	}
	return map[string]any{"ShardIterator": fmt.Sprintf("%s|%d|%d", s.id, after,
		time.Now().UnixMilli())}, nil
}

// wire carries calls to a fake without a network. A dead one carries none: its process is gone.
type wire struct {
	f  *fake
	mu sync.Mutex // guards dies, calls and dead
	// dies says at which call the process ends: before it, or, where after is set, behind it.
	dies, calls int
	after, dead bool
}

// Do makes one call.
func (w *wire) Do(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.calls++
	now := w.dies > 0 && w.calls >= w.dies
	dead := w.dead || now && !w.after
	w.dead = w.dead || now
	w.mu.Unlock()
	if dead {
		return nil, errors.New("the process is dead")
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	answer, err := w.serve(r)
	if now {
		return nil, errors.New("the process is dead")
	}
	return answer, err
}

func (w *wire) serve(r *http.Request) (answer *http.Response, err error) {
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case error: // http.ErrAbortHandler
			err = fmt.Errorf("the connection was reset: %w: %w", io.EOF, cause)
		default:
			panic(cause)
		}
	}()
	var body []byte
	if r.Body != nil {
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	in := r.Clone(r.Context())
	in.Body = io.NopCloser(bytes.NewReader(body))
	out := httptest.NewRecorder()
	w.f.ServeHTTP(out, in)
	return out.Result(), nil
}

func (w *wire) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}
