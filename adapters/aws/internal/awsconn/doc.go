// Package awsconn connects the adapters of AWS: region, endpoint and credentials of the default
// chain, and errors that say which of them is missing or wrong.
//
//	Options ─▶ Load ─▶ aws.Config ─▶ a service's client ─▶ error ─▶ Explain ─▶ what to do
//
// It promises that a client that Load has made found credentials, that no error shows a secret, and
// that Explain keeps what it was given: errors.Is and errors.As see through it.
//
// It decides nothing about a message: which results may be repeated is each adapter's own decision,
// which the kinds of KindOf serve. It reads no credentials from URLs. See ExampleExplain.
package awsconn
