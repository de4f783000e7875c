package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
)

// bodyText is a body in a table, cut at n characters.
func bodyText(body []byte, n int) string {
	switch {
	case body == nil:
		return "(none)"
	case !utf8.Valid(body):
		return fmt.Sprintf("(%d bytes, not text)", len(body))
	case len(body) > 4*n:
		body = body[:4*n]
	}
	return short(strings.ToValidUTF8(string(body), ""), n)
}

// writeMessage shows a whole message.
func writeMessage(w io.Writer, m ackwise.Message, c ackwise.Counts) error {
	var b strings.Builder
	row := func(name string, value any) { fmt.Fprintf(&b, "%-9s %v\n", name, value) }
	row("id", printable(m.ID))
	row("key", dash(printable(m.Key)))
	if !m.Time.IsZero() {
		row("time", m.Time.UTC().Format(time.RFC3339Nano))
	}
	for _, h := range m.Headers {
		row("header", printable(h.Name)+"="+printable(string(h.Value)))
	}
	row("counts", fmt.Sprintf("hand-outs %d, failures %d, crashes %d, redrives %d", c.HandOuts,
		c.Failures, c.Crashes, c.Redrives))
	row("body", bodyText(m.Body, 4096))
	_, err := io.WriteString(w, b.String())
	return err
}

// writeHistory shows past attempts.
func writeHistory(a *app, history []ackwise.Attempt) error {
	if _, err := io.WriteString(a.out, "\n"); err != nil {
		return err
	}
	t := newTable(">ATTEMPT", "WHEN", "CONSUMER", "CAUSE", "OUTCOME", ">TOOK", "ERROR")
	for _, h := range history {
		t.add(h.Number, h.Time.UTC().Format(time.RFC3339), short(h.Consumer, 24), h.Cause, h.Outcome,
			human(h.Duration), dash(short(h.Error, 80)))
	}
	return t.write(a.out, "no past attempts")
}
