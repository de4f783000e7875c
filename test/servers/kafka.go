package servers

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// StartSecureKafka starts a broker that has, beside its plain address, one for TLS and one for TLS
// with SASL: the listeners TLS and LOGIN in its settings, of which more are given.
func StartSecureKafka(t testing.TB, settings ...string) (s *Server, tls, login string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "more.properties")
	if err := os.WriteFile(file, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = Start(t, "kafka", "", file)
	at := func(listener string) string {
		port, err := os.ReadFile(filepath.Join(s.dir, "kafka-"+listener+".port"))
		if err != nil {
			t.Fatal(err)
		}
		return net.JoinHostPort("127.0.0.1", strings.TrimSpace(string(port)))
	}
	return s, at("tls"), at("login")
}
