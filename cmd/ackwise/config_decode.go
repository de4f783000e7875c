package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
)

// maxConfigBytes bounds a file of pipelines.
const maxConfigBytes = 1 << 20

// fault is one thing that is wrong with a file, and where.
type fault struct {
	line int
	text string
}

// configError is all that is wrong with a file.
type configError struct {
	file   string
	faults []fault
}

// Error names each fault on a line of its own, in the order of the file.
func (e *configError) Error() string {
	lines := make([]string, len(e.faults))
	for i, f := range e.faults {
		lines[i] = fmt.Sprintf("%s:%d: %s", e.file, f.line, f.text)
	}
	return strings.Join(lines, "\n")
}

// loadConfig reads and checks a file of pipelines.
func loadConfig(path string) (*config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open pipelines: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read pipelines: %w", err)
	}
	if len(data) > maxConfigBytes {
		return nil, fmt.Errorf("read pipelines: %s is %w: at most %d bytes are allowed", path,
			ackwise.ErrTooLarge, maxConfigBytes)
	}
	return parseConfig(path, data)
}

// parseConfig reads and checks the text of a file of pipelines.
func parseConfig(path string, data []byte) (*config, error) {
	d := &configReader{}
	c := d.read(data)
	if len(d.faults) == 0 {
		c.check(d)
	}
	if len(d.faults) == 0 {
		return c, nil
	}
	slices.SortStableFunc(d.faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	return nil, &configError{path, d.faults}
}

// configReader fills structs from YAML and collects what is wrong.
type configReader struct {
	faults []fault
	lines  map[string]int // of the pipeline that is being read
}

func (d *configReader) fault(line int, format string, args ...any) {
	d.faults = append(d.faults, fault{max(line, 1), fmt.Sprintf(format, args...)})
}

func (d *configReader) read(data []byte) *config {
	c := &config{}
	var root yaml.Node
	err := yaml.Load(data, &root)
	if err == nil {
		d.fill(root.Content[0], reflect.ValueOf(c).Elem(), "")
	} else {
		d.notYAML(err)
	}
	if len(d.faults) == 0 && len(c.Pipelines)+len(c.Redrive) == 0 {
		d.fault(1, "there is no pipeline; pipelines: is a list of them")
	}
	return c
}

// notYAML says why a text cannot be read at all.
func (d *configReader) notYAML(err error) {
	line, text := 1, err.Error()
	if at, ok := errors.AsType[*yaml.LoadError](err); ok {
		line, text = at.Mark.Line, at.Message
	}
	text = strings.TrimPrefix(text, "yaml: ")
	switch text {
	case "no documents in stream":
		d.fault(1, "the file is empty; it needs pipelines:")
		return
	case "block sequence entries are not allowed in this context":
		text += `; a - that is a value is written "-"`
	}
	d.fault(line, "not YAML: %s", text)
}

// fill sets v, which stands under the word path, from n.
func (d *configReader) fill(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		d.fault(n.Line, "anchors and aliases are not read here; write the value out")
		return
	}
	if s, ok := specials()[v.Type()]; ok {
		d.fillSpecial(n, v, path, s)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.fillStruct(n, v, path)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String {
			d.fillTexts(n, v, path)
			return
		}
		d.fillList(n, v, path)
	case reflect.Map:
		d.fillNamed(n, v, path)
	default:
		d.fillScalar(n, v, path)
	}
}

// fillTexts sets a list of texts.
func (d *configReader) fillTexts(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		d.fault(n.Line, "%s: expected a list of texts, found %s", path, found(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, one := range n.Content {
		d.fill(one, v.Index(i), path)
	}
}

// fillNamed sets texts by name.
func (d *configReader) fillNamed(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		d.fault(n.Line, "%s: expected names with texts, found %s", path, found(n))
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i]
		if name.Kind != yaml.ScalarNode || name.ShortTag() != "!!str" {
			d.fault(name.Line, "%s: expected a name, found %s", path, found(name))
			continue
		}
		at := reflect.ValueOf(name.Value)
		if v.MapIndex(at).IsValid() {
			d.fault(name.Line, "%s: %.40q is set twice", path, name.Value)
		}
		text := reflect.New(v.Type().Elem()).Elem()
		d.fill(n.Content[i+1], text, path+"."+name.Value)
		v.SetMapIndex(at, text)
	}
}

// placed is a thing of which a file holds a list.
type placed interface {
	place(line int) map[string]int
}

func (d *configReader) fillList(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fault(n.Line, "%s: expected a list, found %s", path, found(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, one := range n.Content {
		d.lines = v.Index(i).Addr().Interface().(placed).place(one.Line)
		d.fill(one, v.Index(i), "")
		d.lines = nil
	}
}

func (d *configReader) fillStruct(n *yaml.Node, v reflect.Value, path string) {
	where := path
	switch v.Type() {
	case reflect.TypeFor[config]():
		where = "the file"
	case reflect.TypeFor[pipelineConfig]():
		where = "a pipeline"
	case reflect.TypeFor[redriveConfig]():
		where = "a redrive"
	}
	if n.Kind != yaml.MappingNode {
		d.fault(n.Line, "%s: expected words with values, found %s", where, found(n))
		return
	}
	fields := fieldsOf(v.Type())
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = f.word
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := slices.Index(words, key.Value)
		first, twice := seen[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || at < 0:
			d.fault(key.Line, "%s", unknownWord(key, where, words))
			continue
		case twice:
			d.fault(key.Line, "%s is set twice, first on line %d", key.Value, first)
			continue
		}
		seen[key.Value] = key.Line
		inner := key.Value
		if path != "" {
			inner = path + "." + inner
		}
		if d.lines != nil {
			d.lines[inner] = key.Line
		}
		d.fill(value, v.FieldByIndex(fields[at].index), inner)
	}
}

func unknownWord(key *yaml.Node, where string, words []string) string {
	if key.Kind != yaml.ScalarNode {
		return fmt.Sprintf("expected a word of %s, found %s", where, found(key))
	}
	text := fmt.Sprintf("unknown word %.40q in %s", key.Value, where)
	if near := nearestWord(key.Value, words); near != "" {
		return text + fmt.Sprintf("; did you mean %q?", near)
	}
	return text + "; the words are " + strings.Join(words, ", ")
}

func nearestWord(word string, words []string) string {
	if len(word) > 80 {
		return ""
	}
	return nearest.Of(strings.ReplaceAll(strings.ToLower(word), "-", "_"), words)
}

// found says what a value is.
func found(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "words with values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!str":
		return fmt.Sprintf("the text %.40q", n.Value)
	case "!!int", "!!float":
		return fmt.Sprintf("the number %.40s", n.Value)
	}
	return fmt.Sprintf("%.40s", n.Value)
}

func (d *configReader) fillSpecial(n *yaml.Node, v reflect.Value, path string, s special) {
	for word, c := range wordValues(path) {
		if n.Kind == yaml.ScalarNode && n.Value == word {
			v.SetInt(c)
			return
		}
		s.expected += " or " + word
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		d.fault(n.Line, "%s: expected %s, found %s", path, s.expected, found(n))
		return
	}
	value, err := s.parse(n.Value)
	if err != nil {
		text := fmt.Sprintf("%s: expected %s, found %s", path, s.expected, found(n))
		var missing *ackwise.NotFoundError
		if errors.As(err, &missing) && missing.Nearest != "" {
			text += fmt.Sprintf("; did you mean %q?", missing.Nearest)
		}
		d.fault(n.Line, "%s", text)
		return
	}
	v.Set(reflect.ValueOf(value))
}

// fillScalar sets a text, a truth or a number.
func (d *configReader) fillScalar(n *yaml.Node, v reflect.Value, path string) {
	wrong := func(expected string) {
		d.fault(n.Line, "%s: expected %s, found %s", path, expected, found(n))
	}
	tag := ""
	if n.Kind == yaml.ScalarNode {
		tag = n.ShortTag()
	}
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" {
			wrong("a text (in quotes, if it looks like something else)")
			return
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if tag != "!!bool" {
			wrong("true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if err != nil || tag != "!!int" && tag != "!!float" || !(f > 0 && f < 1e18) {
			wrong("a number above 0")
			return
		}
		v.SetFloat(f)
	default:
		words := wordValues(path)
		if c, ok := words[n.Value]; ok && tag == "!!str" {
			v.SetInt(c)
			return
		}
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil || tag != "!!int" || i < 1 {
			expected := []string{"a whole number above 0"}
			wrong(strings.Join(slices.AppendSeq(expected, maps.Keys(words)), " or "))
			return
		}
		v.SetInt(i)
	}
}
