package kafka_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/test/servers"
)

// hangsUp is the address of a server that resets each connection when it has got something.
func hangsUp(t *testing.T) string {
	t.Helper()
	return servers.Listen(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.(*net.TCPConn).SetLinger(0)
	})
}

// openings opens a sink and a source, each in that time, and returns their errors.
func openings(t *testing.T, url string, within time.Duration) map[string]error {
	t.Helper()
	o, err := kafka.ParseSink(url + "&open-timeout=" + within.String())
	if err != nil {
		t.Fatal(err)
	}
	errs := map[string]error{}
	_, errs["sink"] = kafka.OpenSink(t.Context(), o)
	from, err := kafka.ParseSource(url + "&group=g")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	_, errs["source"] = kafka.OpenSource(ctx, from)
	return errs
}

// TestUnreached: who meets no broker, or one that wants TLS, is told what to do.
func TestUnreached(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes connections, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	const perhaps = "perhaps no Kafka broker listens at "
	for name, c := range map[string]struct {
		address, want string
		within        time.Duration
	}{
		"a reset":  {hangsUp(t), "perhaps this port speaks TLS: then set tls=true", patience},
		"silence":  {silent.Addr().String(), perhaps + silent.Addr().String(), time.Second},
		"a web":    {web.Listener.Addr().String(), perhaps + web.Listener.Addr().String(), time.Second},
		"greeting": {something(t), "no Kafka broker listens at ", patience},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for side, err := range openings(t, "kafka://"+c.address+"/t?client=x", c.within) {
				hint, ok := errors.AsType[*ackwise.HintError](err)
				if !ok || !strings.Contains(hint.Hint, c.want) {
					t.Errorf("%s: %v, want the hint %q", side, err, c.want)
				}
			}
		})
	}
}

// TestPasswordAtOpening: a password that is not there is told before a broker has to answer.
func TestPasswordAtOpening(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	for _, tls := range []string{"false", "true"} {
		for place, want := range map[string]string{
			"env:ACKWISE_TEST_NOT_SET": "env:ACKWISE_TEST_NOT_SET is empty or not set", "file:" + file: file} {
			url := "kafka://127.0.0.1:1/t?sasl=plain&user=u&tls=" + tls + "&password=" + place
			for side, err := range openings(t, url, patience) {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %q", side, err, want)
				}
			}
		}
	}
}

// TestNearestTopic: a sink's topic that is missing is named with the one that was meant, as a
// source's is.
func TestNearestTopic(t *testing.T) {
	t.Parallel()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "payments"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	for topic, near := range map[string]string{"oders": "orders", "invoices": ""} {
		url := "kafka://" + c.ListenAddrs()[0] + "/" + topic + "?client=x"
		for side, err := range openings(t, url, patience) {
			missing, ok := errors.AsType[*ackwise.NotFoundError](err)
			hint, hinted := errors.AsType[*ackwise.HintError](err)
			if !ok || missing.Name != topic || missing.Nearest != near || !hinted ||
				!strings.Contains(hint.Hint, "create=true") {
				t.Errorf("%s: %v, want %q for %q", side, err, near, topic)
			}
		}
	}
}
