package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/ackwise/ackwise"
)

// Names of Standard Webhooks, and of what tells a body that is missing from an empty one.
const (
	headerID        = "webhook-id"
	headerTimestamp = "webhook-timestamp"
	headerSignature = "webhook-signature"
	headerNoBody    = "ackwise-body" // "none": the message has no body (a tombstone)
)

// allowed reports whether a message's header is sent. name is in small letters.
func (s *Sink) allowed(name string) bool {
	return !reserved(name) && slices.ContainsFunc(s.names, func(n string) bool {
		prefix, many := strings.CutSuffix(n, "*")
		return name == n || many && strings.HasPrefix(name, prefix)
	})
}

// reserved reports whether a header is this sink's own, or HTTP's, to set.
func reserved(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "webhook-") || strings.HasPrefix(name, "proxy-") ||
		slices.Contains([]string{"host", "content-length", "transfer-encoding", "connection",
			"keep-alive", "te", "trailer", "upgrade", "expect", "authorization", "cookie",
			"accept-encoding", "content-encoding", "user-agent", headerNoBody}, name)
}

// addHeaders copies the message's headers that are allowed; the error names one that HTTP cannot
// carry.
func (s *Sink) addHeaders(h http.Header, m *ackwise.Message) error {
	for _, one := range m.Headers {
		if !s.allowed(strings.ToLower(one.Name)) {
			continue
		}
		if !token(one.Name) {
			return &ackwise.InvalidError{Field: "header", Value: one.Name,
				Reason: "the name cannot be an HTTP header's"}
		}
		if fault := valueFault(string(one.Value)); fault != "" {
			return &ackwise.InvalidError{Field: "header", Value: one.Name,
				Reason: "the value " + fault}
		}
		h.Add(one.Name, string(one.Value))
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", s.o.ContentType)
	}
	if s.o.KeyHeader != "" && m.Key != "" {
		h.Set(s.o.KeyHeader, encode(m.Key))
	}
	if m.Body == nil {
		h.Set(headerNoBody, "none")
	}
	return nil
}

// token reports whether a name may be an HTTP header's.
func token(name string) bool {
	for _, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

// valueFault says why HTTP cannot carry a value, "" = it can.
func valueFault(value string) string {
	for _, c := range []byte(value) {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return "contains a control character"
		}
	}
	if strings.Trim(value, " \t") != value {
		return "begins or ends with a space, which HTTP does not keep"
	}
	return ""
}

// encode writes an ID or a key so that a header carries each byte: what is not printable ASCII, and
// %, as %XX. Two that differ stay different.
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > 0x20 && c < 0x7f && c != '%' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

// minSecret is the fewest bytes of a secret that sign.
const minSecret = 16

// sign returns the signatures of a message, one for each secret. No error shows a secret.
func sign(secrets, id, timestamp string, body []byte) (string, error) {
	var all []string
	for secret := range strings.FieldsSeq(secrets) {
		encoded, ok := strings.CutPrefix(secret, "whsec_")
		key, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(key) < minSecret {
			return "", fmt.Errorf("the signing secret is not whsec_ and base64 of at least %d bytes",
				minSecret)
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		all = append(all, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(all) == 0 {
		return "", errors.New("the signing secret is empty")
	}
	return strings.Join(all, " "), nil
}
