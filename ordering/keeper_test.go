package ordering

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

func loaded(t *testing.T, k *FileKeeper) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := k.Load(t.Context(), func(r Record) error {
		got[r.Name] = string(r.Value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func openMem(t *testing.T, fs vfs.FS) (*FileKeeper, error) {
	t.Helper()
	_ = fs.MkdirAll("/keeper") // a disk that fails has it already
	return openKeeper(fs, "/keeper")
}

// Whichever call to the disk is the last one, what a Save returned is there after a power cut, and
// what it did not return is there whole or not at all.
func TestFileKeeperSurvivesPowerCuts(t *testing.T) {
	fired := 0
	for seed := range uint64(runs(20, 500)) {
		for n := 1; ; n++ {
			hit := keeperCrash(t, seed, n)
			if !hit {
				break
			}
			fired++
		}
	}
	if fired < 100 {
		t.Errorf("only %d crashes", fired)
	}
}

func keeperCrash(t *testing.T, seed uint64, n int) (fired bool) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	mem := vfs.NewMem()
	if err := mem.MkdirAll("/keeper"); err != nil {
		t.Fatal(err)
	}
	faults := vfs.NewFaults(mem)
	fault := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: n, Onward: true, Err: syscall.EIO,
		Short: rng.IntN(60)}
	faults.Set(fault)
	want, maybe := map[string]string{}, map[string]string{}
	if k, err := openMem(t, faults); err == nil {
		for i := range 12 {
			next := maps.Clone(want)
			var rs []Record
			for range 1 + rng.IntN(3) {
				r := Record{Name: fmt.Sprint("r", rng.IntN(4))}
				if rng.IntN(4) > 0 {
					r.Value = fmt.Appendf(nil, "%d %0*d", i, rng.IntN(700), 0)
					next[r.Name] = string(r.Value)
				} else {
					delete(next, r.Name)
				}
				rs = append(rs, r)
			}
			if err := k.Save(t.Context(), rs); err != nil {
				maybe = next
				break
			}
			want, maybe = next, next
		}
	}
	for range 2 { // a second power cut right after recovery
		mem = mem.CrashClone(rng)
		k, err := openMem(t, mem)
		if err != nil {
			t.Fatalf("seed %d, call %d: %v", seed, n, err)
		}
		if got := loaded(t, k); !maps.Equal(got, want) && !maps.Equal(got, maybe) {
			t.Fatalf("seed %d, call %d: %v is kept, want %v or %v", seed, n, got, want, maybe)
		}
	}
	return faults.Fired(fault) > 0
}

// A byte that the disk spoils, before the last frame, is refused and told where.
func TestFileKeeperRefusesDamage(t *testing.T) {
	mem := vfs.NewMem()
	k, err := openMem(t, mem)
	if err != nil {
		t.Fatal(err)
	}
	ends := []int64{k.end}
	for i := range 4 {
		if err := k.Save(t.Context(), []Record{{Name: "n", Value: []byte{byte(i)}}}); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, k.end)
	}
	for at := range ends[3] {
		spoilt := mem.Clone()
		if err := spoilt.Flip("/keeper/kept", at, 0x10); err != nil {
			t.Fatal(err)
		}
		_, err := openMem(t, spoilt)
		if hint, ok := errors.AsType[*ackwise.HintError](err); !ok || hint.Hint == "" {
			t.Errorf("byte %d spoilt: %v", at, err)
		}
	}
}

// The file does not grow for good, and a failed sync is final.
func TestFileKeeperIsBounded(t *testing.T) {
	mem := vfs.NewMem()
	faults := vfs.NewFaults(mem)
	k, err := openMem(t, faults)
	if err != nil {
		t.Fatal(err)
	}
	big := slices.Repeat([]byte("x"), 10_000)
	for i := range 1000 {
		r := Record{Name: fmt.Sprint(i % 7), Value: big}
		if err := k.Save(t.Context(), []Record{r}); err != nil {
			t.Fatal(err)
		}
	}
	if k.end > 2<<20 || len(loaded(t, k)) != 7 {
		t.Errorf("the file has %d bytes for %d records", k.end, len(loaded(t, k)))
	}
	fault := &vfs.Fault{Op: vfs.OpSync, N: 1, Err: syscall.EIO}
	faults.Set(fault)
	first := k.Save(t.Context(), []Record{{Name: "a", Value: big}})
	again := k.Save(t.Context(), []Record{{Name: "a", Value: big}})
	if first == nil || again == nil || faults.Fired(fault) != 1 {
		t.Errorf("a failed sync: %v, then %v", first, again)
	}
}

// One process at a time.
func TestFileKeeperIsOneProcess(t *testing.T) {
	dir := t.TempDir()
	k, err := OpenFileKeeper(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileKeeper(dir); err == nil {
		t.Error("it was opened twice")
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Save(t.Context(), []Record{{Name: "a"}}); !errors.Is(err, ackwise.ErrClosed) {
		t.Errorf("a save after Close: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}
