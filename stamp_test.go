package ackwise_test

import (
	"cmp"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
)

func TestStampTextsCompareAsTheStampsDo(t *testing.T) {
	stamps := []ackwise.Stamp{{}, {Node: "a"}, {Counter: 1}, {Counter: 1 << 31}, {Millis: 1},
		{Millis: 1, Node: "a"}, {Millis: 1, Node: "a-b"}, {Millis: 1, Node: "b"},
		{Millis: 1, Counter: 15, Node: "a"}, {Millis: 1, Counter: 16}, {Millis: 1 << 62}}
	for i, a := range stamps {
		for j, b := range stamps {
			want := cmp.Compare(i, j)
			if got := a.Compare(b); got != want {
				t.Errorf("%s to %s compares as %d, want %d", a, b, got, want)
			}
			if got := strings.Compare(a.String(), b.String()); got != want {
				t.Errorf("the texts %s and %s compare as %d, want %d", a, b, got, want)
			}
		}
		back, err := ackwise.ParseStamp(a.String())
		if err != nil || back != a {
			t.Errorf("%s is read back as %v, %v", a, back, err)
		}
	}
}

func TestStampRefusesOtherTexts(t *testing.T) {
	for _, text := range []string{"", "x", strings.Repeat("0", 26), "000000000000000g-00000000-a",
		"0000000000000001-00000000", "0000000000000001-0000000G-a", "000000000000000A-00000000-a",
		"-000000000000001-00000000-a", "+000000000000001-00000000-a", "0000000000000001-00000000-a b",
		"0000000000000001-00000000-" + strings.Repeat("n", 65)} {
		if s, err := ackwise.ParseStamp(text); err == nil {
			t.Errorf("%q is read as %v", text, s)
		}
	}
}
