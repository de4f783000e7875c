package change

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise"
)

// appendItem appends attributes as JSON, ordered by name.
func appendItem(b []byte, item map[string]types.AttributeValue) ([]byte, error) {
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(item)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, name), ':')
		var err error
		if b, err = appendValue(b, item[name]); err != nil {
			return nil, fmt.Errorf("attribute %.80q: %w", name, err)
		}
	}
	return append(b, '}'), nil
}

// appendValue appends one attribute value, such as {"S":"text"}.
func appendValue(b []byte, v types.AttributeValue) (_ []byte, err error) {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		b = appendText(append(b, `{"S":`...), v.Value)
	case *types.AttributeValueMemberN:
		b = appendText(append(b, `{"N":`...), v.Value)
	case *types.AttributeValueMemberB:
		b = appendBytes(append(b, `{"B":`...), v.Value)
	case *types.AttributeValueMemberBOOL:
		b = strconv.AppendBool(append(b, `{"BOOL":`...), v.Value)
	case *types.AttributeValueMemberNULL:
		b = strconv.AppendBool(append(b, `{"NULL":`...), v.Value)
	case *types.AttributeValueMemberSS:
		b = appendSet(append(b, `{"SS":`...), sorted(v.Value), appendText)
	case *types.AttributeValueMemberNS:
		b = appendSet(append(b, `{"NS":`...), sorted(v.Value), appendText)
	case *types.AttributeValueMemberBS:
		set := slices.Clone(v.Value)
		slices.SortFunc(set, bytes.Compare)
		b = appendSet(append(b, `{"BS":`...), set, appendBytes)
	case *types.AttributeValueMemberM:
		b, err = appendItem(append(b, `{"M":`...), v.Value)
	case *types.AttributeValueMemberL:
		b, err = appendList(append(b, `{"L":`...), v.Value)
	default:
		// A new type's content would be lost without a word.
		return nil, &ackwise.InvalidError{Field: "attribute value", Value: fmt.Sprintf("%T", v),
			Reason: "its type is not known"}
	}
	return append(b, '}'), err
}

func sorted(set []string) []string {
	set = slices.Clone(set)
	slices.Sort(set)
	return set
}

func appendList(b []byte, list []types.AttributeValue) (_ []byte, err error) {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendValue(b, v); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendSet[T any](b []byte, set []T, one func([]byte, T) []byte) []byte {
	b = append(b, '[')
	for i, v := range set {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, v)
	}
	return append(b, ']')
}

func appendBytes(b, value []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, value)
	return append(b, '"')
}

// appendText appends a JSON string, with <, > and & as they are.
func appendText(b []byte, text string) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string has always a form, and a buffer takes it
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// value reads one attribute value from JSON.
type value struct{ types.AttributeValue }

// UnmarshalJSON reads an object with one member, whose name is the type.
func (v *value) UnmarshalJSON(data []byte) error {
	var one map[string]json.RawMessage
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	if len(one) != 1 {
		return bad(data)
	}
	for kind, content := range one {
		if string(content) == "null" { // which Unmarshal takes for anything
			break
		}
		return v.read(kind, content)
	}
	return bad(data)
}

func bad(data []byte) error {
	return &ackwise.InvalidError{Field: "attribute value", Value: string(data),
		Reason: "it has not exactly one type with a value"}
}

func (v *value) read(kind string, content []byte) error {
	var into any
	switch kind {
	case "S":
		m := &types.AttributeValueMemberS{}
		v.AttributeValue, into = m, &m.Value
	case "N":
		m := &types.AttributeValueMemberN{}
		v.AttributeValue, into = m, &m.Value
	case "B":
		m := &types.AttributeValueMemberB{}
		v.AttributeValue, into = m, &m.Value
	case "BOOL":
		m := &types.AttributeValueMemberBOOL{}
		v.AttributeValue, into = m, &m.Value
	case "NULL":
		m := &types.AttributeValueMemberNULL{}
		v.AttributeValue, into = m, &m.Value
	case "SS":
		m := &types.AttributeValueMemberSS{}
		v.AttributeValue, into = m, &m.Value
	case "NS":
		m := &types.AttributeValueMemberNS{}
		v.AttributeValue, into = m, &m.Value
	case "BS":
		m := &types.AttributeValueMemberBS{}
		v.AttributeValue, into = m, &m.Value
	case "M":
		var members map[string]value
		if err := json.Unmarshal(content, &members); err != nil {
			return err
		}
		v.AttributeValue = &types.AttributeValueMemberM{Value: plain(members)}
		return nil
	case "L":
		var members []value
		if err := json.Unmarshal(content, &members); err != nil {
			return err
		}
		list := make([]types.AttributeValue, len(members))
		for i := range members {
			list[i] = members[i].AttributeValue
		}
		v.AttributeValue = &types.AttributeValueMemberL{Value: list}
		return nil
	default:
		return &ackwise.InvalidError{Field: "attribute value", Value: kind,
			Reason: "its type is not known"}
	}
	return json.Unmarshal(content, into)
}

func plain(item map[string]value) map[string]types.AttributeValue {
	if item == nil {
		return nil
	}
	out := make(map[string]types.AttributeValue, len(item))
	for name, v := range item {
		out[name] = v.AttributeValue
	}
	return out
}
