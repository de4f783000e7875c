package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise"
)

func openTestPlace(t *testing.T, path string) (*place, *mark) {
	t.Helper()
	p, m, err := openPlace(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePlace(t, p) })
	return p, m
}

func closePlace(t testing.TB, p *place) {
	t.Helper()
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

func TestPlaceRemembersTheLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "position")
	p, m := openTestPlace(t, path)
	if m != nil {
		t.Fatalf("a new position file says %+v", m)
	}
	for i := range int64(5) {
		if err := p.save(mark{Generation: 1, Offset: i, Note: []byte(strings.Repeat("n",
			int(5000-1000*i)))}); err != nil {
			t.Fatal(err)
		}
	}
	closePlace(t, p)
	_, m = openTestPlace(t, path)
	if m == nil || m.Offset != 4 || m.Seq != 5 || len(m.Note) != 1000 {
		t.Errorf("after five marks it says %+v", m)
	}
}

// TestPlaceCutShort cuts the last write at every 512th byte, and flips bits of it: the mark before
// counts then, or the last one where nothing of it is missing.
func TestPlaceCutShort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "position")
	p, _ := openTestPlace(t, path)
	note := []byte(strings.Repeat("note", 700))
	for i := range int64(3) {
		if err := p.save(mark{Generation: 1, Offset: 10 * i, Note: note}); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := os.ReadFile(path)
	if err := p.save(mark{Generation: 1, Offset: 30, Note: note}); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(path)
	closePlace(t, p)
	seen := map[int64]int{}
	try := func(data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		p, m, err := openPlace(path)
		if err != nil {
			t.Fatal(err)
		}
		closePlace(t, p)
		seen[m.Offset]++
	}
	for cut := 0; cut <= slotBytes; cut += 512 {
		try(append(append([]byte(nil), after[:cut]...), before[cut:]...))
	}
	if seen[20] == 0 || seen[30] == 0 || len(seen) != 2 {
		t.Errorf("offsets after cut writes: %v, want 20 and 30 only", seen)
	}
	clear(seen)
	for bit := 0; bit < 4000*8; bit += 97 {
		data := append([]byte(nil), after...)
		data[bit/8] ^= 1 << (bit % 8)
		try(data)
	}
	if seen[20] == 0 || len(seen) > 2 || seen[30] > 8 {
		t.Errorf("offsets after flipped bits: %v, want 20, but where the flip hit padding", seen)
	}
}

func TestPlaceRefusesWhatItDoesNotKnow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "somebody's.csv")
	const content = "precious,data\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := openPlace(path)
	if err == nil || !strings.Contains(err.Error(), "it is damaged, or not a position file") {
		t.Errorf("got %v, want a refusal", err)
	}
	if got, _ := os.ReadFile(path); string(got) != content {
		t.Errorf("the file was changed to %q", got)
	}
}

func TestPlaceIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "position")
	p, _ := openTestPlace(t, path)
	if _, _, err := openPlace(path); err == nil ||
		!strings.Contains(err.Error(), "another pipeline uses it") {
		t.Errorf("the second open says %v", err)
	}
	closePlace(t, p)
	openTestPlace(t, path)
}

func TestPlaceThatCannotBeWritten(t *testing.T) {
	for _, cause := range []error{syscall.EROFS, fs.ErrPermission} {
		var hint *ackwise.HintError
		if err := placeError("p", cause); !errors.As(err, &hint) || !errors.Is(err, cause) ||
			!strings.Contains(hint.Hint, "position") {
			t.Errorf("%v becomes %v, want a hint to the option", cause, err)
		}
	}
	if _, _, err := openPlace(filepath.Join(t.TempDir(), "no", "position")); !errors.Is(err,
		fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}

// A failed sync is not forgotten: what the system says of the file later cannot be relied on.
func TestPlaceAfterAFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "position")
	p, _ := openTestPlace(t, path)
	if err := p.save(mark{Generation: 1, Offset: 1}); err != nil {
		t.Fatal(err)
	}
	whole := p.f
	p.f, _ = os.Open(path) // it cannot be written
	if err := p.save(mark{Generation: 1, Offset: 2}); err == nil {
		t.Error("a write that must fail succeeded")
	}
	if p.seq != 1 {
		t.Errorf("seq is %d after a failed write, want 1: the same slot is written again", p.seq)
	}
	p.f.Close()
	p.f = whole
	p.broken = errors.New("the sync failed")
	if err := p.save(mark{}); !errors.Is(err, p.broken) {
		t.Errorf("after a failed sync a write says %v", err)
	}
}

func FuzzReadSlot(f *testing.F) {
	dir := f.TempDir()
	p, _, err := openPlace(filepath.Join(dir, "position"))
	if err != nil {
		f.Fatal(err)
	}
	if err := p.save(mark{Generation: 2, Offset: 12, Note: []byte("note")}); err != nil {
		f.Fatal(err)
	}
	closePlace(f, p)
	data, _ := os.ReadFile(filepath.Join(dir, "position"))
	f.Add(data[slotBytes:])
	f.Add([]byte(slotPrefix + "00000000 {}"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m := readSlot(data); m != nil && (m.Offset < 0 || m.Generation < 1) {
			t.Errorf("read an impossible mark %+v", m)
		}
	})
}
