package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// Conn says how brokers are reached. Sources and sinks share it.
type Conn struct {
	// Brokers are the first brokers to ask, HOST or HOST:PORT; they name the others. Required.
	// The port is 9092 where none stands.
	Brokers []string
	// TLS encrypts the connections. Default: false.
	TLS bool
	// CAFile holds the certificates, as PEM, that sign those of the brokers. Needs TLS.
	// Default: "", the system's.
	CAFile string
	// CertFile and KeyFile are this client's certificate and its key, as PEM. Need TLS.
	// Default: "", none.
	CertFile, KeyFile string
	// SASL is how the client says who it is: "plain", "scram-sha-256" or "scram-sha-512".
	// Default: "", it does not.
	SASL string
	// User is the name for SASL. Default: "".
	User string
	// Password gives the password for SASL, anew for each connection. Default: nil.
	Password func(context.Context) (string, error)
	// ClientID is this client's name in the brokers' logs and quotas. Default: "ackwise".
	ClientID string
	// DialTimeout bounds making a connection. Default: 10 s.
	DialTimeout time.Duration
}

// The words of Conn.SASL.
const (
	saslPlain = "plain"
	sasl256   = "scram-sha-256"
	sasl512   = "scram-sha-512"
)

const (
	defaultPort = "9092"
	defaultDial = 10 * time.Second
)

// parseConn takes the options of a connection from a URL.
func parseConn(e *endpoint.Endpoint) Conn {
	c := Conn{
		TLS:         e.Bool("tls"),
		CAFile:      e.Text("ca", ""),
		CertFile:    e.Text("cert", ""),
		KeyFile:     e.Text("key", ""),
		SASL:        e.Word("sasl", "", saslPlain, sasl256, sasl512),
		User:        e.Text("user", ""),
		Password:    e.Secret("password"),
		ClientID:    e.Text("client", ""),
		DialTimeout: e.Duration("dial-timeout", 0, time.Millisecond, 10*time.Minute),
	}
	if e.Host == "" {
		e.Fault("no broker stands behind kafka://")
		return c
	}
	c.Brokers = strings.Split(e.Host, ",")
	if err := c.check(); err != nil {
		e.Fault("%w", err)
	}
	return c
}

func (c *Conn) check() error {
	var faults []error
	bad := func(wrong bool, field, reason string) {
		if wrong {
			faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
		}
	}
	bad(len(c.Brokers) == 0, "brokers", "none is named")
	for _, b := range c.Brokers {
		host, _ := splitPort(b)
		bad(host == "", "broker", fmt.Sprintf("%.60q is not HOST or HOST:PORT", b))
	}
	bad(c.CAFile+c.CertFile+c.KeyFile != "" && !c.TLS, "tls",
		"ca, cert and key are for encrypted connections: set tls=true")
	bad((c.CertFile == "") != (c.KeyFile == ""), "cert", "cert and key go together")
	bad(c.SASL == "" && (c.User != "" || c.Password != nil), "sasl",
		"user and password need sasl=plain, scram-sha-256 or scram-sha-512")
	bad(!slices.Contains([]string{"", saslPlain, sasl256, sasl512}, c.SASL), "sasl",
		"it is plain, scram-sha-256 or scram-sha-512")
	bad(c.SASL != "" && (c.User == "" || c.Password == nil), "sasl",
		"it needs user=NAME and password=env:NAME or file:PATH")
	bad(c.DialTimeout < 0, "dial-timeout", "it is negative")
	return errors.Join(faults...)
}

// splitPort cuts HOST:PORT. The host is empty where the text is neither HOST nor HOST:PORT.
func splitPort(broker string) (host, port string) {
	if !strings.Contains(broker, ":") {
		return broker, defaultPort
	}
	host, port, err := net.SplitHostPort(broker)
	if err != nil || port == "" {
		return "", ""
	}
	return host, port
}

// opts are the options of a client. It reads the files of certificates.
func (c *Conn) opts() ([]kgo.Opt, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	var seeds []string
	for _, b := range c.Brokers {
		host, port := splitPort(b)
		seeds = append(seeds, net.JoinHostPort(host, port))
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(seeds...),
		kgo.ClientID(cmp.Or(c.ClientID, "ackwise")),
		kgo.DialTimeout(cmp.Or(c.DialTimeout, defaultDial)),
		kgo.DisableClientMetrics(), // no reports about the user's process to the brokers
	}
	if c.TLS {
		conf, err := c.tlsConfig()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if c.SASL != "" {
		opts = append(opts, kgo.SASL(c.mechanism()))
	}
	return opts, nil
}

func (c *Conn) tlsConfig() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the option ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read the option ca: no certificate as PEM is in %s", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the options cert and key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

// mechanism reads the password anew for each connection, so that a changed one is found.
func (c *Conn) mechanism() sasl.Mechanism {
	if c.SASL == saslPlain {
		return plain.Plain(func(ctx context.Context) (plain.Auth, error) {
			password, err := c.Password(ctx)
			return plain.Auth{User: c.User, Pass: password}, err
		})
	}
	auth := func(ctx context.Context) (scram.Auth, error) {
		password, err := c.Password(ctx)
		return scram.Auth{User: c.User, Pass: password}, err
	}
	if c.SASL == sasl256 {
		return scram.Sha256(auth)
	}
	return scram.Sha512(auth)
}
