package attr

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func same(a, b ackwise.Message) bool {
	if len(a.Headers) != len(b.Headers) || !a.Time.Equal(b.Time) {
		return false
	}
	for i := range a.Headers {
		if a.Headers[i].Name != b.Headers[i].Name ||
			!bytes.Equal(a.Headers[i].Value, b.Headers[i].Value) {
			return false
		}
	}
	return a.ID == b.ID && a.Key == b.Key && bytes.Equal(a.Body, b.Body) &&
		(a.Body == nil) == (b.Body == nil)
}

// shuffled is what a service may do to attributes: they have no order.
func shuffled(e Encoded, r *rand.Rand) []Attribute {
	list := slices.Clone(e.Attributes)
	r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// accepted is what the services ask of a body and its attributes.
func accepted(t *testing.T, e Encoded) {
	t.Helper()
	if e.Body == "" || !validText(e.Body) {
		t.Errorf("body %.40q would be refused", e.Body)
	}
	seen := map[string]bool{}
	for _, a := range e.Attributes {
		empty := a.Text == "" && len(a.Data) == 0
		if !validName(a.Name) || seen[a.Name] || empty || !validText(a.Text) {
			t.Errorf("attribute %+v would be refused", a)
		}
		seen[a.Name] = true
	}
	if len(e.Attributes) > MaxAttributes {
		t.Errorf("%d attributes", len(e.Attributes))
	}
}

func h(name, value string) ackwise.Header {
	return ackwise.Header{Name: name, Value: []byte(value)}
}

func TestRoundTrip(t *testing.T) {
	at := time.Date(2013, 1, 2, 3, 4, 5, 678901234, time.UTC)
	r := rand.New(rand.NewPCG(1, 2))
	for name, m := range map[string]ackwise.Message{
		"plain":      {ID: "1", Body: []byte("text")},
		"nil body":   {ID: "1"},
		"empty body": {ID: "1", Body: []byte{}},
		"a dash":     {ID: "1", Body: []byte("-")},
		"every byte": {ID: "1", Key: string(allBytes()), Body: allBytes(), Time: at},
		"no text":    {ID: "\ufffe\u00a0", Key: "\uffff", Body: []byte("a\x0bb")},
		"in order":   {ID: "1", Body: []byte("b"), Headers: []ackwise.Header{h("a", "1"), h("b", "2")}},
		"reversed":   {ID: "1", Body: []byte("b"), Headers: []ackwise.Header{h("b", "1"), h("a", "2")}},
		"repeated": {ID: "1", Headers: []ackwise.Header{h("a", "1"), h("b", "2"), h("a", "3"),
			h("a", "")}},
		"odd names": {ID: "1", Headers: []ackwise.Header{h("aws.x", "1"), h("a b", "2"), h("ü",
			"3"), h(".", "4"), h("a..b", "5")}},
		"our names": {ID: "1", Headers: []ackwise.Header{h("ackwise", "{}"), h("ackwise-id", "2"),
			h("ackwise-error", "x"), h("ackwise-key", "k")}},
		"every value": {ID: "1", Headers: []ackwise.Header{h("a", string(allBytes())), h("é",
			string(allBytes())), h("x", "\ufffe")}},
		"empty value": {ID: "1", Headers: []ackwise.Header{h("a", "")}},
		"100 headers": {ID: "1", Headers: slices.Repeat([]ackwise.Header{h("a", "v")}, 100)},
		"bad epoch": {ID: "1", Headers: []ackwise.Header{h("ackwise-epoch", "01"),
			h("ackwise-epoch", "x")}},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := Encode(&m, SQSBytes)
			if err != nil {
				t.Fatal(err)
			}
			accepted(t, e)
			got := Decode(e.Body, shuffled(e, r), "theirs")
			if !same(got.Message, m) || got.Epoch != 0 || got.Foreign {
				t.Errorf("got  %+v\nwant %+v\nfrom %+v", got, m, e)
			}
		})
	}
}

// The header of a relay is the epoch of a delivery, and not a header any more.
func TestEpoch(t *testing.T) {
	m := ackwise.Message{ID: "1", Headers: []ackwise.Header{h("a", "1"), h("ackwise-epoch", "3")}}
	e, err := Encode(&m, SQSBytes)
	if err != nil {
		t.Fatal(err)
	}
	got := Decode(e.Body, e.Attributes, "")
	if got.Epoch != 3 || len(got.Message.Headers) != 1 {
		t.Errorf("got %+v", got)
	}
}

// Filter policies match what users named, as texts.
func TestUsersHeadersAreAttributes(t *testing.T) {
	m := ackwise.Message{ID: "1", Headers: []ackwise.Header{h("kind", "paid"), h("raw", "\xff")}}
	e, err := Encode(&m, SQSBytes)
	if err != nil {
		t.Fatal(err)
	}
	want := []Attribute{{Name: "ackwise-id", Type: String, Text: "1"},
		{Name: "kind", Type: String, Text: "paid"}, {Name: "raw", Type: Binary, Data: []byte{0xff}}}
	if got := e.Attributes[:3]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestStrangers(t *testing.T) {
	got := Decode("text", []Attribute{{Name: "n", Type: "Number.float", Text: "1.5"},
		{Name: "b", Type: "Binary.png", Data: []byte{0}}, {Name: "a", Type: String, Text: "x"}}, "theirs")
	want := ackwise.Message{ID: "theirs", Body: []byte("text"),
		Headers: []ackwise.Header{h("a", "x"), h("b", "\x00"), h("n", "1.5")}}
	if !same(got.Message, want) || !got.Foreign {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, text := range []string{"x", "null", "[]", "{}", `{"body":"other"}`, `{"body":"base64"}`,
		`{"epoch":-1}`, `{"key":1}`, `{"key":"` + strings.Repeat("k", 1025) + `"}`} {
		got := Decode("a text", []Attribute{{Name: Name, Type: String, Text: text}}, "theirs")
		want := ackwise.Message{ID: "theirs", Body: []byte("a text"),
			Headers: []ackwise.Header{h(Name, text)}}
		if !same(got.Message, want) {
			t.Errorf("%s: got %+v", text, got)
		}
	}
	got = Decode("b", []Attribute{{Name: "ackwise-id", Type: String, Text: "a\nb"}}, "theirs")
	if got.Message.ID != "theirs" || len(got.Message.Headers) != 1 {
		t.Errorf("a bad ID: got %+v", got)
	}
}

// An attribute that was added or taken away between us does no harm.
func TestChangedOnTheWay(t *testing.T) {
	m := ackwise.Message{ID: "1", Headers: []ackwise.Header{h("b", "1"), h("a", "2")}}
	e, err := Encode(&m, SQSBytes)
	if err != nil {
		t.Fatal(err)
	}
	list := slices.DeleteFunc(e.Attributes, func(a Attribute) bool { return a.Name == "b" })
	list = append(list, Attribute{Name: "added", Type: String, Text: "x"})
	got := Decode(e.Body, list, "").Message.Headers
	if want := []ackwise.Header{h("a", "2"), h("added", "x")}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestManyHeaders: what finds no room among the ten attributes is carried all the same.
func TestManyHeaders(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range ackwise.MaxHeaders + 1 {
		m := ackwise.Message{ID: "1", Key: "k", Body: []byte("b")}
		for i := range n {
			m.Headers = append(m.Headers, h(fmt.Sprintf("h%02d", i*7%ackwise.MaxHeaders), "v"))
		}
		e, err := Encode(&m, SQSBytes)
		if err != nil {
			t.Fatalf("%d headers: %v", n, err)
		}
		accepted(t, e)
		if got := Decode(e.Body, shuffled(e, r), "").Message; !same(got, m) {
			t.Errorf("%d headers: got %+v, want %+v", n, got, m)
		}
		if plain := min(n, MaxAttributes-2); len(e.Attributes) != plain+2 {
			t.Errorf("%d headers: %d attributes, want %d and two of ours", n, len(e.Attributes), plain)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		m    ackwise.Message
		want string
	}{
		"key": {ackwise.Message{ID: "1", Key: strings.Repeat("k", 1025)}, "invalid key"},
		"id":  {ackwise.Message{ID: "a\nb"}, "invalid id"},
		"header name": {ackwise.Message{ID: "1", Headers: []ackwise.Header{h("a\nb", "")}},
			`invalid header "a\nb": the name contains a control character`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Encode(&c.m, SQSBytes)
			var invalid *ackwise.InvalidError
			if !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	for size, fits := range map[int]bool{SNSBytes - 17: true, SNSBytes - 16: false} {
		m := ackwise.Message{ID: "1", Body: bytes.Repeat([]byte("b"), size)}
		_, err := Encode(&m, SNSBytes)
		if fits != (err == nil) || !fits && !errors.Is(err, ackwise.ErrTooLarge) {
			t.Errorf("%d bytes with 17 of the ID: %v", size, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("body", "ackwise", `{"key":"k","body":"base64","headers":[{"name":"a"}]}`, []byte("v"), "a")
	f.Add("-", "ackwise", `{"body":"nil","epoch":2,"time":"2013-01-01T00:00:00Z"}`, []byte{}, "ackwise")
	f.Add("", "ackwise-id", "1", []byte{0}, "ackwise-id")
	f.Fuzz(func(t *testing.T, body, name, text string, data []byte, second string) {
		d := Decode(body, []Attribute{{Name: name, Type: String, Text: text},
			{Name: second, Type: Binary, Data: data}}, "theirs")
		if d.Message.ID == "" || len(d.Message.Key) > ackwise.MaxKeyBytes || d.Epoch < 0 {
			t.Errorf("got %+v", d)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("1", "k", []byte("b"), "h", []byte("v"), "h", []byte{0})
	f.Add("\ufffe", "\xff", []byte(nil), "ackwise", []byte("{}"), "ackwise-id", []byte(nil))
	f.Fuzz(func(t *testing.T, id, key string, body []byte, n1 string, v1 []byte, n2 string,
		v2 []byte) {
		m := ackwise.Message{ID: id, Key: key, Body: body,
			Headers: []ackwise.Header{{Name: n1, Value: v1}, {Name: n2, Value: v2}}}
		e, err := Encode(&m, SQSBytes)
		if err != nil {
			return
		}
		accepted(t, e)
		got := Decode(e.Body, e.Attributes, "theirs")
		if id == "" {
			m.ID = "theirs"
		}
		if _, epoch := epochOf(m.Headers[1]); epoch && got.Epoch > 0 {
			m.Headers = m.Headers[:1]
		}
		if _, epoch := epochOf(m.Headers[0]); epoch && got.Epoch > 0 {
			m.Headers = m.Headers[1:]
		}
		if !same(got.Message, m) && got.Epoch == 0 {
			t.Errorf("got %+v\nwant %+v\nfrom %+v", got, m, e)
		}
	})
}
