package queue

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

// readAllOf reads the state of the checkpoint at a position.
func readAllOf(fs vfs.FS, pos uint64) ([]byte, error) {
	r, _, err := openCheckpoint(fs, "/store", pos)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.file.Close())
}

// Damage of a checkpoint is found before anything of it is believed, and told with its offset.
func TestADamagedCheckpointIsNamedWithItsOffset(t *testing.T) {
	mem := vfs.NewMem()
	if err := mem.MkdirAll("/store"); err != nil {
		t.Fatal(err)
	}
	state := bytes.Repeat([]byte("0123456789abcdef"), 40_000) // three blocks
	m := mark{pos: 4096, storeID: [16]byte{7}}
	if err := writeCheckpoint(mem, "/store", m, bytes.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	name := "/store/" + checkpointName(m.pos)
	whole, _ := mem.ReadFile(name)
	if int64(len(whole)) != checkpointSize(int64(len(state))) {
		t.Fatalf("%d bytes, want %d", len(whole), checkpointSize(int64(len(state))))
	}
	swapped := slices.Clone(whole)
	const block = checkpointBlock + 4
	copy(swapped[checkpointHead:], whole[checkpointHead+block:][:block])
	copy(swapped[checkpointHead+block:], whole[checkpointHead:][:block])
	flipped := func(at int) []byte {
		b := slices.Clone(whole)
		b[at] ^= 1
		return b
	}
	for what, c := range map[string]struct {
		file   []byte
		offset int64
	}{
		"a flipped bit of the header":      {flipped(40), 0},
		"of the first block":               {flipped(checkpointHead), checkpointHead},
		"of the last block":                {flipped(len(whole) - 5), checkpointHead + 2*block},
		"of the last checksum":             {flipped(len(whole) - 1), checkpointHead + 2*block},
		"two blocks in each other's place": {swapped, checkpointHead},
		"a byte missing":                   {whole[:len(whole)-1], int64(len(whole) - 1)},
		"a byte too much":                  {append(slices.Clone(whole), 0), int64(len(whole))},
		"nothing":                          {nil, 0},
	} {
		if err := mem.WriteFile(name, c.file); err != nil {
			t.Fatal(err)
		}
		got, err := readAllOf(mem, m.pos)
		damage, ok := errors.AsType[*CorruptionError](err)
		if !ok || damage.Offset != c.offset || !strings.HasPrefix(damage.Segment, checkpointPrefix) {
			t.Errorf("%s: %v, want offset %d", what, err, c.offset)
		}
		if !bytes.HasPrefix(state, got) {
			t.Errorf("%s: %d bytes were given that are not what was written", what, len(got))
		}
	}
	if err := mem.WriteFile(name, whole); err != nil {
		t.Fatal(err)
	}
	if got, err := readAllOf(mem, m.pos); err != nil || !bytes.Equal(got, state) {
		t.Errorf("the undamaged one: %d bytes, %v", len(got), err)
	}
}

// A checkpoint that cannot be written leaves nothing behind, and the next one comes as if nothing
// had been.
func TestACheckpointThatFailsLeavesNothing(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpRename} {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("/store"); err != nil {
			t.Fatal(err)
		}
		faults := vfs.NewFaults(mem)
		fault := &vfs.Fault{Op: op, N: 1, Err: syscall.ENOSPC}
		faults.Set(fault)
		m := mark{pos: 512}
		state := bytes.Repeat([]byte{1}, 300_000)
		err := writeCheckpoint(faults, "/store", m, bytes.NewReader(state))
		if !errors.Is(err, syscall.ENOSPC) || faults.Fired(fault) == 0 {
			t.Errorf("%v: %v", op, err)
		}
		if names, _ := mem.ReadDir("/store"); len(names) > 0 {
			t.Errorf("%v: %v is left", op, names)
		}
		if err := writeCheckpoint(faults, "/store", m, bytes.NewReader(state)); err != nil {
			t.Errorf("%v: the next one: %v", op, err)
		}
		if got, err := readAllOf(faults, m.pos); err != nil || !bytes.Equal(got, state) {
			t.Errorf("%v: the next one holds %d bytes, %v", op, len(got), err)
		}
	}
}
