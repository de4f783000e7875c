package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// handshake sees to it that there is a password where one is needed, that one of the brokers speaks
// TLS as the options have it, and that it takes the user and the password. The client would try on,
// without a word about why, until it is told to stop.
func (c *Conn) handshake(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.DialTimeout, defaultDial))
	defer cancel()
	if c.SASL != "" {
		if _, err := c.Password(ctx); err != nil { // whether or not a broker answers
			return err
		}
	}
	if c.TLS {
		if err := c.encrypt(ctx); err != nil {
			return err
		}
	}
	if c.SASL != "" {
		return c.login(ctx)
	}
	return nil
}

// login says it where the brokers refuse the user. Whatever else is wrong, who connects next says.
func (c *Conn) login(ctx context.Context) error {
	opts, err := c.opts()
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	defer cl.Close()
	err = cl.Ping(ctx)
	if !isLogin(err) && !errors.Is(err, io.EOF) {
		return nil
	}
	return explainConn(fmt.Errorf("log in as %q by %s: %w", c.User, c.SASL, severed(err)))
}

// isLogin reports whether a broker has refused the user, the password or the way to say them.
func isLogin(err error) bool {
	return errors.Is(err, kerr.SaslAuthenticationFailed) ||
		errors.Is(err, kerr.UnsupportedSaslMechanism) || errors.Is(err, kerr.IllegalSaslState)
}

const loginHint = "check sasl, user and password, and that this port is one for logins"

// encrypt begins TLS with one of the brokers.
func (c *Conn) encrypt(ctx context.Context) error {
	conf, err := c.tlsConfig()
	if err != nil {
		return err
	}
	var faults []error
	for _, b := range c.Brokers {
		err := handshake(ctx, b, conf)
		if err == nil {
			return nil
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func handshake(ctx context.Context, broker string, conf *tls.Config) error {
	host, port := splitPort(broker)
	plain, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return explainConn(fmt.Errorf("reach the broker %s: %w", broker, err), broker)
	}
	defer func() { _ = plain.Close() }()
	conf = conf.Clone()
	conf.ServerName = host
	conn := tls.Client(plain, conf)
	err = conn.HandshakeContext(ctx)
	if err == nil {
		err = refusal(conn) // with TLS 1.3 a client hears of it only at its first read
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("begin TLS with the broker %s: %w", broker, severed(err))
	if notTLS(err) {
		return &ackwise.HintError{Err: err,
			Hint: "this port does not seem to speak TLS: leave tls out, or name the port that does"}
	}
	return &ackwise.HintError{Err: err, Hint: tlsHint}
}

const tlsHint = "check tls, ca, cert and key: the broker's certificate has to be signed by ca " +
	"and be made for the host's name"

// notTLS reports whether the other side answers a handshake as one that does not know it: with
// something else, by closing the connection, as Kafka does, or not at all.
func notTLS(err error) bool {
	_, other := errors.AsType[tls.RecordHeaderError](err)
	return other || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, context.DeadlineExceeded)
}

// refusalWait is how long a refusal of the client's certificate may take.
const refusalWait = 200 * time.Millisecond

// refusal returns what the broker has against this client's certificate. A broker says nothing else
// unasked.
func refusal(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(refusalWait)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return nil
	}
	return err
}

// unreached adds to an error of the first connection what to do about it, where explainConn does
// not: later, when a broker has answered, the same errors say nothing of what listens there.
func unreached(err error, brokers ...string) error {
	hint := ""
	switch text := err.Error(); {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		hint = "perhaps this port speaks TLS: then set tls=true; else check sasl, user and password: " +
			"some brokers just close the connection"
	case strings.Contains(text, "BrokerMaxReadBytes"): // the first bytes, taken for a length
		hint = "no Kafka broker listens at " + strings.Join(brokers, ", ") +
			", but something else: check the host and the port"
	case strings.Contains(text, "unable to dial"): // explainConn knows it
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		strings.Contains(text, openLate):
		hint = "perhaps no Kafka broker listens at " + strings.Join(brokers, ", ") +
			", but something else: check the host and the port"
	}
	if hint == "" {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}

// openLate begins the cause of an opening that took too long.
const openLate = "no answer within the open time-out"

// explainConn adds to an error of a connection what to do about it.
func explainConn(err error, brokers ...string) error {
	if _, ok := errors.AsType[*ackwise.HintError](err); ok {
		return err
	}
	hint := ""
	switch text := err.Error(); {
	case isLogin(err):
		hint = loginHint
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		strings.Contains(text, "is TLS missing"):
		hint = "check tls, sasl, user and password: some brokers just close the connection"
	case strings.Contains(text, "tls endpoint"):
		hint = "check tls: this port speaks TLS, set tls=true"
	case strings.Contains(text, "x509:"), strings.Contains(text, "tls:"):
		hint = tlsHint
	case strings.Contains(text, "connection refused"), strings.Contains(text, "no such host"),
		strings.Contains(text, "unable to dial"):
		hint = "check that a broker listens at " + strings.Join(brokers, ", ")
	}
	if hint == "" {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}
