package texts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ackwise/ackwise/internal/texts"
)

func ExamplePages() {
	var p texts.Pages
	key, id := p.Add([]byte("N14228")), p.Add([]byte("UA1545"))
	fmt.Println(key, id)
	// Output: N14228 UA1545
}

// TestPages: strings of any length stay as they are, whatever comes after them.
func TestPages(t *testing.T) {
	var p texts.Pages
	var want, got []string
	for i := range 2000 {
		s := strings.Repeat(string(rune('a'+i%26)), i*37%700)
		b := []byte(s)
		got, want = append(got, p.Add(b)), append(want, s)
		clear(b)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("string %d is %q, want %q", i, got[i], want[i])
		}
	}
	if n := testing.AllocsPerRun(1000, func() { p.Add([]byte("twenty bytes of text")) }); n > 0.1 {
		t.Errorf("%v allocations a string", n)
	}
}
