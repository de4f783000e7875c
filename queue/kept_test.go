package queue

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// A position that no publish returned is nobody's message and no damage; a message whose bytes are
// not what was written is damage.
func TestReadTellsDamageFromNonsense(t *testing.T) {
	mem := vfs.NewMem()
	s := openMem(t, mem, Options{})
	create(t, s, "orders", "billing", SubscriptionOptions{})
	body := []byte("a body that is easily found")
	at := publish(t, s, ackwise.Message{Topic: "orders", Body: body})[0].Position
	pos, err := parsePosition(at)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []uint64{1, 8, 40, 4096, 1 << 40, -pos - 1, -pos} {
		_, err := s.Read(t.Context(), "orders", []ackwise.Position{at, position(pos + off)})
		if e, ok := errors.AsType[*ackwise.NotFoundError](err); !ok || e.Kind != "message" {
			t.Errorf("at %s: %v, want a *ackwise.NotFoundError", position(pos+off), err)
		}
	}
	names, err := mem.ReadDir("/store")
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, name := range names {
		file, err := mem.ReadFile("/store/" + name)
		if off := bytes.Index(file, body); err == nil && off >= 0 {
			err = mem.Flip("/store/"+name, int64(off), 1)
			flipped++
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if flipped != 1 {
		t.Fatalf("%d files hold the body", flipped)
	}
	_, err = s.Read(t.Context(), "orders", []ackwise.Position{at})
	if _, ok := errors.AsType[*CorruptionError](err); !ok {
		t.Errorf("a damaged message: %v, want a *CorruptionError", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
