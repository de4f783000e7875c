package awsconn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
)

// bare takes away all that the default chain could find.
func bare(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(dir, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(dir, "credentials"))
}

func TestLoadNamesWhatIsMissing(t *testing.T) {
	bare(t)
	_, err := Load(t.Context(), Options{Region: "eu-central-1"})
	var hint *ackwise.HintError
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "AWS_ACCESS_KEY_ID") {
		t.Errorf("no credentials: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-secret")
	if _, err := Load(t.Context(), Options{Region: "eu-central-1"}); err != nil {
		t.Errorf("with credentials: %v", err)
	}
	t.Setenv("AWS_PROFILE", "nobody")
	_, err = Load(t.Context(), Options{Region: "eu-central-1"})
	if err == nil || !strings.Contains(err.Error(), "nobody") || strings.Contains(err.Error(),
		"secret-s") {
		t.Errorf("no such profile: %v", err)
	}
}

func TestValidate(t *testing.T) {
	for text, want := range map[string]string{
		"":            `invalid region: it is missing`,
		"eu_central1": `did you mean "eu-central-1"?`,
		"host:9324":   `it is not a region`,
	} {
		if err := (Options{Region: text}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("region %q: %v, want %s", text, err, want)
		}
	}
	for _, endpoint := range []string{"127.0.0.1:1", "ftp://a", "http://u:secret@a", "http://a?b=c"} {
		err := Options{Region: "us-east-1", Endpoint: endpoint}.Validate()
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("endpoint %q: %v", endpoint, err)
		}
	}
	if err := (Options{Region: "xx-new-9", Endpoint: "http://[::1]:1"}).Validate(); err != nil {
		t.Error(err)
	}
}

// call makes a call that the server answers with a status and a code.
func call(t *testing.T, status int, code string) error {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":"no"}`, code)
	}))
	defer server.Close()
	bare(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	c, err := Load(t.Context(), Options{Region: "eu-central-1", Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	client := sqs.NewFromConfig(c, func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
	_, err = client.GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q")})
	return err
}

func TestKinds(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		want   Kind
	}{
		"denied":    {400, "AccessDeniedException", Denied},
		"unknown":   {403, "UnrecognizedClientException", Credentials},
		"throttled": {400, "RequestThrottled", Throttled},
		"too fast":  {400, "ThrottlingException", Throttled},
		"server":    {500, "InternalError", ServerFault},
		"other":     {400, "QueueDoesNotExist", Other},
	} {
		t.Run(name, func(t *testing.T) {
			err := call(t, c.status, c.code)
			if got := KindOf(err); got != c.want {
				t.Errorf("%v is %d, want %d", err, got, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		err  error
		want Kind
	}{
		"no host":  {&net.DNSError{Err: "no such host"}, Unreached},
		"no dial":  {&net.OpError{Op: "dial", Err: errors.New("refused")}, Unreached},
		"read":     {&net.OpError{Op: "read", Err: errors.New("reset")}, Interrupted},
		"canceled": {context.Canceled, Interrupted},
		"tls":      {x509.UnknownAuthorityError{}, Untrusted},
	} {
		if got := KindOf(fmt.Errorf("call: %w", c.err)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestExplain(t *testing.T) {
	asked := Asked{Action: "sqs:ReceiveMessage", Resource: "the queue orders", Region: "eu-centrl-1"}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"denied": {&smithy.GenericAPIError{Code: "AccessDenied"},
			"the permission sqs:ReceiveMessage on the queue orders"},
		"expired": {&smithy.GenericAPIError{Code: "ExpiredToken"}, "have run out"},
		"region":  {&net.DNSError{}, `Did you mean "eu-central-1"?`},
		"tls":     {x509.UnknownAuthorityError{}, "AWS_CA_BUNDLE"},
		"cut":     {io.EOF, "call sqs:ReceiveMessage for the queue orders in eu-centrl-1: EOF"},
		"plain":   {reset(), "call sqs:ReceiveMessage for the queue orders in eu-centrl-1: reset"},
	} {
		got := Explain(c.err, asked)
		if !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
	asked.Endpoint = "http://127.0.0.1:1"
	if got := Explain(&net.OpError{Op: "dial", Err: reset()}, asked); !strings.Contains(got.Error(),
		"Nobody answers at the endpoint http://127.0.0.1:1") {
		t.Error(got)
	}
	if Explain(nil, asked) != nil {
		t.Error("nil is explained")
	}
}

func reset() error { return &plain{} }

type plain struct{}

func (*plain) Error() string { return "reset" }
