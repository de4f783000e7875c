package kafka_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/test/servers"
)

// authority makes certificates that expire in an hour.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign})
	return a
}

// file is the path of a certificate or of its key.
func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue writes NAME.pem and NAME.key.
func (a *authority) issue(name string, as *x509.Certificate) (
	*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	as.SerialNumber, as.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	as.NotBefore, as.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = as, key
	}
	der, err := x509.CreateCertificate(rand.Reader, as, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// broker starts one with TLS, for a host's name or address, that wants clients to have a
// certificate.
func (a *authority) broker(name string, as *x509.Certificate) string {
	a.t.Helper()
	a.issue(name, as)
	pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(a.cert)
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"), kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(c.Close)
	return c.ListenAddrs()[0]
}

// something is the address of a server that greets whoever comes, in no protocol of Kafka's.
func something(t *testing.T) string {
	t.Helper()
	return servers.Listen(t, func(conn net.Conn) { fmt.Fprint(conn, "220 good day\r\n") })
}

// openBoth opens a sink and a source at a URL, and returns their errors.
func openBoth(t *testing.T, url string) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o, err := kafka.ParseSink(url)
	if err != nil {
		t.Fatal(err)
	}
	sink, sinkErr := kafka.OpenSink(ctx, o)
	if sinkErr == nil {
		res := sink.Publish(ctx, []ackwise.Message{{ID: "1", Topic: "t", Body: []byte("b")}})
		sinkErr = res[0].Err
		sink.Close()
	}
	from, err := kafka.ParseSource(url + "&group=g")
	if err != nil {
		t.Fatal(err)
	}
	source, sourceErr := kafka.OpenSource(ctx, from)
	if sourceErr == nil {
		ack(t, source, receive(t, source, 1)...)
		source.Close()
	}
	return []error{sinkErr, sourceErr}
}

// tlsURL is the address of a topic on a broker with TLS, with the certificates of an authority and
// of a client of one, as far as there are such.
func tlsURL(address string, ca, client *authority) string {
	url := "kafka://" + address + "/t?tls=true"
	if ca != nil {
		url += "&ca=" + ca.file("ca.pem")
	}
	if client != nil {
		url += "&cert=" + client.file("client.pem") + "&key=" + client.file("client.key")
	}
	return url
}

// checkOpening opens a sink and a source, which works (want is nil), or fails with an error that
// has these parts.
func checkOpening(t *testing.T, url string, want []string) {
	t.Helper()
	for i, err := range openBoth(t, url) {
		side := []string{"sink", "source"}[i]
		switch {
		case (err == nil) != (want == nil):
			t.Errorf("%s: %v", side, err)
		case err != nil:
			for _, part := range want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v, want %q", side, err, part)
				}
			}
			if strings.Contains(err.Error(), "mistaken") {
				t.Errorf("%s: the password is shown: %v", side, err)
			}
		}
	}
}

// TestTLS: with the right certificates messages flow; each wrong one is named at once, and not
// after a time-out.
func TestTLS(t *testing.T) {
	t.Parallel()
	a, strange := newAuthority(t), newAuthority(t)
	here := []net.IP{net.IPv4(127, 0, 0, 1)}
	a.issue("client", &x509.Certificate{})
	strange.issue("client", &x509.Certificate{})
	good := a.broker("broker", &x509.Certificate{IPAddresses: here})
	other := a.broker("other", &x509.Certificate{DNSNames: []string{"elsewhere"}})
	plain, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	for _, c := range []struct {
		name, url string
		want      []string // nil = it works
	}{
		{"right", tlsURL(good, a, a), nil},
		{"no authority", tlsURL(good, nil, a), []string{"x509:", "signed by ca"}},
		{"another authority", tlsURL(good, strange, a), []string{"x509:", "signed by ca"}},
		{"another host", tlsURL(other, a, a), []string{"x509:", "127.0.0.1"}},
		{"no client certificate", tlsURL(good, a, nil), []string{"tls:", "certificate", "cert and key"}},
		{"a strange client", tlsURL(good, a, strange), []string{"tls:", "certificate", "cert and key"}},
		{"a broker without TLS", tlsURL(plain.ListenAddrs()[0], a, a) + "&dial-timeout=1s",
			[]string{"begin TLS", "not seem to speak TLS"}},
		{"a server of something else", tlsURL(something(t), a, a), []string{"not seem to speak TLS"}},
		{"nobody", tlsURL("127.0.0.1:1", a, a), []string{"listens at 127.0.0.1:1"}},
		{"a client without TLS", "kafka://" + good + "/t?client=x", []string{"check tls"}},
		{"no file", tlsURL(good, a, a) + "x", []string{"client.keyx"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkOpening(t, c.url, c.want)
		})
	}
}

// TestSASL: each mechanism lets the right password in, names who has a wrong one, and shows none.
func TestSASL(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", "u", "right"), kfake.Superuser("SCRAM-SHA-256", "u", "right"),
		kfake.Superuser("SCRAM-SHA-512", "u", "right"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	file := filepath.Join(t.TempDir(), "password")
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512"} {
		url := "kafka://" + c.ListenAddrs()[0] + "/t?user=u&password=file:" + file + "&sasl=" + mechanism
		if err := os.WriteFile(file, []byte("right"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, err := range openBoth(t, url) {
			if err != nil {
				t.Errorf("%s: %v", mechanism, err)
			}
		}
		if err := os.WriteFile(file, []byte("mistaken"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, err := range openBoth(t, url) {
			if err == nil || !strings.Contains(err.Error(), "sasl, user and password") ||
				!strings.Contains(err.Error(), `as "u"`) ||
				strings.Contains(err.Error(), "mistaken") {
				t.Errorf("%s, a wrong password: %v", mechanism, err)
			}
		}
	}
}
