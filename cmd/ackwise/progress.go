package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress shows one changing line on a terminal, and nothing elsewhere.
type progress struct {
	w    io.Writer
	text func() string
	quit chan struct{}
	wg   sync.WaitGroup
}

// progressInterval is how often the line is renewed.
const progressInterval = 500 * time.Millisecond

func (a *app) progress(text func() string) *progress {
	p := &progress{w: a.err, text: text, quit: make(chan struct{})}
	if a.terminal {
		p.wg.Go(p.run) // ends with stop
	}
	return p
}

func (p *progress) run() {
	t := time.NewTicker(progressInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.show("")
		case <-p.quit:
			p.show("\n")
			return
		}
	}
}

func (p *progress) show(end string) {
	_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s%s", p.text(), end)
}

// stop shows the last state.
func (p *progress) stop() {
	close(p.quit)
	p.wg.Wait()
}
