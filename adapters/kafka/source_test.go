package kafka_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
)

// TestParseSourceRefuses: each fault is named, and none of a URL's faults hides another.
func TestParseSourceRefuses(t *testing.T) {
	t.Setenv("SECRET", "do-not-show")
	for url, wants := range map[string][]string{
		"kafka:///orders?group=g":               {"no broker stands"},
		"kafka://b/?group=g":                    {"0 topics"},
		"kafka://b/a/b?group=g":                 {"2 topics"},
		"kafka://b/o?group=g&sasl=plain":        {"needs user=NAME"},
		"kafka://b/o?group=g&user=u":            {"need sasl=plain"},
		"kafka://b/o?group=g&ca=x.pem":          {"set tls=true"},
		"kafka://b/o?group=g&password=secret":   {"env:NAME or file:PATH"},
		"kafka://b/or ders":                     {`"or ders" is no topic's name`, "invalid group"},
		"kafka://b/o?group=g&protocol=consumr":  {`did you mean "consumer"?`},
		"kafka://b/o?group=g&drain=2m":          {"not shorter than rebalance-timeout"},
		"kafka://b/o?group=g&records=5":         {"mode=share"},
		"kafka://b/o?group=g&start=x&journal=y": {"start=x", "journal=y"},
		"kafka://b:/o?group=g":                  {"is not HOST or HOST:PORT"},
		"kafkas://b/o?group=g":                  {"is not kafka"},
		"kafka://b/o?mode=share&group=g&instance=i&on-trimmed=skip": {
			"protocol and instance", "does not tell what was trimmed"},
	} {
		_, err := kafka.ParseSource(url)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", url, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "do-not-show") {
			t.Errorf("%s: a secret in %v", url, err)
		}
	}
}

// TestOpenSourceRefuses: what is missing is named, with what to do.
func TestOpenSourceRefuses(t *testing.T) {
	t.Setenv("SECRET", "wrong")
	old := kversion.V3_0_0()
	p := fakePlace(t, 1, "classic")
	bad := fakePlace(t, 1, "consumer", kfake.MaxVersions(old))
	sasl := startSASL(t)
	for _, test := range []struct{ url, want string }{
		{strings.Replace(p.url(""), p.topic, p.topic[:12]+"x", 1), `did you mean "` + p.topic + `"?`},
		{bad.url(""), "protocol=consumer"},
		{bad.share(""), "mode=share"},
		{"kafka://127.0.0.1:1/t?group=g&dial-timeout=1s", "check that a broker listens at 127.0.0.1:1"},
		{"kafka://" + sasl + "/t?group=g&sasl=plain&user=u&password=env:SECRET",
			"sasl, user and password"},
		{"kafka://" + sasl + "/t?group=g&sasl=plain&user=u&password=env:NOT_SET_AT_ALL",
			"env:NOT_SET_AT_ALL is empty or not set"},
	} {
		o, err := kafka.ParseSource(test.url)
		if err != nil {
			t.Fatal(err)
		}
		s, err := kafka.OpenSource(t.Context(), o)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) ||
			strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: got %v, want %q", test.url, err, test.want)
		}
	}
	missing, err := kafka.ParseSource(strings.Replace(p.url("&create=true"), p.topic, "new", 1))
	if err != nil {
		t.Fatal(err)
	}
	s, err := kafka.OpenSource(t.Context(), missing)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !errors.Is(s.Settle(t.Context(), []ackwise.Settlement{{}})[0].Err, ackwise.ErrLeaseLost) {
		t.Error("a closed source settles")
	}
}

func startSASL(t *testing.T) string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "u", "right"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return strings.Join(c.ListenAddrs(), ",")
}
