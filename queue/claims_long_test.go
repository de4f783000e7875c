package queue

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/vfs"
)

// longKeys claims and completes keys [from, to) in batches, and returns how long that took.
func longKeys(t *testing.T, s *Store, from, to int) time.Duration {
	t.Helper()
	began := time.Now()
	const batch = 4096
	for ; from < to; from += batch {
		asks := make([]idempotency.Ask, min(batch, to-from))
		for i := range asks {
			asks[i] = idempotency.Ask{Key: longKey(from + i), Sum: idempotency.Sum{1, byte(i)},
				Lease: time.Hour}
		}
		answers, err := s.Claim(t.Context(), "set", asks)
		if err != nil {
			t.Fatal(err)
		}
		settle := make([]idempotency.Settlement, len(asks))
		for i, a := range answers {
			if a.Status != idempotency.Claimed {
				t.Fatalf("%s: %+v", asks[i].Key, a)
			}
			settle[i] = idempotency.Settlement{Key: asks[i].Key, Fence: a.Fence,
				Verb: idempotency.Complete}
		}
		errs, err := s.SettleClaims(t.Context(), "set", settle)
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range errs {
			if err != nil {
				t.Fatalf("%s: %v", asks[i].Key, err)
			}
		}
	}
	return time.Since(began)
}

// longKey is as long as a UUID.
func longKey(n int) string { return fmt.Sprintf("0197f3c2-aaaa-7bbb-8ccc-%012d", n) }

// resident returns what the process holds in memory, and the most it ever held, in MiB.
func resident(t *testing.T) (now, peak int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("the system does not tell what a process holds in memory")
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &now); err == nil {
			continue
		}
		_, _ = fmt.Sscanf(line, "VmHWM: %d kB", &peak)
	}
	return now >> 10, peak >> 10
}

// Row: ten million keys within 256 MiB, over a restart too; every one of them is known, and none
// that was never asked for.
func TestFaultTenMillionKeys(t *testing.T) {
	if !long() {
		t.Skip("long: ACKWISE_FAULTS=long")
	}
	const keys, most = 10_000_000, 256
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // peak = now
		t.Skip("the peak of what is held in memory cannot be reset:", err)
	}
	dir := t.TempDir()
	var rates []string
	s, err := Open(dir, Options{Sync: SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	openSet(t, s, 24*time.Hour, 1<<24)
	const step = keys / 10
	for n := 0; n < keys; n += step {
		took := longKeys(t, s, n, n+step)
		now, peak := resident(t)
		rates = append(rates, fmt.Sprintf("%d million: %.0f keys/s, %d MiB now, %d at most",
			(n+step)/1_000_000, step/took.Seconds(), now, peak))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if s, err = Open(dir, Options{Sync: SyncNever}); err != nil {
		t.Fatal(err)
	}
	rates = append(rates, fmt.Sprintf("opened in %s", time.Since(began)))
	for n := 0; n < keys+100_000; n += 997 {
		a, err := s.Look(t.Context(), "set", idempotency.Ask{Key: longKey(n)})
		if want := n < keys; err != nil || (a.Status == idempotency.Done) != want {
			t.Fatalf("key %d is %s (%v), want it done: %t", n, a.Status, err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, peak := resident(t)
	t.Logf("%s\npeak: %d MiB", strings.Join(rates, "\n"), peak)
	if peak > most {
		t.Errorf("%d MiB were held at most, want %d", peak, most)
	}
}

// Row: claims that nobody settles are bounded.
func TestFaultClaimsAreBounded(t *testing.T) {
	if !long() {
		t.Skip("long: ACKWISE_FAULTS=long")
	}
	s, err := Open(t.TempDir(), Options{Sync: SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	openSet(t, s, 24*time.Hour, 1<<24)
	const batch = 4096
	for n := 0; n < maxClaims+batch; n += batch {
		keys := make([]string, batch)
		for i := range keys {
			keys[i] = longKey(n + i)
		}
		for i, a := range claimAll(t, s, 0, keys...) {
			if n < maxClaims && a.Status != idempotency.Claimed ||
				n >= maxClaims && !errors.Is(a.Err, ackwise.ErrFull) {
				t.Fatalf("claim %d: %+v", n+i, a)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Row: a million keys that are out of the window go at once. In the short form there are fewer.
func TestFaultAMillionKeysAreLetGo(t *testing.T) {
	keys := 60_000
	o := Options{Sync: SyncNever, bucketIDs: 1 << 14}
	if long() {
		keys, o.bucketIDs = 1_000_000, 1<<20
	}
	dir := t.TempDir()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	openSet(t, s, 24*time.Hour, 1<<24)
	longKeys(t, s, 0, keys)
	before := setFiles(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, o); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	w := s.dedup.byID[s.st.Set("set").ID]
	held := w.Count(s.clock.now())
	s.mu.Unlock()
	if held != keys || before == 0 {
		t.Fatalf("%d keys are held in %d files, want %d keys", held, before, keys)
	}
	began := time.Now()
	s.mu.Lock()
	records := s.st.Tick(s.clock.now() + (25 * time.Hour).Milliseconds())
	s.append(records, false)
	s.dedup.expireSets(s.st)
	locked := time.Since(began)
	s.mu.Unlock()
	if len(records) == 0 {
		t.Fatal("nothing was let go")
	}
	if err := s.maintainWindows(s.syncAll); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	s.mu.Lock()
	left := w.Count(s.clock.now())
	s.mu.Unlock()
	if files := setFiles(t, dir); left != 0 || files != 0 {
		t.Errorf("%d keys and %d files are left", left, files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d keys in %d files went in %s, of which the lock was held for %s", keys, before, took,
		locked)
	if long() && took > time.Second {
		t.Errorf("it took %s, want less than a second", took)
	}
}

// setFiles counts the files of buckets.
func setFiles(t *testing.T, dir string) int {
	t.Helper()
	names, err := vfs.OS{}.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(names, func(name string) bool {
		return !strings.HasPrefix(filepath.Base(name), "dedup-")
	}))
}
