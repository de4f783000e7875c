package arena

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Every piece is what was put in, whatever is put in or written to after it.
func TestPiecesKeepTheirContent(t *testing.T) {
	for _, messages := range []int{0, 1, 7, 3000} {
		a := New(messages, messages*100)
		var texts []string
		var pieces [][]byte
		for i := range 3000 {
			text := []byte(strings.Repeat(fmt.Sprint(i, " "), i%50))
			texts = append(texts, a.String(text))
			pieces = append(pieces, a.Bytes(text))
			clear(text) // the arena has a copy
		}
		for i := range pieces {
			_ = append(pieces[i], "over the neighbour"...)
		}
		for i := range pieces {
			want := strings.Repeat(fmt.Sprint(i, " "), i%50)
			if texts[i] != want || !bytes.Equal(pieces[i], []byte(want)) || pieces[i] == nil {
				t.Fatalf("%d messages: piece %d is %q and %q, want %q", messages, i, texts[i],
					pieces[i], want)
			}
		}
	}
}

// A batch costs a few allocations; large messages do not waste what is left of a chunk.
func TestABatchCostsFewAllocations(t *testing.T) {
	body, text := make([]byte, 100), make([]byte, 80)
	allocs := testing.AllocsPerRun(10, func() {
		a := New(256, 256*100)
		for range 256 {
			a.Bytes(body)
			a.String(text)
		}
	})
	if allocs > 4 { // the arena, one chunk of bytes, two of text
		t.Errorf("%v allocations for a batch of 256", allocs)
	}
	allocs = testing.AllocsPerRun(10, func() {
		a := New(100, 100*(40<<10)+100*100)
		for range 100 {
			a.Bytes(make([]byte, 40<<10))
			a.Bytes(body)
		}
	})
	if allocs > 202 { // each large one and its copy, one chunk for all others
		t.Errorf("%v allocations for 100 large pieces and 100 small ones", allocs)
	}
}
