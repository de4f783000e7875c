package attr

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

// own is the JSON of the attribute "ackwise": what no attribute of its own can carry. A field whose
// name ends in 64 stands for the one without where that is no text of the services.
type own struct {
	ID64    []byte      `json:"id64,omitempty"`
	Key     *string     `json:"key,omitempty"`
	Key64   []byte      `json:"key64,omitempty"`
	Epoch   int         `json:"epoch,omitempty"`
	Time    time.Time   `json:"time,omitzero"`
	Body    string      `json:"body,omitempty"`
	Headers []ownHeader `json:"headers,omitempty"`
}

// ownHeader is one header. Without a value it stands in the attribute of its name, and only its
// place is told here.
type ownHeader struct {
	Name    *string `json:"name,omitempty"`
	Name64  []byte  `json:"name64,omitempty"`
	Value   *string `json:"value,omitempty"`
	Value64 []byte  `json:"value64,omitempty"`
}

// What the body is, where it is not itself.
const (
	bodyNil    = "nil"
	bodyEmpty  = "empty"
	bodyBase64 = "base64"
)

func (o *own) empty() bool {
	return o.ID64 == nil && o.Key == nil && o.Key64 == nil && o.Epoch == 0 && o.Time.IsZero() &&
		o.Body == "" && len(o.Headers) == 0
}

func (o *own) encode() (string, error) {
	text, err := json.Marshal(o)
	return string(text), err
}

// takeHeaders sorts the headers into those that are attributes, which it returns, and the others.
func (o *own) takeHeaders(headers []ackwise.Header) []Attribute {
	var attributes []Attribute
	seen := map[string]bool{}
	sorted := true // attributes come back in the order of their names
	for _, h := range headers {
		if epoch, ok := epochOf(h); ok && o.Epoch == 0 {
			o.Epoch = epoch
			continue
		}
		var entry ownHeader
		entry.Name, entry.Name64 = textOr64([]byte(h.Name))
		if entry.Name == nil && entry.Name64 == nil {
			entry.Name = new(string)
		}
		plain := !seen[h.Name] && validName(h.Name) && !ours(h.Name) && len(h.Value) > 0 &&
			len(attributes) < MaxAttributes-ownAttributes
		seen[h.Name] = true
		if !plain {
			entry.Value, entry.Value64 = textOr64(h.Value)
			if entry.Value == nil && entry.Value64 == nil {
				entry.Value = new(string)
			}
			o.Headers = append(o.Headers, entry)
			sorted = false
			continue
		}
		if n := len(attributes); n > 0 && attributes[n-1].Name > h.Name {
			sorted = false
		}
		attributes = append(attributes, attributeOf(h))
		o.Headers = append(o.Headers, entry)
	}
	if sorted {
		o.Headers = nil
	}
	return attributes
}

func attributeOf(h ackwise.Header) Attribute {
	if validText(string(h.Value)) {
		return Attribute{Name: h.Name, Type: String, Text: string(h.Value)}
	}
	return Attribute{Name: h.Name, Type: Binary, Data: h.Value}
}

func ours(name string) bool { return name == Name || strings.HasPrefix(name, Name+"-") }

// epochOf reads the header that a relay puts the epoch in, where it is written in its one form.
func epochOf(h ackwise.Header) (int, bool) {
	if h.Name != ackwise.HeaderEpoch {
		return 0, false
	}
	n, err := strconv.Atoi(string(h.Value))
	return n, err == nil && n > 0 && strconv.Itoa(n) == string(h.Value)
}

// giveHeaders is the reverse of takeHeaders. Attributes that have no place in the order, because
// somebody added them on the way, come last; places without attribute are left out.
func (o *own) giveHeaders(attributes []Attribute) []ackwise.Header {
	var headers []ackwise.Header
	for _, h := range o.Headers {
		name := string(h.Name64)
		if h.Name != nil {
			name = *h.Name
		}
		switch {
		case h.Value != nil:
			headers = append(headers, ackwise.Header{Name: name, Value: []byte(*h.Value)})
			continue
		case h.Value64 != nil:
			headers = append(headers, ackwise.Header{Name: name, Value: h.Value64})
			continue
		}
		i := slices.IndexFunc(attributes, func(a Attribute) bool { return a.Name == name })
		if i >= 0 {
			headers = append(headers, ackwise.Header{Name: name, Value: attributes[i].value()})
			attributes = slices.Delete(attributes, i, i+1)
		}
	}
	for _, a := range attributes {
		headers = append(headers, ackwise.Header{Name: a.Name, Value: a.value()})
	}
	return headers
}

func (o *own) key() string {
	if o.Key != nil {
		return *o.Key
	}
	return string(o.Key64)
}

// decodeOwn reads the attribute and the body that it speaks of. It is ours as a whole or not at
// all.
func decodeOwn(a Attribute, body string) (o own, raw []byte, ok bool) {
	if a.binary() || json.Unmarshal([]byte(a.Text), &o) != nil || !strings.HasPrefix(a.Text, "{") {
		return own{}, nil, false
	}
	if o.Epoch < 0 || len(o.key()) > ackwise.MaxKeyBytes || o.empty() {
		return own{}, nil, false
	}
	switch o.Body {
	case "":
		return o, []byte(body), true
	case bodyNil:
		return o, nil, true
	case bodyEmpty:
		return o, []byte{}, true
	case bodyBase64:
		raw, err := base64.StdEncoding.DecodeString(body)
		return o, raw, err == nil
	}
	return own{}, nil, false
}

// textOr64 returns a text as it is, and other bytes to be base64-coded; nothing for nothing.
func textOr64(b []byte) (*string, []byte) {
	switch {
	case len(b) == 0:
		return nil, nil
	case validText(string(b)):
		s := string(b)
		return &s, nil
	}
	return nil, b
}
