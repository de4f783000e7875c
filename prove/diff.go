package prove

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// picture is what Case.Effects showed, flat: a value in JSON by its path.
type picture map[string]string

// pictureOf flattens any value that JSON can carry.
func pictureOf(v any) (picture, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("show effects as JSON: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		return nil, fmt.Errorf("read effects: %w", err)
	}
	p := make(picture)
	p.add("", tree)
	return p, nil
}

// add puts a value's leaves under its path. An empty object or list is a leaf.
func (p picture) add(path string, v any) {
	under := func(name string) string {
		if path == "" {
			return name
		}
		return path + "." + name
	}
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			p.add(under(name), x)
		}
		if len(v) > 0 || path == "" {
			return
		}
	case []any:
		for i, x := range v {
			p.add(under(strconv.Itoa(i+1)), x)
		}
		if len(v) > 0 {
			return
		}
	}
	text, err := json.Marshal(v)
	if err != nil { // it came out of JSON
		text = []byte(fmt.Sprint(v))
	}
	if path == "" {
		path = "effects"
	}
	p[path] = string(text)
}

// difference is one place at which two pictures differ; "" = nothing is there.
type difference struct{ path, want, got string }

func (p picture) differences(got picture) []difference {
	all := maps.Clone(p)
	maps.Copy(all, got)
	var out []difference
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if p[path] != got[path] {
			out = append(out, difference{path, p[path], got[path]})
		}
	}
	return out
}
