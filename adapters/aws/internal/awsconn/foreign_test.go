package awsconn

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/test/servers"
)

// hintAt asks three services at an endpoint and returns the hints, by the service's name.
func hintAt(t *testing.T, endpoint string) map[string]string {
	t.Helper()
	bare(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	c, err := Load(t.Context(), Options{Region: "eu-central-1", Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	hints := map[string]string{}
	for _, s := range []struct {
		name, action string
		call         func(context.Context) error
	}{
		{"SQS", "sqs:GetQueueUrl", func(ctx context.Context) error {
			_, err := sqs.NewFromConfig(c).GetQueueUrl(ctx, &sqs.GetQueueUrlInput{
				QueueName: aws.String("q")})
			return err
		}},
		{"SNS", "sns:ListTopics", func(ctx context.Context) error {
			_, err := sns.NewFromConfig(c).ListTopics(ctx, &sns.ListTopicsInput{})
			return err
		}},
		{"DynamoDB", "dynamodb:DescribeTable", func(ctx context.Context) error {
			_, err := dynamodb.NewFromConfig(c).DescribeTable(ctx, &dynamodb.DescribeTableInput{
				TableName: aws.String("q")})
			return err
		}},
	} {
		err := Explain(s.call(t.Context()), Asked{Action: s.action, Resource: "it",
			Region: "eu-central-1", Endpoint: endpoint})
		if err == nil {
			t.Fatalf("%s: no error", s.name)
		}
		hints[s.name] = ""
		t.Logf("%s: %v", s.name, err)
		if h, ok := errors.AsType[*ackwise.HintError](err); ok {
			hints[s.name] = h.Hint
		}
	}
	return hints
}

// TestAnotherServer: an endpoint at which something else listens is named, with what it should be.
func TestAnotherServer(t *testing.T) {
	serve := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	cut := func(body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	for name, c := range map[string]struct{ endpoint, want string }{
		"a page":       {serve(200, "<html>"), "does not speak"},
		"not found":    {serve(404, "404 page not found\n"), "does not speak"},
		"no body":      {serve(400, ""), "does not speak"},
		"other JSON":   {serve(404, `{"error":"x"}`), "does not speak"},
		"another way":  {greeter(t), "does not speak"},
		"no TLS there": {strings.Replace(serve(200, ""), "http:", "https:", 1), "begin with http://"},
		"TLS there":    {"http://" + secure.Listener.Addr().String(), "begin with https://"},
		"a reset":      {resetter(t), "begin with https://"},
		"a gateway":    {serve(502, "<html>"), ""}, // it may be the service behind it that is away
		"a cut answer": {cut(`{"QueueUrl": "`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for service, hint := range hintAt(t, c.endpoint) {
				wrong := c.want == "" && hint != ""
				if wrong || !strings.Contains(hint, c.want) {
					t.Errorf("%s: the hint %q, want %q", service, hint, c.want)
				}
				if c.want != "" && (!strings.Contains(hint, c.endpoint) ||
					c.want == "does not speak" && !strings.Contains(hint, service)) {
					t.Errorf("%s: the hint %q names endpoint and service", service, hint)
				}
			}
		})
	}
	// Without an endpoint of the user's it is something on the way.
	away := &smithy.GenericAPIError{Code: "UnknownError"}
	if err := Explain(away, Asked{Action: "sqs:GetQueueUrl"}); !strings.Contains(err.Error(),
		"Perhaps a proxy") {
		t.Errorf("no endpoint: %v", err)
	}
}

// resetter is the address of a server that resets each connection.
func resetter(t *testing.T) string {
	return listening(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.(*net.TCPConn).SetLinger(0)
	})
}

// greeter is the address of a server of another protocol.
func greeter(t *testing.T) string {
	return listening(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1<<16)) // the client cannot tell of what comes before it asks
		io.WriteString(conn, "220 good day\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
}

func listening(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	return "http://" + servers.Listen(t, serve)
}

// TestNoSuchProfile: who named a profile that is not there is told where it was looked for.
func TestNoSuchProfile(t *testing.T) {
	bare(t)
	t.Setenv("AWS_PROFILE", "nobody")
	dir := t.TempDir()
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "c"))
	_, err := Load(t.Context(), Options{Region: "eu-central-1"})
	hint, ok := errors.AsType[*ackwise.HintError](err)
	if !ok {
		t.Fatalf("no hint: %v", err)
	}
	for _, want := range []string{"AWS_PROFILE", "[profile nobody]", filepath.Join(dir, "c"),
		"credentials"} {
		if !strings.Contains(hint.Hint, want) {
			t.Errorf("%q lacks %q", hint.Hint, want)
		}
	}
}
