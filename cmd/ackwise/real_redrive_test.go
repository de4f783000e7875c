package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise/test/servers"
)

// realLetters fills a fresh queue of dead letters: a pipeline whose handler fails writes them.
func realLetters(t *testing.T, n int) (address string, ids []string) {
	t.Helper()
	return realLettersOf(t, n, "", func(i int) string { return fmt.Sprint("k-", i) })
}

func realLettersOf(t *testing.T, n int, suffix string, key func(int) string) (address string,
	ids []string) {
	t.Helper()
	server := servers.Address(t, "ACKWISE_TEST_ELASTICMQ")
	t.Setenv("AWS_ACCESS_KEY_ID", "local")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "local")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	address = fmt.Sprintf("sqs://eu-central-1/dlq-%d%s?endpoint=%s", time.Now().UnixNano(), suffix,
		url.QueryEscape(server))
	var in strings.Builder
	for i := range n {
		ids = append(ids, fmt.Sprintf("r-%d", i))
		fmt.Fprintf(&in, "{\"id\":%q,\"key\":%q}\n", ids[i], key(i))
	}
	path := writeFile(t, "p.yaml", pipelineOf(`from: "-"`, "exec: exit 1", "dead: "+address,
		"create: true", "max_failures: 1", "lines: {id_field: id, key_field: key}", "concurrency: 4"))
	if r := run(t, in.String(), "run", "--until-empty", path); r.code != 4 ||
		!strings.Contains(r.err, count(n, "dead letter")+" made") {
		t.Fatalf("exit code %d\n%s", r.code, r.err)
	}
	return address, ids
}

func realRedrive(t *testing.T, from string, more ...string) *exec.Cmd {
	t.Helper()
	return command(t, "redrive", "--once", writeFile(t, "r.yaml",
		"redrive:\n  - name: r\n    from: "+from+"&lease=5s&wait=1s\n    quiet: 3s\n    "+
			strings.Join(more, "\n    ")+"\n"))
}

// TestRealRedriveUntilAccepted takes letters from a queue to a target that refuses some, fails for
// some and loses an answer, and then to the same target when it is well.
func TestRealRedriveUntilAccepted(t *testing.T) {
	from, ids := realLetters(t, 40)
	g := newTarget(t, func(id string, n int) int {
		switch {
		case id == "r-7":
			return http.StatusUnprocessableEntity
		case id == "r-8" && n == 1:
			return 0
		case n == 1 && strings.HasSuffix(id, "5"):
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	to := "to: " + g.URL + "/hook?headers=ackwise-*"
	r := finish(t, realRedrive(t, from, to, "deadline: 90s", "backoff: {first: 100ms}"))
	if sum := summary(t, r); r.code != 4 || sum.Accepted != 39 || left(sum) != 1 ||
		sum.Rejected != 1 || !sum.Drained {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	for _, id := range ids {
		want := 1
		if id == "r-8" || strings.HasSuffix(id, "5") {
			want = 2
		}
		if n := g.copies()[id]; n != want {
			t.Errorf("%s was sent %d times, want %d", id, n, want)
		}
		if h := g.heads[id]; h.Get("ackwise-redrives") != "1" || h.Get("ackwise-error") != "" {
			t.Errorf("%s has the headers %v", id, h)
		}
	}
	g.mu.Lock()
	g.answer = nil
	g.mu.Unlock()
	r = finish(t, realRedrive(t, from, to)) // it looks until the rejected one has come back
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 1 || left(sum) != 0 {
		t.Errorf("the rejected one: exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	r = finish(t, realRedrive(t, from, to))
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 0 || !sum.Drained {
		t.Errorf("the empty queue: exit code %d, %+v\n%s", r.code, sum, r.err)
	}
}

// TestRealRedriveRenews: letters that cannot be redriven in time are copied before their queue
// deletes them, under the same IDs.
func TestRealRedriveRenews(t *testing.T) {
	from, ids := realLetters(t, 5)
	g := newTarget(t, func(string, int) int { return http.StatusServiceUnavailable })
	to := "to: " + g.URL
	// The queue keeps letters for 4 days: this is all that is older than a second.
	const nearlyAll = "renew: 345599s"
	r := finish(t, realRedrive(t, from, to, "deadline: 3s", nearlyAll))
	if sum := summary(t, r); r.code != 4 || left(sum) != 5 || sum.Renewed != 5 {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	g.mu.Lock()
	g.answer = nil
	g.mu.Unlock()
	r = finish(t, realRedrive(t, from, to, nearlyAll))
	sum := summary(t, r)
	if r.code != 0 || sum.Accepted != 5 || sum.Renewed != 0 || len(g.copies()) != len(ids) {
		t.Errorf("exit code %d, %+v, %v\n%s", r.code, sum, g.copies(), r.err)
	}
}

// TestRealRedriveOverlapsAndIsKilled runs two at once, kills a third in the middle, and loses
// nothing.
func TestRealRedriveOverlapsAndIsKilled(t *testing.T) {
	from, ids := realLetters(t, 60)
	g := newTarget(t, nil)
	to := "to: " + g.URL
	killed := realRedrive(t, from, to, "rate: 20/s")
	launch(t, killed)
	waitFor(t, "letters arrive", func() bool { return len(g.copies()) >= 5 })
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	if !killed.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		t.Error("the run had ended before it was killed")
	}
	var wg sync.WaitGroup
	results := make([]result, 2)
	for i := range results {
		c := realRedrive(t, from, to)
		wg.Go(func() { results[i] = finish(t, c) })
	}
	wg.Wait()
	// What the killed run held comes back when its lease is over. A run that says 0 has left nothing,
	// neither there nor at another run.
	var accepted int64
	done := 0
	for _, r := range results {
		sum := summary(t, r)
		accepted += sum.Accepted
		switch {
		case r.code == 0 && left(sum) == 0:
			done++
		case r.code != 4 || left(sum) < 1:
			t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
		}
	}
	if arrived := len(g.copies()); done > 0 && arrived != len(ids) {
		t.Errorf("a run said that nothing was left, and %d of %d had arrived", arrived, len(ids))
	}
	r := finish(t, realRedrive(t, from, to))
	sum := summary(t, r)
	accepted += sum.Accepted
	if r.code != 0 || left(sum) != 0 || len(g.copies()) != len(ids) {
		t.Errorf("exit code %d, %+v, %d of %d have arrived\n%s", r.code, sum, len(g.copies()), len(ids),
			r.err)
	}
	repeats := 0
	for _, id := range ids {
		repeats += g.copies()[id] - 1
	}
	if repeats > 25 {
		t.Errorf("%d letters were sent again; the killed run held at most one batch of 25", repeats)
	}
	t.Logf("%d letters, %d taken by the runs that lived, %d sent again", len(ids), accepted, repeats)
}

// A queue that is not there, and one that nobody may reach, are told at once.
func TestRealRedriveCouldNotWork(t *testing.T) {
	from, _ := realLetters(t, 1)
	missing := strings.Replace(from, "dlq-", "dlq-none-", 1)
	r := finish(t, realRedrive(t, missing, "to: file:///dev/null/x"))
	if sum := summary(t, r); r.code != 1 || sum.Error == "" {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	r = finish(t, realRedrive(t, missing, "to: http://127.0.0.1:1"))
	if sum := summary(t, r); r.code != 1 || !strings.Contains(sum.Error, "dlq-none-") {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
}

// TestRealRedriveOfAGroup: a letter that is rejected stays at the head of its group of a FIFO
// queue, the other groups go on, and the run ends before its deadline.
func TestRealRedriveOfAGroup(t *testing.T) {
	from, ids := realLettersOf(t, 4, ".fifo", func(i int) string { return fmt.Sprint("k-", i%2) })
	g := newTarget(t, func(id string, _ int) int {
		if id == "r-0" {
			return http.StatusUnprocessableEntity
		}
		return http.StatusOK
	})
	to := "to: " + g.URL
	r := finish(t, realRedrive(t, from, to, "deadline: 10m"))
	if sum := summary(t, r); r.code != 4 || sum.Accepted != 2 || left(sum) != 2 ||
		sum.Rejected != 1 || !sum.Drained {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	if n := g.copies(); n["r-0"] != 1 || n["r-2"] != 0 {
		t.Errorf("sent were %v", n)
	}
	g.mu.Lock()
	g.answer = nil
	g.mu.Unlock()
	r = finish(t, realRedrive(t, from, to))
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 2 || left(sum) != 0 ||
		len(g.copies()) != len(ids) {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
}
