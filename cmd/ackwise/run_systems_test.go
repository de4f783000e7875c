package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise/internal/pause"
)

// TestADeadLetterTopicHasToKeepItsLetters: what "dead" names is looked at as a topic of dead
// letters, whether its URL says so or not.
func TestADeadLetterTopicHasToKeepItsLetters(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders", "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	address := "kafka://" + broker.ListenAddrs()[0]
	for name, c := range map[string]struct{ to, dead, want string }{
		"it deletes by itself": {"'-'", "/orders",
			"the topic orders deletes dead letters by itself"},
		"that is meant": {"'-'", "/orders?dead-letters=true&allow-expiry=true", ""},
		"it is made":    {"'-'", "/made?create=true", ""},
		"one place is both": {address + "/orders", "/orders",
			"the topic orders deletes dead letters by itself"},
	} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "c.yaml")
			text := "pipelines:\n  - name: p\n    from: '-'\n    to: " + c.to +
				"\n    dead: " + address + c.dead + "\n    pattern: none\n"
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			got := run(t, "", "run", config)
			if c.want == "" && got.code != 0 || !strings.Contains(got.err, c.want) {
				t.Errorf("exit %d, want %q:\n%s", got.code, c.want, got.err)
			}
		})
	}
}

// TestACloseMayTakeAPoll: a source that waits for its longest poll is not left behind.
func TestACloseMayTakeAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		poll := func() error { pause.For(t.Context(), 25*time.Second); return nil }
		if err := closeWithin(poll); err != nil {
			t.Error(err)
		}
	})
}

// TestAPassedOverLossIsWrittenDown lets a topic lose its beginning before a pipeline that is told
// to skip reads it.
func TestAPassedOverLossIsWrittenDown(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "lines"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 10 {
		r := &kgo.Record{Topic: "lines", Value: []byte{byte('0' + i)}}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	admin := kadm.NewClient(client)
	at := func(n int64) (os kadm.Offsets) {
		os.AddOffset("lines", 0, n, -1)
		return os
	}
	if err := admin.CommitAllOffsets(t.Context(), "g", at(2)); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteRecords(t.Context(), at(7)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := writeFile(t, "f.yaml", pipelineOf("from: kafka://"+broker.ListenAddrs()[0]+
		"/lines?group=g&on-trimmed=skip", "to: file://"+dir+"/out", "no_dead_letters: true"))
	r := run(t, "", "run", "--until-empty", path)
	if r.code != 0 || !strings.Contains(r.err, "level=WARN msg=trimmed") ||
		!strings.Contains(r.err, "lines/0") {
		t.Errorf("ended with %d, and said:\n%s", r.code, r.err)
	}
}

// TestRunThroughAnotherSystem takes lines to a system without an end and out of it again, in one
// file and one run that ends by itself.
func TestRunThroughAnotherSystem(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	dir := t.TempDir()
	all, text := numberedLines(200)
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	topic := "kafka://" + broker.ListenAddrs()[0] + "/lines"
	path := writeFile(t, "f.yaml", pipelineOf("from: file://"+dir+"/in", "to: "+topic,
		"no_dead_letters: true", "create: true", "linger: 20ms")+`  - name: out
    from: `+topic+`?group=g
    to: file://`+dir+`/out
    dead: file://`+dir+`/dead
    create: true
`)
	if out := must(t, "", "run", "--dry-run", path); !strings.Contains(out, "p: file://"+dir+
		"/in -> "+topic) {
		t.Errorf("a dry run says %s", out)
	}
	for range 2 { // the second one finds nothing new
		if r := run(t, "", "run", "--until-empty", path); r.code != 0 {
			t.Fatalf("exit code %d\n%s", r.code, r.err)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	there := lines(string(got))
	slices.Sort(there)
	slices.Sort(all)
	if !slices.Equal(there, all) {
		t.Errorf("%d lines came out, want %d", len(there), len(all))
	}
}

// TestUntilEmptyWaitsForTheGroup: a group that takes its time to assign partitions is not drained
// before it has.
func TestUntilEmptyWaitsForTheGroup(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "lines"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	const takes = quietFor + 3*time.Second
	broker.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.SleepControl(func() { pause.For(t.Context(), takes) })
		return nil, nil, false
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	r := &kgo.Record{Topic: "lines", Value: []byte("x")}
	if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	path := writeFile(t, "f.yaml", pipelineOf("from: kafka://"+broker.ListenAddrs()[0]+
		"/lines?group=g", "to: file://"+out, "no_dead_letters: true"))
	begin := time.Now()
	if r := run(t, "", "run", "--until-empty", path); r.code != 0 || content(out) != "x\n" {
		t.Errorf("ended with %d and %q:\n%s", r.code, content(out), r.err)
	}
	if took := time.Since(begin); took < takes {
		t.Errorf("the group took no time: %s", took)
	}
}
