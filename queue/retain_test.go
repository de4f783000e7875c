package queue

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// ids drains a new subscription that begins at start and returns what it got.
func ids(t *testing.T, s *Store, name string, start Start) (got []string) {
	t.Helper()
	create(t, s, "orders", name, SubscriptionOptions{Start: start})
	books, err := s.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range books {
		if b.Subscription != name || b.Ready == 0 {
			continue
		}
		r := receiver(t, s, "orders", name, ReceiverOptions{})
		for _, d := range receive(t, r, 100) {
			got = append(got, d.ID)
			settle(t, r, d, ackwise.OutcomeAck)
		}
	}
	return got
}

// publishOverTime publishes m0, m1, … one an hour, each acked at once, and returns their receipts.
func publishOverTime(t *testing.T, s *Store, n int, body []byte) (receipts []ackwise.Result) {
	t.Helper()
	create(t, s, "orders", "live", SubscriptionOptions{})
	r := receiver(t, s, "orders", "live", ReceiverOptions{})
	for i := range n {
		receipts = append(receipts, publish(t, s, ackwise.Message{Topic: "orders",
			ID: fmt.Sprint("m", i), Body: body})...)
		settle(t, r, receive(t, r, 1)[0], ackwise.OutcomeAck)
		time.Sleep(time.Hour) // virtual
	}
	return receipts
}

func TestRetention(t *testing.T) {
	body := make([]byte, 100)
	for _, c := range []struct {
		name    string
		options TopicOptions
		want    string
	}{
		{"what nobody needs goes", TopicOptions{}, "[]"},
		{"by age", TopicOptions{RetainAge: 150 * time.Minute}, "[m8 m9]"},
		{"by bytes", TopicOptions{RetainBytes: 400}, "[m7 m8 m9]"},
		{"by age within bytes", TopicOptions{RetainAge: 150 * time.Minute, RetainBytes: 150},
			"[m9]"},
		{"by bytes within age", TopicOptions{RetainAge: 30 * time.Hour, RetainBytes: 400},
			"[m7 m8 m9]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				s := openMem(t, mem, Options{})
				if err := s.CreateTopic(t.Context(), "orders", c.options); err != nil {
					t.Fatal(err)
				}
				publishOverTime(t, s, 10, body)
				if got := fmt.Sprint(ids(t, s, "late", Start{})); got != c.want {
					t.Errorf("a later subscription gets %s, want %s", got, c.want)
				}
				verify(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openMem(t, mem, Options{})
				if got := fmt.Sprint(ids(t, s, "later", Start{})); got != c.want {
					t.Errorf("after reopening %s, want %s", got, c.want)
				}
				verify(t, s)
				_ = s.Close()
			})
		})
	}
}

func TestSubscriptionsStartWhereTheyAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem(), Options{})
		retain := TopicOptions{RetainAge: 270 * time.Minute}
		if err := s.CreateTopic(t.Context(), "orders", retain); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		receipts := publishOverTime(t, s, 8, nil)
		for name, c := range map[string]struct {
			start Start
			want  string
		}{
			"beginning": {Start{}, "[m4 m5 m6 m7]"},
			"now":       {Start{Now: true}, "[]"},
			"position":  {Start{Position: receipts[6].Position}, "[m6 m7]"},
			"time":      {Start{Time: begin.Add(6*time.Hour - time.Minute)}, "[m6 m7]"},
			"future":    {Start{Time: begin.Add(100 * time.Hour)}, "[]"},
		} {
			if got := fmt.Sprint(ids(t, s, name, c.start)); got != c.want {
				t.Errorf("%s: got %s, want %s", name, got, c.want)
			}
		}
		for name, start := range map[string]Start{
			"gone-position": {Position: receipts[1].Position},
			"gone-time":     {Time: begin.Add(time.Hour)},
			"nonsense":      {Position: "x"},
		} {
			err := s.CreateSubscription(t.Context(), "orders", name, SubscriptionOptions{Start: start})
			if err == nil {
				t.Errorf("%s was not refused", name)
			}
		}
		verify(t, s)
		_ = s.Close()
	})
}

// Everything is kept before a topic's first subscription exists.
func TestNothingGoesBeforeTheFirstSubscription(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	if err := s.CreateTopic(t.Context(), "orders", TopicOptions{}); err != nil {
		t.Fatal(err)
	}
	publish(t, s, ackwise.Message{Topic: "orders", ID: "a"}, ackwise.Message{Topic: "orders", ID: "b"})
	if got := fmt.Sprint(ids(t, s, "first", Start{})); got != "[a b]" {
		t.Errorf("got %s", got)
	}
}

// What one subscription holds and has not settled is kept, and so a later one that begins at the
// oldest gets it, in order; what is settled everywhere is gone.
func TestALaterSubscriptionGetsWhatIsStillHeld(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "orders", "billing", SubscriptionOptions{})
	publish(t, s, ackwise.Message{Topic: "orders", ID: "a", Key: "k"},
		ackwise.Message{Topic: "orders", ID: "b", Key: "k"},
		ackwise.Message{Topic: "orders", ID: "c", Key: "k"})
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	ds := receive(t, r, 3)
	settle(t, r, ds[0], ackwise.OutcomeDead)
	settle(t, r, ds[1], ackwise.OutcomeAck)
	create(t, s, "orders", "stock", SubscriptionOptions{Ordered: true})
	publish(t, s, ackwise.Message{Topic: "orders", ID: "d", Key: "k"})
	create(t, s, "orders", "now", SubscriptionOptions{Start: Start{Now: true}})
	verify(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	var got []string
	for _, d := range receive(t, receiver(t, s, "orders", "stock", ReceiverOptions{}), 10) {
		got = append(got, d.ID)
	}
	if fmt.Sprint(got) != "[a c d]" {
		t.Errorf("got %v, want a (a dead letter elsewhere), c (in flight elsewhere) and d", got)
	}
	if books, _ := s.Books(t.Context()); books[2].Accepted != 0 {
		t.Errorf("a subscription from now on has accepted %d", books[2].Accepted)
	}
	verify(t, s)
}

// Scheduled messages take their places when they are due, in the order in which they are due.
func TestScheduledMessagesTakeTheirPlaceWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{})
		create(t, s, "orders", "billing", SubscriptionOptions{Ordered: true})
		later := func(id string, delay time.Duration) {
			s.Schedule(t.Context(), delay, []ackwise.Message{{Topic: "orders", ID: id, Key: "k"}})
		}
		later("c", 3*time.Hour)
		later("a", time.Hour)
		later("b", time.Hour)
		publish(t, s, ackwise.Message{Topic: "orders", ID: "now", Key: "k"})
		if b, _ := s.Books(t.Context()); b[0].Delayed != 3 || b[0].Ready != 1 {
			t.Errorf("books: %+v", b[0])
		}
		begin := time.Now()
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		take := func(want string, after time.Duration) {
			t.Helper()
			ds, err := r.Receive(t.Context(), 1)
			if err != nil || ds[0].ID != want || time.Since(begin) != after {
				t.Errorf("got %v, %v after %v, want %s after %v", ds, err, time.Since(begin), want, after)
			}
			settle(t, r, ds[0], ackwise.OutcomeAck)
		}
		take("now", 0)
		take("a", time.Hour)
		take("b", time.Hour)
		verify(t, s)
		_ = s.Close()
		s = openMem(t, mem, Options{})
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		take("c", 3*time.Hour)
		_ = s.Close()
	})
}
