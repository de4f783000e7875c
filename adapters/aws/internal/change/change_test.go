package change_test

import (
	"fmt"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/change"
)

const arn = "arn:aws:dynamodb:eu-central-1:1:table/orders/stream/2026-01-01T00:00:00.000"

func ExampleFromEvent() {
	m, err := change.FromEvent("", []byte(`{
		"eventID": "7de3041dd709b024af6f29e4fa13d34c", "eventName": "REMOVE",
		"eventSource": "aws:dynamodb", "eventSourceARN": "`+arn+`",
		"dynamodb": {
			"ApproximateCreationDateTime": 1479499740,
			"Keys": {"tail": {"S": "N14228"}, "at": {"N": "515"}},
			"SequenceNumber": "13021600000000001596893679",
			"SizeBytes": 112, "StreamViewType": "NEW_IMAGE"}}`))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.ID, m.Topic, m.Time.Format(time.RFC3339))
	fmt.Println(m.Key)
	for _, h := range m.Headers {
		fmt.Printf("%s: %s\n", h.Name, h.Value)
	}
	fmt.Printf("%s\n", m.Body)
	// Output:
	// 7de3041dd709b024af6f29e4fa13d34c orders 2016-11-18T20:09:00Z
	// {"at":{"N":"515"},"tail":{"S":"N14228"}}
	// dynamodb-change: REMOVE
	// dynamodb-sequence: 13021600000000001596893679
	// {"Keys":{"at":{"N":"515"},"tail":{"S":"N14228"}}}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

// record has every type of attribute.
func record() *types.Record {
	all := map[string]types.AttributeValue{
		"s": text("a<b>&\"\\\x01\u2028é"), "n": &types.AttributeValueMemberN{Value: "-1.5E+10"},
		"b":     &types.AttributeValueMemberB{Value: []byte{0, 255, 3}},
		"yes":   &types.AttributeValueMemberBOOL{Value: true},
		"no":    &types.AttributeValueMemberBOOL{},
		"null":  &types.AttributeValueMemberNULL{Value: true},
		"ss":    &types.AttributeValueMemberSS{Value: []string{"b", "a"}},
		"ns":    &types.AttributeValueMemberNS{Value: []string{"9", "10"}},
		"bs":    &types.AttributeValueMemberBS{Value: [][]byte{{2}, {1}}},
		"empty": &types.AttributeValueMemberL{},
		"m": &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{
			"z": text(""), "a": &types.AttributeValueMemberL{
				Value: []types.AttributeValue{text("2"), text("1")}}}},
	}
	return &types.Record{EventID: aws.String("e1"), EventName: types.OperationTypeRemove,
		UserIdentity: &types.Identity{Type: aws.String("Service"),
			PrincipalId: aws.String("dynamodb.amazonaws.com")},
		Dynamodb: &types.StreamRecord{
			ApproximateCreationDateTime: aws.Time(time.UnixMilli(1_479_499_740_123)),
			Keys:                        map[string]types.AttributeValue{"s": all["s"]},
			OldImage:                    all, SequenceNumber: aws.String("100000000000000000001")}}
}

const item = `{"b":{"B":"AP8D"},"bs":{"BS":["AQ==","Ag=="]},"empty":{"L":[]},` +
	`"m":{"M":{"a":{"L":[{"S":"2"},{"S":"1"}]},"z":{"S":""}}},"n":{"N":"-1.5E+10"},` +
	`"no":{"BOOL":false},"ns":{"NS":["10","9"]},"null":{"NULL":true},` +
	`"s":{"S":"a<b>&\"\\\u0001\u2028é"},"ss":{"SS":["a","b"]},"yes":{"BOOL":true}}`

// Both ways, at every read, give the same bytes, in the one form that is written here.
func TestOneForm(t *testing.T) {
	key := `{"s":{"S":"a<b>&\"\\\u0001\u2028é"}}`
	// The event has its sets and members in another order.
	shuffled := strings.NewReplacer(`["AQ==","Ag=="]`, `["Ag==","AQ=="]`, `["a","b"]`, `["b","a"]`,
		`{"a":{"L":[{"S":"2"},{"S":"1"}]},"z":{"S":""}}`,
		`{"z": {"S":""}, "a":{"L":[{"S":"2"},{"S":"1"}]}}`).Replace(item)
	event := `{"eventID":"e1","eventName":"REMOVE","eventSourceARN":"` + arn + `",
		"userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},
		"dynamodb":{"ApproximateCreationDateTime":1479499740.123,"Keys":` + key + `,
		"OldImage":` + shuffled + `,"SequenceNumber":"100000000000000000001"}}`
	for range 20 { // maps are walked in another order each time
		a, err := change.FromStream("orders", record())
		if err != nil {
			t.Fatal(err)
		}
		b, err := change.FromEvent("", []byte(event))
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"Keys":` + key + `,"OldImage":` + item + `}`; string(a.Body) != want {
			t.Fatalf("body\n%s\nwant\n%s", a.Body, want)
		}
		if fmt.Sprintf("%q", a) != fmt.Sprintf("%q", b) {
			t.Fatalf("from the stream\n%q\nfrom the event\n%q", a, b)
		}
		if user, _ := a.Header(change.HeaderUser); a.Key != key ||
			string(user) != "Service/dynamodb.amazonaws.com" || a.Validate() != nil {
			t.Fatalf("message %q, %v", a, a.Validate())
		}
	}
}

func TestLongKeysAreSummed(t *testing.T) {
	seen := map[string]bool{}
	for _, end := range []string{"a", "b"} {
		r := record()
		r.Dynamodb.Keys = map[string]types.AttributeValue{
			"id": text(strings.Repeat("x", ackwise.MaxKeyBytes) + end)}
		m, err := change.FromStream("orders", r)
		if err != nil || m.Validate() != nil || !strings.HasPrefix(m.Key, "sha256:") {
			t.Fatalf("key %q, %v, %v", m.Key, err, m.Validate())
		}
		seen[m.Key] = true
	}
	if len(seen) != 2 {
		t.Errorf("keys %v, want two", seen)
	}
}

// What cannot be read is refused: nothing of a change is left out without a word.
func TestWhatIsRefused(t *testing.T) {
	const good = `{"eventID":"e","eventName":"INSERT","eventSourceARN":"` + arn +
		`","dynamodb":{"Keys":{"k":{"S":"1"}},"SequenceNumber":"1"}}`
	if _, err := change.FromEvent("", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][3]string{
		{`"eventID":"e",`, ``, "eventID"},
		{`Number":"1"`, `Number":null`, "SequenceNumber"},
		{`{"S":"1"}`, `{"S":null}`, "with a value"},
		{`{"S":"1"}`, `null`, "with a value"},
		{`"SequenceNumber":"1"`, `"SizeBytes":1`, "SequenceNumber"},
		{`{"k":{"S":"1"}}`, `{}`, "Keys"},
		{`{"S":"1"}`, `{"X":"1"}`, "not known"},
		{`{"S":"1"}`, `{"S":"1","N":"1"}`, "exactly one"},
		{`{"S":"1"}`, `{"S":1}`, "cannot unmarshal"},
		{`table/orders`, `queue/orders`, "no table"},
		{`{"eventID"`, `{"eventSource":"aws:sqs","eventID"`, "aws:sqs"},
		{`{`, `[`, "invalid"},
	} {
		bad := strings.Replace(good, c[0], c[1], 1)
		if _, err := change.FromEvent("", []byte(bad)); err == nil ||
			!strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v, want %q", bad, err, c[2])
		}
	}
	r := record()
	r.Dynamodb.OldImage["new"] = &types.UnknownUnionMember{Tag: "X"}
	if _, err := change.FromStream("t", r); err == nil || !strings.Contains(err.Error(), `"new"`) {
		t.Errorf("an unknown type: %v", err)
	}
}

func FuzzFromEvent(f *testing.F) {
	f.Add([]byte(`{"eventID":"e","dynamodb":{"Keys":{"k":` + `{"S":"1"}` + `},"SequenceNumber":"1",
		"OldImage":` + item + `}}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		a, err := change.FromEvent("t", record)
		if err != nil {
			return
		}
		again := fmt.Sprintf(`{"eventID":"e","dynamodb":{"SequenceNumber":"1",%s}`, a.Body[1:])
		b, err := change.FromEvent("t", []byte(again))
		if err != nil || string(b.Body) != string(a.Body) || b.Key != a.Key {
			t.Errorf("read again: %s, %v, want %s", b.Body, err, a.Body)
		}
	})
}
