package nakadi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// schema is the part of JSON schema that is enforced: types, required, properties, items, no
// additional properties.
type schema struct {
	Type       any                `json:"type"`
	Required   []string           `json:"required"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	Additional any                `json:"additionalProperties"`
}

func readSchema(text string) (*schema, error) {
	s := &schema{}
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return nil, err
	}
	return s, nil
}

// check returns what is wrong with a value, or "". exact refuses properties that are not named.
func (s *schema) check(path string, v any, exact bool) string {
	if s == nil {
		return ""
	}
	if !s.typeFits(v) {
		return fmt.Sprintf("%s: expected type: %v", path, s.Type)
	}
	switch v := v.(type) {
	case map[string]any:
		return s.checkObject(path, v, exact)
	case []any:
		for i, e := range v {
			if fault := s.Items.check(fmt.Sprintf("%s/%d", path, i), e, exact); fault != "" {
				return fault
			}
		}
	}
	return ""
}

func (s *schema) checkObject(path string, v map[string]any, exact bool) string {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return fmt.Sprintf("%s: required key [%s] not found", path, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		sub, named := s.Properties[name]
		if closed := s.Additional == false || exact && s.Properties != nil; !named && closed {
			return fmt.Sprintf("%s: extraneous key [%s] is not permitted", path, name)
		}
		if fault := sub.check(path+"/"+name, v[name], exact); fault != "" {
			return fault
		}
	}
	return ""
}

func (s *schema) typeFits(v any) bool {
	switch t := s.Type.(type) {
	case string:
		return isType(t, v)
	case []any:
		return slices.ContainsFunc(t, func(one any) bool { return isType(fmt.Sprint(one), v) })
	}
	return true
}

func isType(t string, v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return t == "object"
	case []any:
		return t == "array"
	case string:
		return t == "string"
	case bool:
		return t == "boolean"
	case nil:
		return t == "null"
	case json.Number:
		_, err := v.Int64()
		return t == "number" || t == "integer" && err == nil
	}
	return false
}

// decode reads JSON with its numbers as they are written, and refuses what stands behind it.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("there is more behind the value")
	}
	return nil
}
