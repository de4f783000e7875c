package endpoint

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAllKindsOfOptions(t *testing.T) {
	e, err := Parse("kafka://a:1,b:2/orders%2Fnew/x?group=g%20h&tls=true&n=7" +
		"&wait=30s&sasl=plain&l=a,b")
	if err != nil {
		t.Fatal(err)
	}
	if e.Scheme != "kafka" || e.Host != "a:1,b:2" ||
		!slices.Equal(e.Path, []string{"orders/new", "x"}) {
		t.Errorf("read %+v", e)
	}
	if g, u := e.Text("group", ""), e.Text("unset", "u"); g != "g h" || u != "u" {
		t.Errorf("texts %q %q", g, u)
	}
	if !e.Bool("tls") || e.Bool("other") {
		t.Error("a truth is read wrongly")
	}
	n, w := e.Int("n", 1, 0, 9), e.Duration("wait", 0, 0, time.Hour)
	if n != 7 || w != 30*time.Second {
		t.Errorf("numbers %d %s", n, w)
	}
	if w, l := e.Word("sasl", "", "plain", "scram"), e.List("l"); w != "plain" || len(l) != 2 {
		t.Errorf("words %q %q", w, l)
	}
	if err := e.Done("kafka://HOST/TOPIC"); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	for text, want := range map[string]string{
		"orders":                        "not a URL",
		"kafka://me:pw@host/t":          "before the host",
		"kafka://h/t#x":                 "%23",
		"kafka://h//t":                  "empty",
		"kafka://h/t?group":             "NAME=VALUE",
		"kafka://h/t?group=a&group=b":   "twice",
		"kafka://h/t?gruop=a":           `did you mean "group"?`,
		"kafka://h/t?zzzzzz=a":          "the options are",
		"kafka://h/t?n=99":              "from 0 to 9",
		"kafka://h/t?wait=-1s":          "from 0s to 1h0m0s",
		"kafka://h/t?sasl=plane":        `did you mean "plain"?`,
		"kafka://h/t?group=":            "is empty",
		"kafka://h/t?password=hunter2x": "env:NAME or file:PATH",
		"kafka://h/t?l=a,,b":            "empty part",
	} {
		e, err := Parse(text)
		if err == nil {
			e.Text("group", "")
			e.Int("n", 0, 0, 9)
			e.Duration("wait", 0, 0, time.Hour)
			e.Word("sasl", "", "plain", "scram")
			e.Secret("password")
			e.List("l")
			err = e.Done("kafka://HOST/TOPIC")
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2x") ||
			strings.Contains(err.Error(), "pw")) {
			t.Errorf("%s: a secret is shown: %v", text, err)
		}
	}
}

func TestSecretsAreReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	e, err := Parse("kafka://h/t?a=env:ACKWISE_TEST_SECRET&b=file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	a, b, none := e.Secret("a"), e.Secret("b"), e.Secret("c")
	if none != nil {
		t.Error("a secret that is not set is there")
	}
	for _, s := range []Secret{a, b} {
		if v, err := s(t.Context()); err == nil {
			t.Errorf("a missing secret is %q", v)
		}
	}
	for _, value := range []string{"one", "two"} {
		t.Setenv("ACKWISE_TEST_SECRET", value)
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, s := range []Secret{a, b} {
			if v, err := s(t.Context()); v != value || err != nil {
				t.Errorf("read %q, %v", v, err)
			}
		}
	}
}
