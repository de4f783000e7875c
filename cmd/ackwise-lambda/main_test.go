package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// bootstrap builds the binary once, as the documentation says, and returns its path.
var bootstrap = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ackwise-lambda-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "bootstrap")
	cmd := exec.Command("go", "build", "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w",
		"-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := bootstrap(); path != "" {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			code = 1
		}
	}
	os.Exit(code)
}

func built(t *testing.T) string {
	t.Helper()
	path, err := bootstrap()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSize: the binary is at most 15 MB, static, and does without cgo.
func TestSize(t *testing.T) {
	info, err := os.Stat(built(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > 15_000_000 {
		t.Errorf("bootstrap has %d bytes, at most 15,000,000 are allowed", info.Size())
	}
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", built(t)).Output()
	if err != nil || !bytes.Contains(out, []byte("CGO_ENABLED=0")) {
		t.Errorf("go version -m: %v\n%s", err, out)
	}
	for _, lib := range []string{"franz-go", "pgx", "go-redis", "prometheus", "kong"} {
		if bytes.Contains(out, []byte(lib)) {
			t.Errorf("bootstrap contains %s", lib)
		}
	}
}

// read runs --check with variables.
func check(vars ...string) (int, string) {
	var out bytes.Buffer
	code := run([]string{"--check"}, vars, &out, &out)
	return code, out.String()
}

func TestBreaker(t *testing.T) {
	for value, want := range map[string]bool{"": false, "on": false, "off": true} {
		c, err := readConfig([]string{"ACKWISE_TO=sqs://eu-central-1/orders", "ACKWISE_BREAKER=" + value})
		if err != nil || c.deliver.Breaker.Off != want {
			t.Errorf("ACKWISE_BREAKER=%s: off %v, %v", value, c.deliver.Breaker.Off, err)
		}
	}
}

func TestCheck(t *testing.T) {
	good := []string{"PATH=/bin", "ACKWISE_TO=nakadi://nakadi.example.org/orders?token=env:TOKEN",
		"ACKWISE_DEAD=sqs://eu-central-1/dead", "ACKWISE_MAX_FAILURES=unlimited", "ACKWISE_MARGIN=3s",
		"ACKWISE_DEDUP=dynamodb://eu-central-1/dedup?name=orders", "ACKWISE_ANSWER=whole",
		"ACKWISE_BACKOFF_FIRST=1s", "ACKWISE_BACKOFF_CAP=20s", "ACKWISE_LOG=debug", "ACKWISE_BREAKER=off",
		"ACKWISE_TRANSFORM_SET_HEADERS=a=b,c=d", "ACKWISE_TRANSFORM_CLOUD_EVENTS=binary",
		"ACKWISE_TRANSFORM_EVENT_SOURCE=/orders", "ACKWISE_TRANSFORM_EVENT_TYPE=changed"}
	if code, text := check(good...); code != exitOK {
		t.Errorf("%d: %s", code, text)
	}
	to := "ACKWISE_TO=sqs://eu-central-1/orders"
	for vars, want := range map[string]string{
		"":                                                          "ACKWISE_TO is not set",
		"ACKWISE_TO=kafka://h/t":                                    "kafka:// is not in this binary; the targets are sqs://REGION",
		"ACKWISE_TO=dynamodb://r/t":                                 "dynamodb:// is not in this binary",
		"ACKWISE_TO=-":                                              "it is not an address",
		"ACKWISE_TO=nakady://h/t":                                   `did you mean "nakadi://"?`,
		"ACKWISE_TO=sqs://eu-central-1/":                            "the name is missing",
		"ACKWISE_TO=http://example.org/":                            "http://",
		to + " ACKWISE_DEAD=file:///x":                              "ACKWISE_DEAD: file:// is not in this binary",
		to + " ACKWISE_DEDUP=redis://h":                             "redis:// is not in this binary; the dedup store is dynamodb://",
		to + " ACKWISE_DEDUP=dynamodb://eu-central-1/t":             "name",
		to + " ACKWISE_MAX_FAILURE=3":                               "did you mean ACKWISE_MAX_FAILURES?",
		to + " ACKWISE_QQQQQQQQQQQQ=3":                              "--help lists them",
		to + " ACKWISE_MAX_FAILURES=0":                              "nor unlimited",
		to + " ACKWISE_MARGIN=3":                                    "not a duration",
		to + " ACKWISE_ANSWER=hole":                                 `did you mean "whole"?`,
		to + " ACKWISE_BREAKER=offf":                                `did you mean "off"?`,
		to + " ACKWISE_LOG=loud":                                    "not one of debug",
		to + " ACKWISE_CONCURRENCY=0":                               "from 1 to 1000",
		to + " ACKWISE_BACKOFF_CAP=1ms":                             "less than ACKWISE_BACKOFF_FIRST",
		to + " ACKWISE_TRANSFORM_KEY_FIELD=a..b":                    "KeyField",
		to + " ACKWISE_TRANSFORM_KEY_FIELD=a ACKWISE_CONCURRENCY=2": "the order of the new keys is lost",
		to + " ACKWISE_TRANSFORM_SET_HEADERS=a":                     "NAME=VALUE",
		to + " ACKWISE_TRANSFORM_CLOUD_EVENTS=binry":                `did you mean "binary"?`,
	} {
		code, text := check(strings.Fields(vars)...)
		if code != exitFinding || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %q", vars, code, text, want)
		}
	}
	code, text := check("ACKWISE_TO=kafka://h/t", "ACKWISE_MARGIN=x", "ACKWISE_DAED=y")
	if code != exitFinding || strings.Count(text, "\n") != 3 {
		t.Errorf("not every fault is told at once: %s", text)
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, exitOK, "ACKWISE_MAX_FAILURES"},
		{[]string{"--chek"}, exitUsage, "--check or --help"},
		{[]string{"--check", "x"}, exitUsage, "--check or --help"},
		{nil, exitUsage, "AWS_LAMBDA_RUNTIME_API is not set"},
	} {
		var out bytes.Buffer
		code := run(c.args, nil, &out, &out)
		if code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: %d\n%s", c.args, code, &out)
		}
	}
}

// TestEveryVariableIsExplained: the help and the page name each one.
func TestEveryVariableIsExplained(t *testing.T) {
	page, err := os.ReadFile("../../docs/systems/lambda.md")
	if err != nil {
		t.Fatal(err)
	}
	text := help()
	for _, v := range variables() {
		name := "ACKWISE_" + v.name
		if !strings.Contains(text, "  "+name+"\n") || !bytes.Contains(page, []byte(name)) {
			t.Errorf("%s is not explained", name)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	for _, to := range []string{"hunter2", "user:hunter2@example.org",
		"https://user:hunter2@example.org/x", "nakadi://example.org/t?token=hunter2"} {
		if _, err := readConfig([]string{"ACKWISE_TO=" + to}); err == nil ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", to, err)
		}
	}
}
