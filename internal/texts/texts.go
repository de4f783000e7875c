// Package texts makes strings in pages, so that many small ones cost one piece of memory: keys,
// IDs, positions and tokens of messages that come and go together.
//
// A page stays as long as one of its strings is used, so pages are short, and what is long gets
// memory of its own. Start with ExamplePages. It is not for strings that live much longer than
// their neighbours.
package texts

import (
	"cmp"
	"strings"
)

// Pages makes strings. The zero value is ready to use, by one goroutine at a time.
type Pages struct {
	// Size is the length of a page in bytes. A string that is longer than an eighth of it, and than
	// 128 bytes, gets memory of its own. Default: 4096.
	Size int

	page strings.Builder
}

const (
	defaultSize = 4096
	shortBytes  = 128
)

// Add returns a string of the bytes.
func (p *Pages) Add(b []byte) string {
	size := cmp.Or(p.Size, defaultSize)
	if len(b) == 0 || len(b) > max(size/8, shortBytes) {
		return string(b)
	}
	if p.page.Len()+len(b) > p.page.Cap() {
		p.page = strings.Builder{}
		p.page.Grow(max(size, len(b)))
	}
	from := p.page.Len()
	p.page.Write(b) // the strings of before stay: it only writes behind them
	return p.page.String()[from:]
}
