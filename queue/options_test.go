package queue

import (
	"strings"
	"testing"
	"time"
)

// Options that cannot hold together are refused with both names, all at once; what works is not.
func TestContradictionsAreRefused(t *testing.T) {
	now := time.Now()
	store := func(o Options) error { return o.fill() }
	topic := func(o TopicOptions) error {
		_, err := o.config()
		return err
	}
	sub := func(o SubscriptionOptions) error {
		_, err := o.config()
		return err
	}
	for _, c := range []struct {
		name string
		err  error
		want []string // in the error; none = it is accepted
	}{
		{"batch below body", store(Options{MaxBodyBytes: 100, MaxBatchBytes: 99}),
			[]string{"MaxBatchBytes", "99", "MaxBodyBytes", "100"}},
		{"batch as body", store(Options{MaxBodyBytes: 100, MaxBatchBytes: 100}), nil},
		{"body above the default batch", store(Options{MaxBodyBytes: 17 << 20}),
			[]string{"MaxBatchBytes", "MaxBodyBytes"}},
		{"batch above a group", store(Options{MaxBatchBytes: 512<<20 + 1}),
			[]string{"MaxBatchBytes", "536870912"}},
		{"batch as large as can be", store(Options{MaxBatchBytes: 512 << 20}), nil},
		{"body above the segment", store(Options{SegmentBytes: 1 << 16}), nil},
		{"checkpoints above and below the segment", store(Options{SegmentBytes: 1 << 20,
			CheckpointBytes: 1 << 16, ReserveBytes: 16 << 10}), nil},
		{"no policy", store(Options{Sync: 2}), []string{"Sync", "SyncAlways", "SyncNever"}},
		{"several at once", store(Options{MaxBodyBytes: 5, MaxBatchBytes: 4, ReserveBytes: 1,
			Sync: 9, MaxBatch: -1}),
			[]string{"MaxBatchBytes", "ReserveBytes", "Sync", "MaxBatch:"}},

		{"bound of no IDs", topic(TopicOptions{DedupWindow: NoDedup, MaxDedupIDs: 5}),
			[]string{"MaxDedupIDs", "DedupWindow", "NoDedup"}},
		{"no dedup", topic(TopicOptions{DedupWindow: NoDedup}), nil},
		{"window of nothing", topic(TopicOptions{DedupWindow: 10 * time.Microsecond}),
			[]string{"DedupWindow", "NoDedup"}},
		{"age of nothing", topic(TopicOptions{RetainAge: 10}), []string{"RetainAge"}},
		{"retained for ever", topic(TopicOptions{RetainBytes: 100, MaxBytes: 100}),
			[]string{"RetainBytes", "MaxBytes", "100"}},
		{"retained within age", topic(TopicOptions{RetainBytes: 100, MaxBytes: 100,
			RetainAge: time.Hour}), nil},
		{"retained below the bound", topic(TopicOptions{RetainBytes: 99, MaxBytes: 100}), nil},

		{"hold without order", sub(SubscriptionOptions{OnDead: Hold}),
			[]string{"OnDead", "Ordered"}},
		{"hold in order", sub(SubscriptionOptions{OnDead: Hold, Ordered: true}), nil},
		{"no such policy", sub(SubscriptionOptions{OnDead: 7}), []string{"OnDead", "Skip"}},
		{"two starts", sub(SubscriptionOptions{Start: Start{Now: true, Position: "0", Time: now}}),
			[]string{"Start", "Now and Position and Time"}},
		{"one start", sub(SubscriptionOptions{Start: Start{Time: now}}), nil},
		{"lease below the tick", sub(SubscriptionOptions{Lease: time.Microsecond}),
			[]string{"Lease"}},
	} {
		if (c.err == nil) != (len(c.want) == 0) {
			t.Errorf("%s: %v", c.name, c.err)
			continue
		}
		for _, word := range c.want {
			if !strings.Contains(c.err.Error(), word) {
				t.Errorf("%s: %q does not say %q", c.name, c.err, word)
			}
		}
	}
}

// What a topic says of its options makes another one like it.
func TestTopicOptionsGoRound(t *testing.T) {
	for _, o := range []TopicOptions{{}, {DedupWindow: NoDedup}, {MaxDedupIDs: 7}} {
		config, err := o.config()
		if err != nil {
			t.Fatal(err)
		}
		again, err := topicOptions(config).config()
		if err != nil || again != config {
			t.Errorf("%+v became %+v, %v", config, again, err)
		}
	}
}
