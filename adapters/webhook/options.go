package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// form is what an address looks like.
const form = "https://HOST/PATH?secret=env:NAME"

// SinkOptions say where messages are posted, and how.
type SinkOptions struct {
	// URL is the address, https:// with a host. http:// is refused unless the host is a loopback
	// address or AllowHTTP is set. Required.
	URL string
	// Path is where the path and the query of URL are kept, if they are secret themselves. It is
	// read anew for each request. Default: nil, those of URL.
	Path func(ctx context.Context) (string, error)
	// Secret is the signing secret: whsec_ and base64, or several with spaces between, which all
	// sign while they are rotated. It is read anew for each request. Default: nil, nothing is signed.
	Secret func(ctx context.Context) (string, error)
	// Authorization is the value of the header of that name. It is read anew for each request.
	// Default: nil, none.
	Authorization func(ctx context.Context) (string, error)
	// ContentType is that of messages without a header content-type. Default: application/json.
	ContentType string
	// Headers are the names of the messages' headers that are sent, in any case; one that ends with
	// * stands for all that begin so. Default: content-type, traceparent, tracestate and ce-*, which
	// are always sent.
	Headers []string
	// KeyHeader is the name of a header that carries the message's key. Default: "", none does.
	KeyHeader string
	// Timeout bounds one request, its answer included. Default: 15 s.
	Timeout time.Duration
	// Parallel bounds the requests of one Publish that are under way. Default: 8.
	Parallel int
	// CA is a file of certificates in PEM that are trusted in place of the system's. Default: "",
	// the system's.
	CA string
	// AllowHTTP says that requests may go unencrypted. Default: false.
	AllowHTTP bool
	// AllowPrivate says that the receiver may have a private, loopback or link-local address.
	// Default: false; a URL whose host is a loopback address reaches that alone.
	AllowPrivate bool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// ParseSink reads https://HOST/PATH?OPTIONS. It opens nothing, and returns all that is wrong.
func ParseSink(text string) (SinkOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SinkOptions{}, fmt.Errorf("%w; it is %s", err, form)
	}
	at := url.URL{Scheme: e.Scheme, Host: e.Host, RawQuery: e.Text("query", ""), Path: "/"}
	for i, part := range e.Path {
		at.Path += part
		at.RawPath += "/" + url.PathEscape(part)
		if i < len(e.Path)-1 {
			at.Path += "/"
		}
	}
	path, _, _ := strings.Cut(text, "?")
	if strings.HasSuffix(path, "/") && len(e.Path) > 0 {
		at.Path, at.RawPath = at.Path+"/", at.RawPath+"/"
	}
	o := SinkOptions{
		URL: at.String(), Path: e.Secret("path"), Secret: e.Secret("secret"),
		Authorization: e.Secret("authorization"), ContentType: e.Text("content_type", ""),
		Headers: e.List("headers"), KeyHeader: e.Text("key_header", ""),
		Timeout:  e.Duration("timeout", 0, time.Millisecond, time.Hour),
		Parallel: e.Int("parallel", 0, 1, 1000), CA: e.Text("ca", ""),
		AllowHTTP: e.Bool("allow_http"), AllowPrivate: e.Bool("allow_private"),
	}
	for _, fault := range faultsOf(&o) {
		e.Fault("%v", fault)
	}
	return o, e.Done(form)
}

func (o SinkOptions) withDefaults() SinkOptions {
	if o.ContentType == "" {
		o.ContentType = "application/json"
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	if o.Parallel == 0 {
		o.Parallel = 8
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// faultsOf returns all that is wrong with options.
func faultsOf(o *SinkOptions) []error {
	var faults []error
	bad := func(wrong bool, field, value, reason string) {
		if wrong {
			faults = append(faults, &ackwise.InvalidError{Field: field, Value: value, Reason: reason})
		}
	}
	at, err := url.Parse(o.URL)
	switch {
	case err != nil || at.Hostname() == "":
		bad(true, "URL", "", "it is not "+form)
	case at.User != nil || at.Fragment != "":
		bad(true, "URL", "", "a user, a password or a # has no place in it")
	case at.Scheme != "https" && at.Scheme != "http":
		bad(true, "URL", at.Scheme, "it begins with https://")
	default:
		bad(at.Scheme == "http" && !o.AllowHTTP && !loopback(at.Hostname()), "URL", "http://",
			"it is not encrypted: use https://, or allow_http=true where that is right")
	}
	bad(o.Timeout < 0, "Timeout", o.Timeout.String(), "it is negative")
	bad(o.Parallel < 0, "Parallel", fmt.Sprint(o.Parallel), "it is negative")
	bad(valueFault(o.ContentType) != "", "content_type", "", "it "+valueFault(o.ContentType))
	for _, name := range append(slices.Clone(o.Headers), o.KeyHeader) {
		switch plain := strings.TrimSuffix(name, "*"); {
		case name == "":
		case name == "*" || !token(plain):
			bad(true, "header", name, "it is no name of an HTTP header, or the beginning of one")
		case reserved(plain):
			bad(true, "header", name, "it is this sink's own, or HTTP's, to set")
		}
	}
	return faults
}

// Validate returns all that is wrong.
func (o SinkOptions) Validate() error { return errors.Join(faultsOf(&o)...) }

// loopback reports whether a URL's host names this machine itself.
func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}
