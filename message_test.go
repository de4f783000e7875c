package ackwise_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func TestMessageJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)
	for _, c := range []struct {
		name string
		m    ackwise.Message
		want string
	}{
		{"empty", ackwise.Message{}, `{"id":""}`},
		{"text", ackwise.Message{ID: "a", Topic: "t", Key: "k", Body: []byte("b"), Time: at},
			`{"id":"a","topic":"t","key":"k","body":"b","time":"2026-01-02T03:04:05.6789Z"}`},
		{"empty body", ackwise.Message{ID: "a", Body: []byte{}}, `{"id":"a","body":""}`},
		{"bytes", ackwise.Message{ID: "a", Key: "\xff", Body: []byte("\xfe\x00")},
			`{"id":"a","key64":"/w==","body64":"/gA="}`},
		{"headers", ackwise.Message{ID: "a", Headers: []ackwise.Header{
			{Name: "n", Value: []byte("v")}, {Name: "n", Value: []byte("\xff")}, {Name: "e",
				Value: []byte{}}}},
			`{"id":"a","headers":[{"name":"n","value":"v"},{"name":"n","value64":"/w=="},` +
				`{"name":"e","value":""}]}`},
		{"line separator", ackwise.Message{ID: "a", Body: []byte("x\u2028\n<")},
			`{"id":"a","body":"x\u2028\n\u003c"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := json.Marshal(c.m)
			if err != nil || string(got) != c.want {
				t.Fatalf("JSON = %s, %v, want %s", got, err, c.want)
			}
			var back ackwise.Message
			if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(back, c.m) {
				t.Errorf("came back as %#v, %v, want %#v", back, err, c.m)
			}
		})
	}
}

func TestMessageJSONWritesTimeInUTC(t *testing.T) {
	zone := time.FixedZone("east", 2*60*60)
	got, err := json.Marshal(ackwise.Message{ID: "a", Time: time.Date(2026, 1, 2, 3, 0, 0, 0, zone)})
	if want := `{"id":"a","time":"2026-01-02T01:00:00Z"}`; err != nil || string(got) != want {
		t.Errorf("JSON = %s, %v, want %s", got, err, want)
	}
}

func TestMessageJSONRefusesNonsense(t *testing.T) {
	for _, in := range []string{`{"id":1}`, `{"id":"a","body64":"%"}`, `[]`, `{"id":"a","headers":{}}`} {
		m := ackwise.Message{ID: "before"}
		if err := json.Unmarshal([]byte(in), &m); err == nil {
			t.Errorf("%s was read as %+v, want an error", in, m)
		}
		if m.ID != "before" {
			t.Errorf("%s: a refused text changed the message to %+v", in, m)
		}
	}
}

// FuzzMessageJSON: whatever bytes a message holds come back, and nil and empty stay apart.
func FuzzMessageJSON(f *testing.F) {
	f.Add("id", "topic", "key", []byte("body"), "name", []byte("value"), byte(0))
	f.Add("", "", "", []byte(nil), "", []byte(nil), byte(3))
	f.Add("é", "t", "\xff\x00", []byte("\xfe"), "n", []byte("\x80"), byte(1))
	f.Add("a\u2028", "t", "\u2029", []byte("</script>"), "n", []byte("\""), byte(2))
	f.Fuzz(func(t *testing.T, id, topic, key string, body []byte, name string, value []byte,
		nils byte) {
		// The ID, topic and header names are text, which Validate checks.
		text := func(s string) string { return strings.ToValidUTF8(s, "?") }
		want := ackwise.Message{ID: text(id), Topic: text(topic), Key: key, Body: body}
		want.Headers = []ackwise.Header{{Name: text(name), Value: value}}
		if nils&1 != 0 {
			want.Body = nil
		} else if want.Body == nil {
			want.Body = []byte{}
		}
		if want.Headers[0].Value == nil {
			want.Headers[0].Value = []byte{}
		}
		data, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got ackwise.Message
		if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\ncame back as %#v, %v\nwant %#v", data, got, err, want)
		}
	})
}

// FuzzReadMessageJSON: a text that is read is written in a form that reads the same.
func FuzzReadMessageJSON(f *testing.F) {
	f.Add([]byte(`{"id":"a","key64":"/w==","headers":[{"name":"n","value64":""}],"body":""}`))
	f.Add([]byte(`{"body64":"","body":null,"time":"2026-01-02T03:04:05.6+02:00"}`))
	f.Add([]byte(`{"key":"a","key64":"Yg=="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m ackwise.Message
		if json.Unmarshal(data, &m) != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			if m.Time.Year() > 9999 || m.Time.UTC().Year() < 0 || m.Time.UTC().Year() > 9999 {
				return // a zone moved it out of what RFC 3339 can write
			}
			t.Fatalf("read %q but cannot write it: %v", data, err)
		}
		var back ackwise.Message
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatalf("cannot read %s again: %v", again, err)
		}
		third, err := json.Marshal(back)
		if err != nil || string(third) != string(again) {
			t.Errorf("%s became %s, %v", again, third, err)
		}
	})
}

func TestValidate(t *testing.T) {
	ok := func() ackwise.Message { return ackwise.Message{Topic: "orders", ID: "a", Key: "k"} }
	long := func(n int) string { return strings.Repeat("x", n) }
	headers := func(n int, name, value string) func(*ackwise.Message) {
		return func(m *ackwise.Message) {
			m.Headers = slices.Repeat([]ackwise.Header{{Name: name, Value: []byte(value)}}, n)
		}
	}
	for _, c := range []struct {
		name   string
		change func(*ackwise.Message)
		field  string // of the *InvalidError; "" = it is valid
	}{
		{"as it is", func(*ackwise.Message) {}, ""},
		{"no topic", func(m *ackwise.Message) { m.Topic = "" }, "topic"},
		{"longest topic", func(m *ackwise.Message) { m.Topic = long(ackwise.MaxNameBytes) }, ""},
		{"topic too long", func(m *ackwise.Message) { m.Topic = long(ackwise.MaxNameBytes + 1) },
			"topic"},
		{"hidden topic", func(m *ackwise.Message) { m.Topic = ".orders" }, "topic"},
		{"topic with slash", func(m *ackwise.Message) { m.Topic = "../orders" }, "topic"},
		{"topic with letter of others", func(m *ackwise.Message) { m.Topic = "örders" }, "topic"},
		{"all that a topic may hold", func(m *ackwise.Message) { m.Topic = "aZ09-_.x" }, ""},
		{"no ID", func(m *ackwise.Message) { m.ID = "" }, ""},
		{"longest ID", func(m *ackwise.Message) { m.ID = long(ackwise.MaxIDBytes) }, ""},
		{"ID too long", func(m *ackwise.Message) { m.ID = long(ackwise.MaxIDBytes + 1) }, "id"},
		{"ID with line end", func(m *ackwise.Message) { m.ID = "a\nb" }, "id"},
		{"ID with DEL", func(m *ackwise.Message) { m.ID = "a\x7f" }, "id"},
		{"ID not UTF-8", func(m *ackwise.Message) { m.ID = "\xff" }, "id"},
		{"ID with space and accents", func(m *ackwise.Message) { m.ID = "é ü" }, ""},
		{"key of any bytes", func(m *ackwise.Message) { m.Key = "\x00\xff\n" }, ""},
		{"longest key", func(m *ackwise.Message) { m.Key = long(ackwise.MaxKeyBytes) }, ""},
		{"key too long", func(m *ackwise.Message) { m.Key = long(ackwise.MaxKeyBytes + 1) }, "key"},
		{"most headers", headers(ackwise.MaxHeaders, "n", "v"), ""},
		{"too many headers", headers(ackwise.MaxHeaders+1, "n", "v"), "headers"},
		{"header without name", headers(1, "", "v"), "header"},
		{"header name with line end", headers(1, "a\r", "v"), "header"},
		{"header of any bytes", headers(1, "n", "\x00\xff"), ""},
		{"largest headers", headers(1, "n", long(ackwise.MaxHeaderBytes-1)), ""},
		{"headers too large", headers(2, "n", long(ackwise.MaxHeaderBytes/2)), "headers"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := ok()
			c.change(&m)
			err := m.Validate()
			var invalid *ackwise.InvalidError
			switch {
			case c.field == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.field != "" && (!errors.As(err, &invalid) || invalid.Field != c.field):
				t.Errorf("got %v, want an *InvalidError of %s", err, c.field)
			case c.field != "" && len(err.Error()) > 300:
				t.Errorf("the error is %d bytes long, want it short", len(err.Error()))
			}
		})
	}
}

func TestValidateIDRefusesTheEmptyOne(t *testing.T) {
	if err := ackwise.ValidateID(""); err == nil {
		t.Error("ValidateID of an empty ID = nil, want an error")
	}
}

func TestMessageHeaderIsTheFirstOfItsName(t *testing.T) {
	m := ackwise.Message{Headers: []ackwise.Header{{Name: "a", Value: []byte("1")},
		{Name: "b"}, {Name: "a", Value: []byte("2")}}}
	if v, ok := m.Header("a"); string(v) != "1" || !ok {
		t.Errorf("Header(a) = %q, %t, want 1, true", v, ok)
	}
	if v, ok := m.Header("b"); v != nil || !ok {
		t.Errorf("Header(b) = %q, %t, want nil, true", v, ok)
	}
	if _, ok := m.Header("A"); ok {
		t.Error("Header(A) found a: names are matched exactly")
	}
}

func TestNewIDSortsByMillisecondAndNeverRepeats(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	now := time.UnixMilli(1_767_000_000_000)
	seen := make(map[string]bool)
	last := ""
	for i := range 1000 {
		id := ackwise.NewID(now.Add(time.Duration(i) * time.Millisecond))
		if !form.MatchString(id) {
			t.Fatalf("%q is not a UUID of version 7", id)
		}
		if id <= last {
			t.Fatalf("%s, a millisecond later, sorts before %s", id, last)
		}
		if err := ackwise.ValidateID(id); err != nil {
			t.Fatal(err)
		}
		last = id
		seen[id], seen[ackwise.NewID(now)] = true, true
	}
	if len(seen) != 2000 {
		t.Errorf("%d different IDs of 2000", len(seen))
	}
}

func TestErrorTexts(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		err  error
		want string
	}{
		{&ackwise.InvalidError{Field: "key", Reason: "too long"}, "invalid key: too long"},
		{&ackwise.InvalidError{Field: "id", Value: "a\n", Reason: "bad"}, `invalid id "a\n": bad`},
		{&ackwise.NotFoundError{Kind: "topic", Name: "x"}, `no topic "x"`},
		{&ackwise.NotFoundError{Kind: "topic", Name: "x", Nearest: "y"},
			`no topic "x"; did you mean "y"?`},
		{&ackwise.HintError{Err: boom, Hint: "Do this."}, "boom\n  hint: Do this."},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("error = %q, want %q", got, c.want)
		}
	}
	if !errors.Is(&ackwise.HintError{Err: boom}, boom) {
		t.Error("HintError hides its error")
	}
}
