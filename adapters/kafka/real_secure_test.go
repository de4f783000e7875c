package kafka_test

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise/test/servers"
)

// metadataBytes is what the secure broker keeps beside a position.
const metadataBytes = "480"

// secureBroker starts a broker with the authority's certificate. The listener TLS wants clients to
// have one, too; LOGIN lets in alice, whose password is "right".
func secureBroker(t *testing.T, a *authority) (plain, tls, login string) {
	t.Helper()
	a.issue("broker", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	var store []byte
	for _, name := range []string{"broker.key", "broker.pem"} {
		block, err := os.ReadFile(a.file(name))
		if err != nil {
			t.Fatal(err)
		}
		store = append(store, block...)
	}
	if err := os.WriteFile(a.file("store.pem"), store, 0o600); err != nil {
		t.Fatal(err)
	}
	const module = "org.apache.kafka.common.security."
	scram := "sasl.jaas.config=" + module + "scram.ScramLoginModule required;"
	s, tls, login := servers.StartSecureKafka(t,
		"ssl.keystore.type=PEM", "ssl.keystore.location="+a.file("store.pem"),
		"ssl.truststore.type=PEM", "ssl.truststore.location="+a.file("ca.pem"),
		"listener.name.tls.ssl.client.auth=required",
		"listener.name.login.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.login.plain.sasl.jaas.config="+module+
			`plain.PlainLoginModule required user_alice="right";`,
		"listener.name.login.scram-sha-256."+scram, "listener.name.login.scram-sha-512."+scram,
		"offset.metadata.max.bytes="+metadataBytes)
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Address))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	makeTopic(t, adm, 1, "t")
	for _, mechanism := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		made, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "alice",
			Mechanism: mechanism, Iterations: 4096, Password: "right"}})
		if err == nil {
			err = made.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s.Address, tls, login
}

// TestRealStrict is for what a broker of its own settings is needed.
func TestRealStrict(t *testing.T) {
	a := newAuthority(t)
	plain, tls, login := secureBroker(t, a)
	t.Run("connections", func(t *testing.T) { strictConnections(t, a, [3]string{plain, tls, login}) })
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run("notes "+protocol, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t, plain, 1, protocol, nil)
			holdMany(t, p, p.url(""))
			tooLong(t, p.url("&note-bytes=1000"), metadataBytes)
		})
	}
}

// strictConnections opens sinks and sources with the right and with each wrong way to be safe. What
// is wrong is named, at once.
func strictConnections(t *testing.T, a *authority, brokers [3]string) {
	plain, tls, login := brokers[0], brokers[1], brokers[2]
	strange := newAuthority(t)
	a.issue("client", &x509.Certificate{})
	strange.issue("client", &x509.Certificate{})
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	right, wrong := file("right"), file("mistaken")
	as := func(mechanism, user, password string) string {
		return tlsURL(login, a, nil) + "&sasl=" + mechanism + "&user=" + user +
			"&password=file:" + password
	}
	refused := []string{`as "alice"`, "SASL_AUTHENTICATION_FAILED", "check sasl, user and password"}
	for _, c := range []struct {
		name, url string
		want      []string // nil = it works
	}{
		{"right", tlsURL(tls, a, a), nil},
		{"no authority", tlsURL(tls, nil, a), []string{"x509:", "signed by ca"}},
		{"another authority", tlsURL(tls, strange, a), []string{"x509:", "signed by ca"}},
		{"another name", strings.Replace(tlsURL(tls, a, a), "127.0.0.1", "localhost", 1),
			[]string{"x509:", "localhost", "made for the host's name"}},
		{"no client certificate", tlsURL(tls, a, nil), []string{"tls:", "certificate", "cert and key"}},
		{"a strange client", tlsURL(tls, a, strange), []string{"tls:", "certificate", "cert and key"}},
		{"TLS where there is none", tlsURL(plain, a, a), []string{"not seem to speak TLS"}},
		{"no TLS where there is", "kafka://" + tls + "/t?client=x", []string{"check tls"}},
		{"plain", as("plain", "alice", right), nil},
		{"scram-sha-256", as("scram-sha-256", "alice", right), nil},
		{"scram-sha-512", as("scram-sha-512", "alice", right), nil},
		{"plain, a wrong password", as("plain", "alice", wrong), refused},
		{"scram-sha-256, a wrong password", as("scram-sha-256", "alice", wrong), refused},
		{"scram-sha-512, a wrong password", as("scram-sha-512", "alice", wrong), refused},
		{"nobody", as("scram-sha-512", "mallory", right), []string{`as "mallory"`, "check sasl"}},
		{"a login where there is none", strings.Replace(as("plain", "alice", right)+
			"&cert="+a.file("client.pem")+"&key="+a.file("client.key"), login, tls, 1),
			[]string{`as "alice"`, "one for logins"}},
		{"no login where one is wanted", tlsURL(login, a, nil), []string{"check tls, sasl"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want != nil { // those that work share a topic and a group
				t.Parallel()
			}
			checkOpening(t, c.url, c.want)
		})
	}
}
