package nakadi

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/ackwise/ackwise"
)

const perhapsTLS = "Perhaps this port speaks TLS: then leave tls=false out."

// unreached adds to the error of a request without an answer what to do about it.
func (c *client) unreached(err error) error {
	hint := ""
	switch {
	case isA[x509.UnknownAuthorityError](err):
		hint = "The server's certificate is of no authority that this machine trusts: set " +
			"SSL_CERT_FILE to a file, as PEM, of the certificates of those to be trusted."
	case isA[x509.HostnameError](err):
		hint = "Name the host as its certificate does, or give it a certificate for " + c.o.Host + "."
	case isA[*tls.CertificateVerificationError](err):
		hint = "Give the server another certificate: this one is not to be trusted."
	case errors.Is(err, http.ErrSchemeMismatch), isA[tls.RecordHeaderError](err):
		hint = "The server speaks no TLS at this port: set tls=false, or name the port that does."
	case dialed(err):
		hint = "Check that Nakadi is up, and listens at " + c.o.Host + "."
	case c.o.Plain && !c.answered.Load() && broken(err):
		hint = perhapsTLS
	case !c.answered.Load() && (broken(err) || strings.Contains(err.Error(), "handshake timeout")):
		hint = "Perhaps the server speaks no TLS at this port: then set tls=false, or name the port " +
			"that does."
	}
	if hint == "" {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}

// broken reports whether the other side has hung up, or has answered with something else than HTTP.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, net.ErrClosed) || strings.Contains(err.Error(), "malformed HTTP")
}

// dialed reports whether the host or its port cannot be connected to.
func dialed(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// strange says of an answer that cannot be read who may have given it.
func strange(err error) error {
	return &ackwise.HintError{Err: err,
		Hint: "What answers there does not seem to be Nakadi: check the host and the port."}
}
