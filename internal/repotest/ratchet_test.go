package repotest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// exception allows one place to be larger than the rule says, by name. The list may only shrink:
// TestRules fails where a place outgrows its exception, shrinks below it, or needs it no longer.
type exception struct {
	rule string // the rule's name
	key  string // the file, the file and the function, or the package's directory
	size int    // its size now
	why  string // why it is not split yet
}

func exceptions() []exception {
	return []exception{
		{"exported names", "queue", 38, "one import gives users the engine's whole vocabulary; the " +
			"listings can move when a second package needs them"},
		{"exported names", "idempotency", 33, "one import gives the two contracts and the four " +
			"patterns on them; a user meets few of them at once"},
		{"exported names", "client/wire", 31, "one type a request and an answer of the native API"},
	}
}

// judge returns what is wrong with a rule's findings, given the exceptions: what none allows, what
// outgrew its exception, and which exceptions are wider than needed.
func judge(r rule, found []finding, allowed []exception) []string {
	var faults []string
	for _, f := range found {
		i := slices.IndexFunc(allowed, func(e exception) bool {
			return e.rule == r.name && e.key == f.key && f.key != ""
		})
		switch {
		case i < 0:
			faults = append(faults, r.message(f))
		case f.size > allowed[i].size:
			faults = append(faults, fmt.Sprintf("%s (its exception allows %d and may not grow: %s)",
				r.message(f), allowed[i].size, allowed[i].why))
		case f.size < allowed[i].size:
			faults = append(faults, fmt.Sprintf("ratchet_test.go: %s: %q is down to %d: lower its "+
				"exception from %d", r.name, f.key, f.size, allowed[i].size))
		}
	}
	for _, e := range allowed {
		needed := func(f finding) bool { return f.key == e.key }
		if e.rule == r.name && !slices.ContainsFunc(found, needed) {
			faults = append(faults, fmt.Sprintf("ratchet_test.go: %s: %q needs its exception no "+
				"longer: delete it", e.rule, e.key))
		}
	}
	return faults
}

// TestExceptionsOnlyShrink shows the ratchet red in every direction.
func TestExceptionsOnlyShrink(t *testing.T) {
	r := rule{name: "file size", todo: "split it"}
	large := []finding{{path: "a.go", line: 700, what: "700 lines", key: "a.go", size: 700}}
	for _, c := range []struct {
		name    string
		found   []finding
		allowed []exception
		want    string // "" = no fault
	}{
		{"allowed as it is", large, []exception{{"file size", "a.go", 700, "why"}}, ""},
		{"no exception", large, nil, "a.go:700: file size"},
		{"another rule's", large, []exception{{"line length", "a.go", 700, "why"}}, "a.go:700"},
		{"another place's", large, []exception{{"file size", "b.go", 700, "why"}}, "a.go:700"},
		{"grown", large, []exception{{"file size", "a.go", 699, "why"}}, "may not grow: why"},
		{"shrunk", large, []exception{{"file size", "a.go", 701, "why"}}, "down to 700: lower"},
		{"gone", nil, []exception{{"file size", "a.go", 700, "why"}}, "no longer: delete it"},
		{"a place without a size", []finding{{path: "a.go", what: "bad"}},
			[]exception{{"file size", "", 0, "why"}}, "a.go:0: file size: bad"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(judge(r, c.found, c.allowed), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
