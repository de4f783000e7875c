package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// target is a receiver of letters. The oracle of these tests is what it has got.
type target struct {
	*httptest.Server
	mu     sync.Mutex // guards all below
	got    map[string]int
	bodies map[string]string
	heads  map[string]http.Header
	order  []string
	answer func(id string, n int) int // the status of the n-th attempt of an ID; 0 = no answer
}

func newTarget(t *testing.T, answer func(id string, n int) int) *target {
	t.Helper()
	g := &target{got: map[string]int{}, bodies: map[string]string{},
		heads: map[string]http.Header{}, answer: answer}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(g.Close)
	return g
}

func (g *target) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	id := r.Header.Get("webhook-id")
	g.mu.Lock()
	g.got[id]++
	g.bodies[id], g.heads[id] = string(body), r.Header
	g.order = append(g.order, id)
	status := http.StatusOK
	if g.answer != nil {
		status = g.answer(id, g.got[id])
	}
	g.mu.Unlock()
	if status == 0 {
		panic(http.ErrAbortHandler) // taken, and the connection is cut
	}
	w.WriteHeader(status)
}

func (g *target) copies() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.got)
}

// deadOf makes a directory in which orders/s has n dead letters l-0, l-1, …
func deadOf(t *testing.T, n int) (dir string, ids []string) {
	t.Helper()
	dir = t.TempDir() + "/d"
	var in strings.Builder
	for i := range n {
		ids = append(ids, fmt.Sprintf("l-%d", i))
		fmt.Fprintf(&in, "{\"id\":%q,\"k\":\"k%d\"}\n", ids[i], i)
	}
	must(t, in.String(), "publish", "--dir", dir, "--create", "--id-field", "id", "--key-field",
		"k", "orders")
	killAll(t, dir)
	return dir, ids
}

// killAll makes dead letters of all that is ready.
func killAll(t *testing.T, dir string) {
	t.Helper()
	must(t, "", "consume", "--dir", dir, "--create", "--until-empty", "--exec", "exit 1",
		"--max-failures", "1", "orders/s")
}

// redriveFile writes a file of one redrive.
func redriveFile(t *testing.T, dir string, more ...string) string {
	t.Helper()
	return writeFile(t, "r.yaml", "redrive:\n  - name: r\n    from: queue://"+dir+"/orders/s\n    "+
		strings.Join(more, "\n    ")+"\n")
}

// summary reads the one line that a redrive prints.
func summary(t *testing.T, r result) redriven {
	t.Helper()
	if strings.Count(r.out, "\n") != 1 {
		t.Fatalf("exit code %d, not one line: %q\n%s", r.code, r.out, r.err)
	}
	return decode[redriven](t, r.out)
}

// left is how many letters a summary says are left, -1 = it does not know.
func left(sum redriven) int64 {
	if sum.Left == nil {
		return -1
	}
	return *sum.Left
}

func leftDead(t *testing.T, dir string) []string {
	t.Helper()
	ids := []string{}
	for _, l := range decode[[]queue.DeadLetter](t, must(t, "", "dead", "list", "--dir", dir,
		"--json", "--max", "10000", "orders/s")) {
		ids = append(ids, l.Message.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestRedriveOnceToASink(t *testing.T) {
	dir, ids := deadOf(t, 7)
	g := newTarget(t, nil)
	path := redriveFile(t, dir, "to: "+g.URL+"/hook?headers=ackwise-*,x-*",
		"transform: {set_headers: {x-by: redrive}}")
	if r := run(t, "", "redrive", "--once", path, "--dry-run"); r.code != 0 ||
		!strings.HasPrefix(r.out, "r: dead letters of queue://") || len(g.copies()) > 0 {
		t.Errorf("a dry run: %+v", r)
	}
	r := run(t, "", "redrive", "--once", path)
	sum := summary(t, r)
	if left(sum) != 0 {
		t.Errorf("%d are left", left(sum))
	}
	sum.Seconds, sum.Left = 0, nil
	want := redriven{Name: "r", From: "queue://" + dir + "/orders/s",
		To: g.URL + "/hook?headers=ackwise-*,x-*", Accepted: 7, Drained: true}
	if r.code != 0 || sum != want {
		t.Errorf("exit code %d, %+v, want %+v\n%s", r.code, sum, want, r.err)
	}
	for _, id := range ids {
		h := g.heads[id]
		if g.got[id] != 1 || !strings.Contains(g.bodies[id], id) || h.Get("x-by") != "redrive" ||
			h.Get("ackwise-redrives") != "1" || h.Get("ackwise-error") != "" {
			t.Errorf("%s arrived %d times as %q with %v", id, g.got[id], g.bodies[id], h)
		}
	}
	if left := leftDead(t, dir); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	b := auditOf(t, dir).Books
	if !b.Balanced() || b.Dropped != 7 || b.DroppedFor["redriven by r"] != 7 {
		t.Errorf("the books are %+v", b)
	}
	r = run(t, "", "redrive", "--once", path)
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 0 || !sum.Drained {
		t.Errorf("an empty one: exit code %d, %+v", r.code, sum)
	}
}

func TestRedriveOnceToItsOwnSubscription(t *testing.T) {
	dir, ids := deadOf(t, 5)
	path := redriveFile(t, dir, "rate: 50/s")
	r := run(t, "", "redrive", "--once", path)
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 5 || left(sum) != 0 {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	out := must(t, "", "consume", "--dir", dir, "--until-empty", "--print-acks", "--exec", "true",
		"orders/s")
	if got := slices.Sorted(slices.Values(lines(out))); !slices.Equal(got, ids) {
		t.Errorf("consumed %v, want %v", got, ids)
	}
	if c := auditOf(t, dir).Causes; len(c) == 0 {
		t.Error("no cause is counted")
	}
}

// A target that is down, slow or fails for some: what is not accepted stays, each under its name.
func TestRedriveOnceLeavesWhatIsNotAccepted(t *testing.T) {
	dir, _ := deadOf(t, 6)
	g := newTarget(t, func(id string, n int) int {
		switch id {
		case "l-1":
			return http.StatusUnprocessableEntity // never
		case "l-2":
			return http.StatusServiceUnavailable // not now
		case "l-3":
			return 0 // taken, and no answer
		case "l-4":
			return []int{503, 200}[min(n-1, 1)] // at the second attempt
		}
		return http.StatusOK
	})
	path := redriveFile(t, dir, "to: "+g.URL, "deadline: 5s",
		"backoff: {first: 50ms, cap: 100ms}")
	r := run(t, "", "redrive", "--once", path)
	sum := summary(t, r)
	if r.code != 4 || sum.Accepted != 3 || left(sum) != 3 || sum.Rejected != 1 || sum.Unknown != 1 ||
		sum.Drained {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	if !strings.Contains(r.err, "is rejected and stays") || !strings.Contains(r.err, "id=l-1") {
		t.Errorf("the rejected one is not reported:\n%s", r.err)
	}
	if left := leftDead(t, dir); !slices.Equal(left, []string{"l-1", "l-2", "l-3"}) {
		t.Errorf("left are %v", left)
	}
	if n := g.copies()["l-1"]; n != 1 {
		t.Errorf("a rejected letter was sent %d times in one run", n)
	}
	g.mu.Lock()
	g.answer = nil
	g.mu.Unlock()
	r = run(t, "", "redrive", "--once", path)
	if sum := summary(t, r); r.code != 0 || sum.Accepted != 3 || len(leftDead(t, dir)) != 0 {
		t.Errorf("the next run: exit code %d, %+v\n%s", r.code, sum, r.err)
	}
}

func TestRedriveOnceTargetDown(t *testing.T) {
	dir, ids := deadOf(t, 150) // more than the breaker lets pass
	g := newTarget(t, nil)
	g.Close()
	path := redriveFile(t, dir, "to: "+g.URL, "deadline: 1s", "backoff: {first: 10ms, cap: 10ms}")
	r := run(t, "", "redrive", "--once", path)
	if sum := summary(t, r); r.code != 4 || sum.Accepted != 0 || left(sum) != 150 || sum.Error != "" {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	if left := leftDead(t, dir); len(left) != len(ids) {
		t.Errorf("%d left, want %d", len(left), len(ids))
	}
}

// TestRedriveOnceIsKilled kills runs wherever they are: nothing is lost, and nothing but what was
// under way is sent twice.
func TestRedriveOnceIsKilled(t *testing.T) {
	dir, ids := deadOf(t, 200)
	g := newTarget(t, nil)
	path := redriveFile(t, dir, "to: "+g.URL, "rate: 100/s")
	kills := 0
	for round := range 3 {
		c := command(t, "redrive", "--once", path)
		launch(t, c)
		at := len(g.copies())
		waitFor(t, "letters arrive", func() bool { return len(g.copies()) > at+10*(round+1) })
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		if c.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			kills++
		}
		dropLease(t, dir)
	}
	if kills != 3 {
		t.Errorf("%d of 3 runs were killed at work", kills)
	}
	r := run(t, "", "redrive", "--once", path)
	if sum := summary(t, r); r.code != 0 || !sum.Drained {
		t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
	}
	repeats := 0
	for _, id := range ids {
		switch n := g.copies()[id]; {
		case n == 0:
			t.Errorf("%s is lost", id)
		case n > 1:
			repeats += n - 1
		}
	}
	if len(leftDead(t, dir)) > 0 || repeats > kills*100 {
		t.Errorf("%d left, %d repeats by %d kills", len(leftDead(t, dir)), repeats, kills)
	}
	t.Logf("%d letters, %d kills, %d sent again", len(ids), kills, repeats)
}

// dropLease lets time pass for the lease of a run that was killed.
func dropLease(t *testing.T, dir string) {
	t.Helper()
	a := &app{ctx: t.Context(), err: io.Discard, now: time.Now}
	d, err := a.openDirectory(t.Context(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	value, err := json.Marshal(held{Run: "killed", Until: time.Now().Add(-time.Minute)})
	if err == nil {
		_, err = d.Commit(t.Context(), queue.Commit{Writes: []queue.TableWrite{{Table: leaseTable,
			Key: "orders/s", Value: value}}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRedriveOnceTwice runs two at once: each letter is sent once, and both end in good order.
func TestRedriveOnceTwice(t *testing.T) {
	dir, ids := deadOf(t, 60)
	g := newTarget(t, nil)
	path := redriveFile(t, dir, "to: "+g.URL, "rate: 20/s") // so that both are there for a while
	var wg sync.WaitGroup
	results := make([]result, 2)
	first := command(t, "redrive", "--once", path)
	second := command(t, "redrive", "--once", path)
	wg.Go(func() { results[0] = finish(t, first) })
	waitFor(t, "the first one is at work", func() bool { return len(g.copies()) > 0 })
	wg.Go(func() { results[1] = finish(t, second) })
	wg.Wait()
	one, two := summary(t, results[0]), summary(t, results[1])
	if results[0].code != 0 || one.Accepted != 60 {
		t.Errorf("the first: exit code %d, %+v\n%s", results[0].code, one, results[0].err)
	}
	if results[1].code != 4 || two.Accepted != 0 || left(two) <= 0 {
		t.Errorf("the second: exit code %d, %+v\n%s", results[1].code, two, results[1].err)
	}
	for _, id := range ids {
		if n := g.copies()[id]; n != 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
}

// A signal ends a run in good order: what was not sent stays for the next.
func TestRedriveOnceIsStopped(t *testing.T) {
	dir, ids := deadOf(t, 50)
	g := newTarget(t, nil)
	c := command(t, "redrive", "--once", redriveFile(t, dir, "to: "+g.URL, "rate: 20/s"))
	out := launch(t, c)
	waitFor(t, "letters arrive", func() bool { return len(g.copies()) > 3 })
	start := time.Now()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	sent := len(g.copies())
	if code := c.ProcessState.ExitCode(); code != 4 || time.Since(start) > 30*time.Second {
		t.Errorf("exit code %d after %s\n%s", code, time.Since(start), out)
	}
	if left := len(leftDead(t, dir)); sent+left != len(ids) || left == 0 {
		t.Errorf("%d sent and %d left of %d", sent, left, len(ids))
	}
}

func TestRedriveOnceCouldNotWork(t *testing.T) {
	dir, _ := deadOf(t, 1)
	for name, c := range map[string]struct {
		path string
		part string
		left int64 // -1 = it cannot be known
	}{
		"no such subscription": {writeFile(t, "r.yaml", "redrive:\n  - name: r\n    from: queue://"+
			dir+"/orders/no\n"), "subscription", -1},
		"no such topic": {redriveFile(t, dir, "to: queue://"+dir+"/order"), `did you mean "orders"?`, 1},
		"no secret": {redriveFile(t, dir, "to: https://example.com/?secret=env:NO_SUCH_THING"),
			"NO_SUCH_THING", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, "", "redrive", "--once", c.path)
			if sum := summary(t, r); r.code != 1 || sum.Error == "" || sum.Accepted != 0 ||
				left(sum) != c.left || !strings.Contains(r.err, c.part) {
				t.Errorf("exit code %d, %+v\n%s", r.code, sum, r.err)
			}
		})
	}
	if left := leftDead(t, dir); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

// One redrive that cannot work does not keep another from it.
func TestRedriveOnceOfTwo(t *testing.T) {
	dir, _ := deadOf(t, 2)
	file := filepath.Join(t.TempDir(), "out")
	path := writeFile(t, "r.yaml", fmt.Sprintf("redrive:\n  - name: a\n    from: queue://%[1]s/no/s\n"+
		"  - name: b\n    from: queue://%[1]s/orders/s\n    to: file://%[2]s\n", dir, file))
	r := run(t, "", "redrive", "--once", path)
	if r.code != 1 || len(lines(r.out)) != 2 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	a, b := decode[redriven](t, lines(r.out)[0]), decode[redriven](t, lines(r.out)[1])
	if a.Error == "" || b.Accepted != 2 || b.Error != "" {
		t.Errorf("got %+v and %+v", a, b)
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("the file holds %s, %v", text, err)
	}
}

func TestRedriveUsage(t *testing.T) {
	path := writeFile(t, "r.yaml", "redrive:\n  - {name: r, from: queue://d/t/s}\n")
	for _, c := range []struct{ args, part string }{
		{"", "--dir"}, {"--dir d", "topic/subscription"}, {"--once " + path + " --all", "--once"},
		{"--once " + path + " t/s", "--once"}, {"--once " + path + " --rate 1/s", "--once"},
		{"--dir d t/s", "--all"},
	} {
		run(t, "", append([]string{"redrive"}, strings.Fields(c.args)...)...).want(t, 2, c.part)
	}
	run(t, "", "run", path).want(t, 1, "there is no pipeline")
	run(t, "", "redrive", "--once", writeFile(t, "p.yaml", pipelineOf(lineSource, lineSink,
		"no_dead_letters: true"))).want(t, 1, "there is no redrive")
}

// TestQuietIsNoFailure lets a run end at its deadline after its source had brought everything.
func TestQuietIsNoFailure(t *testing.T) {
	for end, want := range map[error]error{io.EOF: nil, errBusy: errBusy} {
		s := newLetterSource(endedSource{end}, newTally(), 0)
		if _, err := s.Receive(t.Context(), 1); !errors.Is(err, end) {
			t.Fatalf("receive: %v, want %v", err, end)
		}
		if got := s.failed(); !errors.Is(got, want) {
			t.Errorf("after %v the source has failed with %v, want %v", end, got, want)
		}
	}
}

// endedSource has nothing.
type endedSource struct{ err error }

func (s endedSource) Receive(context.Context, int) ([]*ackwise.Delivery, error) {
	return nil, s.err
}
func (s endedSource) Features() ackwise.Features { return ackwise.Features{} }
func (s endedSource) Close() error               { return nil }
func (s endedSource) Settle(context.Context, []ackwise.Settlement) []ackwise.SettleResult {
	return nil
}
