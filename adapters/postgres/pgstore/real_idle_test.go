package pgstore

import (
	"testing"

	"github.com/ackwise/ackwise/test/servers"
)

// TestRealIdleTransactionsEnd asks the server how long it lets a transaction of the store's own
// connections stand idle: a process that is frozen within one would keep everybody from its keys.
func TestRealIdleTransactionsEnd(t *testing.T) {
	url := servers.Address(t, "ACKWISE_TEST_POSTGRES")
	for text, want := range map[string]string{
		url: "10s",
		url + "&idle_in_transaction_session_timeout=2000": "2s",
	} {
		pool, err := connect(t.Context(), text, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var got string
		if err := pool.QueryRow(t.Context(), "SHOW "+idleTimeout).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("a transaction may stand idle for %s, want %s", got, want)
		}
	}
}
