package servers_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ackwise/ackwise/test/servers"
)

func TestProxyCutsAndHeals(t *testing.T) {
	answer := strings.Repeat("answer ", 100)
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	p := servers.StartProxy(t, strings.TrimPrefix(server.URL, "http://"))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func() (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.Address, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if got, err := get(); got != answer || err != nil {
		t.Fatalf("through the proxy: %.20q, %v", got, err)
	}
	p.CutReplies(1)
	if got, err := get(); err == nil || asked != 2 || p.Fired() != 1 {
		t.Errorf("a reply that is cut: %.20q, %v; %d asked, %d fired", got, err, asked, p.Fired())
	}
	p.CutAll()
	if _, err := get(); err == nil || asked != 2 || p.Fired() < 2 {
		t.Errorf("all is cut: %v, %d asked, %d fired", err, asked, p.Fired())
	}
	p.Heal()
	if got, err := get(); got != answer || err != nil {
		t.Errorf("healed: %.20q, %v", got, err)
	}
}
