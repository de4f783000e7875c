package main

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise/queue"
)

type deadGroupsCmd struct {
	dirFlag
	jsonFlag
	deadFilter
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose dead letters."`
}

// deadGroup is the dead letters of one error.
type deadGroup struct {
	Error  string    `json:"error"` // with numbers and IDs masked
	Count  int       `json:"count"`
	Oldest time.Time `json:"oldest"`
	Newest time.Time `json:"newest"`
	IDs    []string  `json:"ids"` // a few
}

const (
	groupSamples = 3
	// maxGroups bounds the groups; what comes after goes to the last one.
	maxGroups  = 1000
	otherGroup = "(other errors)"
)

// Run groups dead letters.
func (c *deadGroupsCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return c.groups(a, d)
}

func (c *deadGroupsCmd) groups(a *app, d deadStore) error {
	byError := make(map[string]*deadGroup)
	err := eachDead(a.ctx, d, c.Pipeline, c.filter(a.now()), func(l queue.DeadLetter) error {
		text := fingerprint(l.Error)
		g := byError[text]
		if g == nil && len(byError) >= maxGroups {
			text = otherGroup
			g = byError[text]
		}
		if g == nil {
			g = &deadGroup{Error: text, Oldest: l.Time}
			byError[text] = g
		}
		g.Count++
		g.Newest = l.Time
		if len(g.IDs) < groupSamples {
			g.IDs = append(g.IDs, l.Message.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	all := []*deadGroup{}
	for _, g := range byError {
		all = append(all, g)
	}
	slices.SortFunc(all, func(x, y *deadGroup) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Error, y.Error))
	})
	if c.JSON {
		return writeJSON(a.out, all)
	}
	t := newTable(">COUNT", ">OLDEST", ">NEWEST", "ERROR", "SAMPLES")
	for _, g := range all {
		ids := make([]string, len(g.IDs))
		for i, id := range g.IDs {
			ids[i] = short(id, 40)
		}
		t.add(g.Count, ago(a.now(), g.Oldest), ago(a.now(), g.Newest), dash(short(g.Error, 80)),
			strings.Join(ids, " "))
	}
	return t.write(a.out, "no dead letters")
}

// What differs between two errors of the same kind: UUIDs, hexadecimal numbers, numbers.
var (
	uuidText   = regexp.MustCompile(`(?i)\b[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}\b`)
	hexText    = regexp.MustCompile(`(?i)\b(0x)?[0-9a-f]{6,}\b`)
	numberText = regexp.MustCompile(`[0-9]+([.,:][0-9]+)*`)
)

const hexLetters = "abcdefABCDEFxX"

// fingerprint is an error with what differs between two of its kind masked.
func fingerprint(text string) string {
	text = uuidText.ReplaceAllString(text, "<id>")
	text = hexText.ReplaceAllStringFunc(text, func(s string) string {
		digits, letters := strings.ContainsAny(s, "0123456789"), strings.ContainsAny(s, hexLetters)
		if !digits || !letters {
			return s // a word, or a number
		}
		return "<hex>"
	})
	return numberText.ReplaceAllString(text, "<n>")
}
