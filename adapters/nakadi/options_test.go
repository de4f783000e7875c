package nakadi_test

import (
	"strings"
	"testing"

	"github.com/ackwise/ackwise/adapters/nakadi"
)

func TestWhatIsWrongInAURL(t *testing.T) {
	for text, want := range map[string]string{
		"kafka://h/t":                      "scheme",
		"nakadi://h/t?tokne=env:A":         `did you mean "token"?`,
		"nakadi://h/t?token=hunter2":       "env:NAME or file:PATH",
		"nakadi:///t":                      "host",
		"nakadi://h/a/b":                   "2 parts",
		"nakadi://h/9":                     "EventType",
		"nakadi://h/t?wrap=bdy":            `did you mean "body"?`,
		"nakadi://h/t?data_type=x":         "DataType",
		"nakadi://h/t?wrap=data&data_op=X": "data_op",
		"nakadi://h/t?max_batch=0":         "max_batch",
	} {
		_, err := nakadi.ParseSink(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is shown: %v", err)
		}
	}
	for text, want := range map[string]string{
		"nakadi://h": "either the subscription's ID",
		"nakadi://h?subscription=a&event_types=b":              "either the subscription's ID",
		"nakadi://h?event_types=b":                             "go together",
		"nakadi://h/t?subscription=a":                          "no path",
		"nakadi://h?subscription=a&create=true":                "there already",
		"nakadi://h?subscription=a&subscripton=b":              `did you mean "subscription"?`,
		"nakadi://h?subscription=a&notes=DIR":                  "file:DIRECTORY",
		"nakadi://h?subscription=a&commit_timeout=1500ms":      "full seconds",
		"nakadi://h?subscription=a&read_from=star":             "begin or end",
		"nakadi://h?subscription=a&keep_alive=1ms&drain=2h":    "drain",
		"nakadi://a,b?subscription=a":                          "one host",
		"nakadi://h?subscription=a&max_uncommitted=9999999999": "max_uncommitted",
	} {
		if _, err := nakadi.ParseSource(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
