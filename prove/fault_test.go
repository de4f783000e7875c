package prove

import (
	"errors"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
)

func TestScheduleIsReadAsItIsWritten(t *testing.T) {
	for _, text := range []string{"", "1:again", "1:again+late", "2:lost+late", "1:crash@0",
		"3:fail@2+late", "1:unsure@4", "1:stall@1 2:race@2 2:orphan@3 3:beside@1"} {
		s, err := parseSchedule(text, 3)
		if err != nil || s.String() != text {
			t.Errorf("%q: got %q, %v", text, s, err)
		}
	}
	s, err := parseSchedule(" 2:lost  1:crash@3 2:again", 3)
	if err != nil || s.String() != "1:crash@3 2:lost 2:again" {
		t.Errorf("got %q, %v: want them by message, those of one message in their order", s, err)
	}
}

func TestBadSchedulesAreRefused(t *testing.T) {
	for text, reason := range map[string]string{
		"crash":         "MESSAGE:KIND@POINT is expected",
		"1":             "the kinds are",
		"1:boom@2":      "the kinds are",
		"0:again":       "there are 3 messages",
		"4:again":       "there are 3 messages",
		"1:crash":       "a point is needed, such as crash@2",
		"1:crash@-1":    "a point is needed",
		"1:crash@x":     "a point is needed",
		"1:again@2":     "this kind has no point",
		"1:race@2+late": "comes late only after",
	} {
		_, err := parseSchedule(text, 3)
		if _, ok := errors.AsType[*ackwise.InvalidError](err); !ok ||
			!strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: got %v, want %q", text, err, reason)
		}
	}
}

func TestDifferencesNameTheirPlace(t *testing.T) {
	want, err := pictureOf(map[string]any{"a": map[string]any{"b": 1, "c": []int{1, 2}}, "gone": nil})
	if err != nil {
		t.Fatal(err)
	}
	got, err := pictureOf(map[string]any{"a": map[string]any{"b": "1", "c": []int{1, 3, 4}},
		"new": map[string]int{}})
	if err != nil {
		t.Fatal(err)
	}
	const text = `Title:
  a.b    want 1, got "1"
  a.c.2  want 2, got 3
  a.c.3  want nothing, got 4
  gone   want null, got nothing
  new    want nothing, got {}
`
	if shown := differencesText("Title", want.differences(got)); shown != text {
		t.Errorf("got:\n%s\nwant:\n%s", shown, text)
	}
	if _, err := pictureOf(func() {}); err == nil {
		t.Error("a func is no picture")
	}
}
