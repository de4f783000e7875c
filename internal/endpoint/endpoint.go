// Package endpoint reads the URLs by which pipelines name systems:
//
//	kafka://127.0.0.1:9092/orders?group=billing&password=env:KAFKA_PASSWORD
//	scheme  host           path   options
//
// It promises that every option of a URL was asked for by somebody: Done refuses the others and
// names the nearest. A secret never stands in a URL, only where it is found, and no error shows
// what stands in the place of one. It opens nothing: a Secret is read when it is called.
package endpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise/internal/nearest"
)

// Endpoint is a URL whose options are taken one by one.
type Endpoint struct {
	Scheme string
	Host   string   // as it stands: one or several, with ports or without
	Path   []string // the parts between slashes, decoded; none is empty

	values map[string]string
	asked  []string
	faults []error
}

// Secret reads a secret where it is kept, anew at each call, so that a changed one is found.
type Secret func(ctx context.Context) (string, error)

// Parse reads SCHEME://HOST/PATH?NAME=VALUE&…; a name stands once, and nobody's name or password
// before the host.
func Parse(text string) (*Endpoint, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme == "" {
		return nil, errors.New("it is not a URL such as scheme://host/name")
	}
	rest, fragment, _ := strings.Cut(rest, "#")
	rest, query, _ := strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	switch {
	case strings.Contains(host, "@"):
		return nil, errors.New("a user or a password stands before the host: " +
			"name them as options, a password as env:NAME or file:PATH")
	case fragment != "":
		return nil, errors.New("# has no meaning here; in a name it is written %23")
	}
	e := &Endpoint{Scheme: scheme, Host: host, values: map[string]string{}}
	if path = strings.TrimSuffix(path, "/"); path != "" {
		for part := range strings.SplitSeq(path, "/") {
			decoded, err := url.PathUnescape(part)
			if err != nil || decoded == "" {
				return nil, fmt.Errorf("the path has a part %.40q that is empty or not well encoded", part)
			}
			e.Path = append(e.Path, decoded)
		}
	}
	return e, e.readOptions(query)
}

func (e *Endpoint) readOptions(query string) error {
	if query == "" {
		return nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, ok := strings.Cut(pair, "=")
		decoded, err := url.QueryUnescape(value)
		if !ok || name == "" || err != nil {
			return fmt.Errorf("the option %.40q is not NAME=VALUE, well encoded", name)
		}
		if _, twice := e.values[name]; twice {
			return fmt.Errorf("the option %.40q stands twice", name)
		}
		e.values[name] = decoded
	}
	return nil
}

// Has reports whether an option is given.
func (e *Endpoint) Has(name string) bool {
	_, ok := e.values[name]
	return ok
}

// Text takes an option that is any text.
func (e *Endpoint) Text(name, unset string) string {
	text, ok := e.take(name)
	if !ok {
		return unset
	}
	if text == "" {
		e.Fault("the option %s is empty; leave it out for the default", name)
	}
	return text
}

// List takes an option that is several texts with commas between.
func (e *Endpoint) List(name string) []string {
	text := e.Text(name, "")
	if text == "" {
		return nil
	}
	list := strings.Split(text, ",")
	if slices.Contains(list, "") {
		e.Fault("the option %s has an empty part: it is %s=A,B,…", name, name)
	}
	return list
}

// Word takes an option that is one of some words.
func (e *Endpoint) Word(name, unset string, words ...string) string {
	word, ok := e.take(name)
	if !ok {
		return unset
	}
	if !slices.Contains(words, word) {
		text := fmt.Sprintf("%s=%.40s: it is %s", name, word, strings.Join(words, " or "))
		if near := nearest.Of(word, words); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		e.Fault("%s", text)
	}
	return word
}

// Bool takes an option that is true or false. Unset is false.
func (e *Endpoint) Bool(name string) bool {
	return e.Word(name, "false", "true", "false") == "true"
}

// Int takes an option that is a whole number of a range.
func (e *Endpoint) Int(name string, unset, low, high int) int {
	text, ok := e.take(name)
	if !ok {
		return unset
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		e.Fault("%s=%.40s: it is a whole number from %d to %d", name, text, low, high)
	}
	return n
}

// Duration takes an option that is a duration of a range, such as 30s.
func (e *Endpoint) Duration(name string, unset, low, high time.Duration) time.Duration {
	text, ok := e.take(name)
	if !ok {
		return unset
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < low || d > high {
		e.Fault("%s=%.40s: it is a duration from %s to %s, such as 30s", name, text, low, high)
	}
	return d
}

// Secret takes an option that says where a secret is kept: env:NAME or file:PATH. Unset is nil. A
// file's last line break is not part of the secret.
func (e *Endpoint) Secret(name string) Secret {
	text, ok := e.take(name)
	if !ok {
		return nil
	}
	kind, place, _ := strings.Cut(text, ":")
	if place == "" || kind != "env" && kind != "file" {
		e.Fault("the option %s holds no secret itself: it is env:NAME or file:PATH", name)
		return nil
	}
	return func(context.Context) (string, error) { return read(name, kind, place) }
}

func read(name, kind, place string) (string, error) {
	var value string
	if kind == "env" {
		value = os.Getenv(place)
	} else {
		b, err := os.ReadFile(place)
		if err != nil {
			return "", fmt.Errorf("read the option %s: %w", name, err)
		}
		value = strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	}
	if value == "" {
		return "", fmt.Errorf("read the option %s: %s:%s is empty or not set", name, kind, place)
	}
	return value, nil
}

func (e *Endpoint) take(name string) (string, bool) {
	e.asked = append(e.asked, name)
	value, ok := e.values[name]
	return value, ok
}

// Fault notes what is wrong, for Done. It shows no secret.
func (e *Endpoint) Fault(format string, args ...any) {
	e.faults = append(e.faults, fmt.Errorf(format, args...))
}

// Done returns all that is wrong, or nil; an option that nobody asked for is wrong. form
// is what such a URL looks like.
func (e *Endpoint) Done(form string) error {
	slices.Sort(e.asked)
	for _, name := range slices.Sorted(maps.Keys(e.values)) {
		if slices.Contains(e.asked, name) {
			continue
		}
		if near := nearest.Of(name, e.asked); near != "" {
			e.Fault("there is no option %.40q; did you mean %q?", name, near)
			continue
		}
		e.Fault("there is no option %.40q; the options are %s", name,
			strings.Join(slices.Compact(slices.Clone(e.asked)), ", "))
	}
	if len(e.faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w; it is %s", errors.Join(e.faults...), form)
}
