package webhook

import (
	"context"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/test/servers"
)

func TestMain(m *testing.M) { os.Exit(adaptertest.Main(m, harness())) }

func TestConformance(t *testing.T) { adaptertest.Run(t, harness()) }

// harness is the row of webhooks, at a strict receiver.
func harness() adaptertest.Harness {
	return adaptertest.Harness{
		Name: "webhook (own receiver)", Sink: &ackwise.SinkFeatures{},
		Cannot: map[adaptertest.Check]string{adaptertest.Headers: "names of headers come back in " +
			"another case: \"field names are case-insensitive\" " +
			"(https://www.rfc-editor.org/rfc/rfc9110#section-5.1)"},
		OpenSink: func(ctx context.Context, address string) (ackwise.Sink, error) {
			o, err := ParseSink(address)
			if err != nil {
				return nil, err
			}
			return OpenSink(ctx, o)
		},
		New: func(t *testing.T) *adaptertest.Bed {
			r := newReceiver(t)
			t.Setenv(secretEnv, secretOne)
			r.secret = secretOne
			proxy := servers.StartProxy(t, r.Listener.Addr().String())
			return &adaptertest.Bed{Proxy: proxy,
				Sink: "https://" + proxy.Address + "/?timeout=5s&key_header=x-key&secret=env:" +
					secretEnv + "&headers=a*,b*,g*,n*&ca=" + r.ca,
				Read: func(context.Context) ([]ackwise.Message, error) {
					return r.messages(t), nil
				}}
		},
		Serial: true, // of its own environment
	}
}

// messages are what the receiver has got.
func (r *receiver) messages(t *testing.T) []ackwise.Message {
	var ms []ackwise.Message
	for _, one := range r.requests(t) {
		m := ackwise.Message{Topic: "suite", Body: []byte(one.body)}
		m.ID, _ = url.PathUnescape(one.id)
		m.Key, _ = url.PathUnescape(one.header.Get("x-key"))
		if one.header.Get(headerNoBody) == "none" {
			m.Body = nil
		}
		for name, values := range one.header {
			name = strings.ToLower(name)
			if slices.Contains([]string{"accept-encoding"}, name) || !strings.ContainsAny(name[:1], "abgn") ||
				name == headerNoBody {
				continue
			}
			for _, v := range values {
				m.Headers = append(m.Headers, ackwise.Header{Name: name, Value: []byte(v)})
			}
		}
		ms = append(ms, m)
	}
	return ms
}
