package attr_test

import (
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

func TestGroupsAndDedupIDs(t *testing.T) {
	seen := map[string]string{}
	for _, key := range []string{"N12345", `{"id":{"S":"N12345"}}`, strings.Repeat("k", 128),
		strings.Repeat("k", 129), "a b", "~", "ü", "\x00", "\xff", strings.Repeat("k", 1024)} {
		g := attr.Group(&ackwise.Message{ID: "1", Key: key})
		if len(g) == 0 || len(g) > 128 || strings.ContainsFunc(g, func(r rune) bool {
			return r <= ' ' || r > '~'
		}) {
			t.Errorf("the key %q has the group %q", key, g)
		}
		if other, twice := seen[g]; twice {
			t.Errorf("%q and %q share the group %q", key, other, g)
		}
		seen[g] = key
		plain := len(key) <= 128 && !strings.ContainsAny(key, " \x00ü~") && key != "\xff"
		if plain && g != key {
			t.Errorf("the key %q could be its own group, it is %q", key, g)
		}
		if d := attr.DedupID(&ackwise.Message{ID: key}); d != g {
			t.Errorf("the ID %q is deduplicated by %q", key, d)
		}
	}
	a, b := attr.Group(&ackwise.Message{ID: "1"}), attr.Group(&ackwise.Message{ID: "2"})
	if a == b || len(a) > 128 {
		t.Errorf("two messages without key have the groups %q and %q", a, b)
	}
	m := ackwise.Message{ID: "1"}
	for _, h := range []string{ackwise.HeaderEpoch, ackwise.HeaderRedrives, ackwise.HeaderPipeline} {
		again := m
		again.Headers = []ackwise.Header{{Name: h, Value: []byte("1")}}
		if attr.DedupID(&again) == attr.DedupID(&m) {
			t.Errorf("a message with %s would be swallowed as a repeated one", h)
		}
	}
}
