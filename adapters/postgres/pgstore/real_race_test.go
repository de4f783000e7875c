package pgstore_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pgtest"
	"github.com/ackwise/ackwise/adapters/postgres/pgstore"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/test/servers"
)

// claimWhile claims the keys a and k while somebody else holds the row of a by the statement hold,
// and runs f while the claim waits for it.
func claimWhile(t *testing.T, p *pgxpool.Pool, s *pgstore.Store, hold string, f func()) (
	answers []idempotency.Answer) {
	t.Helper()
	tx, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), hold); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		var err error
		answers, err = s.Claim(t.Context(), []idempotency.Ask{{Key: "a", Lease: time.Minute},
			{Key: "k", Lease: time.Minute}})
		got <- err
	}()
	pgtest.Until(t, "the claim waits", func() bool {
		return scalar[bool](t, p, `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE wait_event_type = 'Lock' AND query LIKE '%FROM ackwise_claim(%'
			AND pid = ANY (SELECT pid FROM pg_locks WHERE relation = 'ackwise_claim'::regclass))`)
	})
	f()
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	return answers
}

// settle settles one claim.
func settle(t *testing.T, s *pgstore.Store, key string, fence uint64, verb idempotency.Verb) {
	t.Helper()
	errs, err := s.Settle(t.Context(), []idempotency.Settlement{{Key: key, Fence: fence, Verb: verb}})
	if err != nil || errs[0] != nil {
		t.Fatal(errs, err)
	}
}

// TestClaimSeesANewBucket: a claim that waits for another key's row finds what was completed
// meanwhile, into a bucket that was opened meanwhile.
func TestClaimSeesANewBucket(t *testing.T) {
	p := pool(t)
	s := open(t, postgres.PGX(p), pgstore.Options{Name: "s", Window: time.Hour})
	done(t, s, "z") // so that the bucket is not empty, and a new one is opened
	held, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "a", Lease: time.Minute},
		{Key: "k", Lease: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	got := claimWhile(t, p, s, "SELECT 1 FROM ackwise_claim WHERE key = 'a' FOR UPDATE", func() {
		exec(t, p, "SELECT ackwise_roll('s', 0)")
		settle(t, s, "k", held[1].Fence, idempotency.Complete)
	})
	if got[1].Status != idempotency.Done {
		t.Errorf("k was completed under fence %d, and is %v under %d now", held[1].Fence,
			got[1].Status, got[1].Fence)
	}
	if n := scalar[int](t, p, "SELECT count(*) FROM ackwise_bucket"); n != 2 {
		t.Errorf("%d buckets: the test shows nothing", n)
	}
}

// TestDefaultIsolation: whatever the isolation level by default, a claim sees what ends while it
// waits.
func TestDefaultIsolation(t *testing.T) {
	for _, level := range []string{"repeatable%20read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			p := pgtest.Connect(t, pgtest.Database(t, servers.Address(t, "ACKWISE_TEST_POSTGRES"))+
				"&default_transaction_isolation="+level)
			if _, err := postgres.Migrate(t.Context(), postgres.PGX(p), false); err != nil {
				t.Fatal(err)
			}
			s := open(t, postgres.PGX(p), pgstore.Options{Name: "s", Window: time.Hour})
			held, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "a", Lease: time.Minute},
				{Key: "k", Lease: time.Minute}})
			if err != nil {
				t.Fatal(err)
			}
			settle(t, s, "a", held[0].Fence, idempotency.Release)
			got := claimWhile(t, p, s, `INSERT INTO ackwise_claim
				VALUES ('s', 'a', '', 1, clock_timestamp() + interval '1 min')`, func() {
				settle(t, s, "k", held[1].Fence, idempotency.Complete)
			})
			if got[0].Status != idempotency.Claimed || got[1].Status != idempotency.Done {
				t.Errorf("a and k are %v and %v, want claimed and done", got[0].Status, got[1].Status)
			}
			_, err = p.Exec(t.Context(), "SELECT ackwise_claim('s', 1, 1, '{}', '{}', '{}')")
			if taken := err == nil; taken != (level == "serializable") {
				t.Errorf("the function itself at %s: %v", level, err)
			}
		})
	}
}
