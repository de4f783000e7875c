package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise/test/nakadi"
)

// nakadiTarget is a target that looks for its event type when it is opened.
func nakadiTarget(t *testing.T) (*nakadi.Server, string) {
	t.Helper()
	s, err := nakadi.New(nakadi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	t.Cleanup(func() { _ = s.Close() })
	res, err := http.Post(h.URL+"/event-types", "application/json", strings.NewReader(
		`{"name":"orders","owning_application":"test","category":"undefined",
		"schema":{"type":"json_schema","schema":"{}"}}`))
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("create the event type: %v %v", err, res)
	}
	_ = res.Body.Close()
	return s, "nakadi://" + strings.TrimPrefix(h.URL, "http://") + "/orders?tls=false"
}

// A target that does not answer at the start is asked again until it does.
func TestRedriveOnceTargetComesBack(t *testing.T) {
	dir, ids := deadOf(t, 3)
	s, to := nakadiTarget(t)
	s.Inject(nakadi.Fault{Kind: nakadi.Status, Code: http.StatusServiceUnavailable, On: "types",
		Times: 2})
	r := run(t, "", "redrive", "--once", redriveFile(t, dir, "to: "+to, "deadline: 50s"))
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 3 || left(sum) != 0 || !sum.Drained {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	if n := s.Fired(nakadi.Status); n != 2 || !strings.Contains(r.err, "does not answer") {
		t.Errorf("%d calls were refused; said was\n%s", n, r.err)
	}
	if copies := s.Copies("orders"); len(copies) != len(ids) {
		t.Errorf("the target has %v", copies)
	}
}

// What does not answer until the deadline leaves the letters to the next run.
func TestRedriveOnceNobodyAnswers(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	dir, _ := deadOf(t, 3)
	away := "sqs://eu-central-1/q?endpoint=" + url.QueryEscape("http://127.0.0.1:1")
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer silent.Close()
	for name, c := range map[string]struct {
		from, to, more string
		left           int64
	}{
		"the target": {"queue://" + dir + "/orders/s", away, "", 3},
		"a target that is silent": {"queue://" + dir + "/orders/s",
			"nakadi://" + strings.TrimPrefix(silent.URL, "http://") + "/t?tls=false", "", 3},
		"the source":                         {away, "file://" + dir + ".out", "", -1},
		"the source, which is to be renewed": {away, "file://" + dir + ".out", ", renew: 1h", -1},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			r := run(t, "", "redrive", "--once", writeFile(t, "r.yaml", fmt.Sprintf(
				"redrive:\n  - {name: r, from: %q, to: %q, deadline: 2s%s}\n", c.from, c.to, c.more)))
			if sum := summary(t, r); r.code != 4 || left(sum) != c.left || sum.Accepted != 0 ||
				sum.Drained || sum.Error != "" {
				t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
			}
			if took := time.Since(start); took < 2*time.Second {
				t.Errorf("it gave up after %s", took)
			}
		})
	}
}

// What is wrong with the configuration ends a run at once, and does not hide what is left.
func TestRedriveOnceWrongTarget(t *testing.T) {
	dir, _ := deadOf(t, 3)
	s, to := nakadiTarget(t)
	for name, c := range map[string]struct{ to, part string }{
		"no such type":    {strings.Replace(to, "/orders", "/ordres", 1), "does not exist"},
		"no token":        {to + "&token=env:NO_SUCH_THING", "NO_SUCH_THING"},
		"not allowed":     {to, "403"},
		"not of this run": {"file:///dev/null/x", "/dev/null/x"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "not allowed" {
				s.Inject(nakadi.Fault{Kind: nakadi.Status, Code: http.StatusForbidden, On: "types"})
				defer s.Heal()
			}
			r := run(t, "", "redrive", "--once", redriveFile(t, dir, "to: "+c.to, "deadline: 50s"))
			if sum := summary(t, r); r.code != 1 || left(sum) != 3 || sum.Seconds > 40 ||
				!strings.Contains(sum.Error, c.part) {
				t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
			}
		})
	}
}

// A letter that goes back to where it came from would go round until the deadline.
func TestRedriveOntoItself(t *testing.T) {
	for _, c := range []struct {
		from, to string
		same     bool
	}{
		{"sqs://eu-central-1/q", "sqs://eu-central-1/q?create=true", true},
		{"sqs://eu-central-1/q?wait=1s&lease=5s", "sqs://eu-central-1/q/", true},
		{"sqs://eu-central-1/q?account=123456789012", "sqs://eu-central-1/q?account=123456789012&calls=2",
			true},
		{"kafka://a:9092,b:9092/t?group=g", "kafka://B:9092/t", true},
		{"kafka://a:9092/t,u?group=g", "kafka://a:9092/u", true},
		{"sqs://eu-central-1/q", "sqs://eu-central-1/Q", false},
		{"sqs://eu-central-1/q", "sqs://eu-west-1/q", false},
		{"sqs://eu-central-1/q", "sqs://eu-central-1/q?account=123456789012", false},
		{"sqs://eu-central-1/q?endpoint=http://a:1", "sqs://eu-central-1/q?endpoint=http://b:1", false},
		{"kafka://a:9092/t?group=g", "kafka://b:9092/t", false},
		{"sqs://eu-central-1/q", "sns://eu-central-1/q", false},
	} {
		_, err := parseConfig("f", []byte(fmt.Sprintf("redrive:\n  - {name: r, from: %q, to: %q}\n",
			c.from, c.to)))
		same := err != nil && strings.Contains(err.Error(), "it is where the letters come from")
		if same != c.same || err != nil && !same {
			t.Errorf("%s to %s: %v", c.from, c.to, err)
		}
	}
}
