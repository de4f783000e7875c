package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

const (
	secretEnv = "ACKWISE_TEST_WEBHOOK_SECRET"
	secretOne = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
	secretTwo = "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"
)

// receiver is a strict one: it believes no request that is not signed as Standard Webhooks asks.
type receiver struct {
	*httptest.Server
	ca string // the file of its certificate

	mu     sync.Mutex // guards all below
	secret string     // that has to have signed; "" = nobody
	answer func(w http.ResponseWriter, n int)
	got    []request
	faults []string
}

type request struct {
	id, body, path string
	header         http.Header
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	r.ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})
	if err := os.WriteFile(r.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	r.mu.Lock()
	if fault := r.check(req, body); fault != "" || err != nil {
		r.faults = append(r.faults, fmt.Sprint(fault, err))
	}
	r.got = append(r.got, request{req.Header.Get("webhook-id"), string(body),
		req.URL.RequestURI(), req.Header.Clone()})
	n, answer := len(r.got), r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(w, n)
	}
}

// check is the receiver's side of Standard Webhooks.
func (r *receiver) check(req *http.Request, body []byte) string {
	id, stamp := req.Header.Get("webhook-id"), req.Header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	switch {
	case req.Method != http.MethodPost:
		return "the method is " + req.Method
	case id == "":
		return "there is no ID"
	case err != nil || time.Since(time.Unix(seconds, 0)).Abs() > 5*time.Minute:
		return "the timestamp is " + stamp
	case r.secret == "":
		return ""
	}
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	for one := range strings.SplitSeq(req.Header.Get("webhook-signature"), " ") {
		sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1,"))
		if err == nil && hmac.Equal(sum, mac.Sum(nil)) {
			return ""
		}
	}
	return "no signature is right"
}

func (r *receiver) requests(t *testing.T) []request {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fault := range r.faults {
		t.Error("the receiver refuses: " + fault)
	}
	return r.got
}

// address is the receiver's, with options.
func (r *receiver) address(options string) string {
	return r.URL + "/hook?ca=" + r.ca + "&allow_private=true" + options
}

func open(t *testing.T, address string) *Sink {
	t.Helper()
	o, err := ParseSink(address)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.(*Sink)
}

// publish publishes one message.
func publish(t *testing.T, s *Sink, m ackwise.Message) ackwise.Result {
	t.Helper()
	results := s.Publish(t.Context(), []ackwise.Message{m})
	if len(results) != 1 {
		t.Fatalf("%d results for one message", len(results))
	}
	return results[0]
}
