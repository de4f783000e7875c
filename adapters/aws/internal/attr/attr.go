package attr

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
)

// Limits of the services.
const (
	MaxAttributes = 10      // of one message, ours included
	SQSBytes      = 1 << 20 // a message or a batch of SQS, attributes included
	SNSBytes      = 1 << 18 // a message or a batch of SNS, attributes included

	maxName = 256
)

// ownAttributes are the ID and the one called Name.
const ownAttributes = 2

// Name is the attribute that carries what has no attribute of its own, as JSON.
const Name = "ackwise"

// Types of attributes. A service may append a label of the user's, such as "Number.float".
const (
	String = "String"
	Number = "Number"
	Binary = "Binary"
)

// Attribute is one attribute of a message.
type Attribute struct {
	Name string
	Type string // String, Number or Binary
	Text string // the value of a String or a Number
	Data []byte // the value of a Binary
}

func (a *Attribute) size() int { return len(a.Name) + len(a.Type) + len(a.Text) + len(a.Data) }

// Encoded is a message as the services carry it.
type Encoded struct {
	Body       string
	Attributes []Attribute
}

// Size is what counts for the services' limits.
func (e *Encoded) Size() int {
	n := len(e.Body)
	for i := range e.Attributes {
		n += e.Attributes[i].size()
	}
	return n
}

// placeholder is the body of messages that have none: the services refuse an empty one.
const placeholder = "-"

// Encode puts a message into a body and attributes of at most limit bytes together. The error is
// an *ackwise.InvalidError that names what cannot be carried, or wraps ackwise.ErrTooLarge.
func Encode(m *ackwise.Message, limit int) (Encoded, error) {
	if err := validate(m); err != nil {
		return Encoded{}, err
	}
	var e Encoded
	o := own{Time: m.Time.UTC()}
	o.Key, o.Key64 = textOr64([]byte(m.Key))
	e.Body, o.Body = encodeBody(m.Body)
	switch {
	case m.ID == "":
	case validText(m.ID):
		e.add(Attribute{Name: ackwise.HeaderID, Type: String, Text: m.ID})
	default:
		o.ID64 = []byte(m.ID)
	}
	e.Attributes = append(e.Attributes, o.takeHeaders(m.Headers)...)
	if !o.empty() {
		text, err := o.encode()
		if err != nil {
			return Encoded{}, fmt.Errorf("write attribute %s: %w", Name, err)
		}
		e.add(Attribute{Name: Name, Type: String, Text: text})
	}
	if err := e.check(m, limit); err != nil {
		return Encoded{}, err
	}
	return e, nil
}

func (e *Encoded) add(a Attribute) { e.Attributes = append(e.Attributes, a) }

// check refuses what does not fit.
func (e *Encoded) check(m *ackwise.Message, limit int) error {
	if size := e.Size(); size > limit {
		return fmt.Errorf("the message is %d bytes long with its attributes (body %d, sent as %d), "+
			"at most %d are allowed: %w", size, len(m.Body), len(e.Body), limit, ackwise.ErrTooLarge)
	}
	return nil
}

// validate checks all but the topic, which no attribute carries.
func validate(m *ackwise.Message) error {
	named := *m
	named.Topic = "topic"
	return named.Validate()
}

func encodeBody(body []byte) (text, kind string) {
	switch {
	case body == nil:
		return placeholder, bodyNil
	case len(body) == 0:
		return placeholder, bodyEmpty
	case !validText(string(body)):
		return base64.StdEncoding.EncodeToString(body), bodyBase64
	}
	return string(body), ""
}

// Decoded is what was carried.
type Decoded struct {
	// Message has no topic. Its ID is the service's own where the message carries none.
	Message ackwise.Message
	Epoch   int
	Foreign bool // it carries no ID of ours: a stranger wrote it
}

// Decode reads a message back. id is the service's ID of it, for strangers' messages.
func Decode(body string, attributes []Attribute, id string) Decoded {
	list := slices.Clone(attributes)
	slices.SortStableFunc(list, func(a, b Attribute) int { return cmp.Compare(a.Name, b.Name) })
	list = slices.CompactFunc(list, func(a, b Attribute) bool { return a.Name == b.Name })
	raw := []byte(body)
	var o own
	if i := slices.IndexFunc(list, func(a Attribute) bool { return a.Name == Name }); i >= 0 {
		if read, b, ok := decodeOwn(list[i], body); ok {
			o, raw = read, b
			list = slices.Delete(list, i, i+1)
		}
	}
	d := Decoded{Epoch: o.Epoch, Message: ackwise.Message{Key: o.key(), Body: raw, Time: o.Time}}
	list = d.takeID(list, o.ID64)
	if d.Foreign = d.Message.ID == ""; d.Foreign {
		d.Message.ID = id
	}
	d.Message.Headers = o.giveHeaders(list)
	return d
}

// takeID reads the ID and returns the other attributes. One that is no ID is a header.
func (d *Decoded) takeID(list []Attribute, id64 []byte) []Attribute {
	if id := string(id64); id != "" && ackwise.ValidateID(id) == nil {
		d.Message.ID = id
		return list
	}
	i := slices.IndexFunc(list, func(a Attribute) bool { return a.Name == ackwise.HeaderID })
	if i < 0 || list[i].binary() || ackwise.ValidateID(list[i].Text) != nil {
		return list
	}
	d.Message.ID = list[i].Text
	return slices.Delete(list, i, i+1)
}

func (a *Attribute) binary() bool {
	return a.Type == Binary || strings.HasPrefix(a.Type, Binary+".")
}

func (a *Attribute) value() []byte {
	if a.binary() {
		return a.Data
	}
	return []byte(a.Text)
}

// validText reports whether the services take s as a text: XML 1.0's characters.
func validText(s string) bool {
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false
			}
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r', r == 0xfffe, r == 0xffff:
			return false
		}
	}
	return true
}

// validName reports whether the services take s as the name of an attribute.
func validName(s string) bool {
	low := strings.ToLower(s)
	switch {
	case s == "", len(s) > maxName, s[0] == '.', s[len(s)-1] == '.', strings.Contains(s, ".."),
		strings.HasPrefix(low, "aws."), strings.HasPrefix(low, "amazon."):
		return false
	}
	for _, c := range []byte(low) {
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !letter && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
