package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

type auditCmd struct {
	dirFlag
	jsonFlag
}

// auditor tells the books.
type auditor interface {
	Books(ctx context.Context) ([]queue.Books, error)
	Topics(ctx context.Context) ([]queue.TopicInfo, error)
}

// audited is the books of one subscription as JSON.
type audited struct {
	queue.Books
	Balanced   bool  `json:"balanced"`
	Difference int64 `json:"difference"` // accepted less what is accounted for
}

// Run shows the books.
func (c *auditCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return c.audit(a, d)
}

func (c *auditCmd) audit(a *app, d auditor) error {
	books, err := d.Books(a.ctx)
	if err != nil {
		return err
	}
	all := make([]audited, len(books))
	var wrong []string
	for i, b := range books {
		all[i] = audited{Books: b, Balanced: b.Balanced(), Difference: difference(b)}
		if !b.Balanced() {
			wrong = append(wrong, b.Topic+"/"+b.Subscription)
		}
	}
	if c.JSON {
		err = writeJSON(a.out, all)
	} else {
		err = c.write(a, d, all)
	}
	if err == nil && len(wrong) > 0 {
		err = finding(fmt.Errorf("the books of %s do not balance", strings.Join(wrong, ", ")))
	}
	return err
}

func difference(b queue.Books) int64 {
	return b.Accepted - (b.Acked + b.Ready + b.Delayed + b.InFlight + b.Parked + b.Dead + b.Dropped)
}

func (c *auditCmd) write(a *app, d auditor, all []audited) error {
	t := newTable("SUBSCRIPTION", ">ACCEPTED", ">ACKED", ">READY", ">DELAYED", ">IN FLIGHT",
		">PARKED", ">DEAD", ">DROPPED", "BOOKS")
	causes := newTable("SUBSCRIPTION", "HAND-OUTS BY CAUSE", "DROPPED FOR")
	for _, b := range all {
		verdict := "balanced"
		if !b.Balanced {
			verdict = fmt.Sprintf("off by %+d", b.Difference)
		}
		name := b.Topic + "/" + b.Subscription
		t.add(name, b.Accepted, b.Acked, b.Ready, b.Delayed, b.InFlight, b.Parked, b.Dead,
			b.Dropped, verdict)
		causes.add(name, dash(causeText(b.Causes)), dash(reasonText(b.DroppedFor)))
	}
	if err := t.write(a.out, "no subscriptions"); err != nil {
		return err
	}
	if len(all) > 0 {
		if _, err := fmt.Fprintln(a.out); err != nil {
			return err
		}
		if err := causes.write(a.out, ""); err != nil {
			return err
		}
	}
	topics, err := d.Topics(a.ctx)
	if err != nil {
		return err
	}
	for _, topic := range topics {
		if len(topic.Subscriptions) > 0 {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "topic %s: %s kept, no subscription\n", topic.Name,
			count(int(topic.Messages), "message")); err != nil {
			return err
		}
	}
	return nil
}

func causeText(causes map[ackwise.Cause]int64) string {
	var parts []string
	for _, c := range slices.Sorted(maps.Keys(causes)) {
		parts = append(parts, fmt.Sprintf("%s %d", c, causes[c]))
	}
	return strings.Join(parts, ", ")
}

func reasonText(reasons map[string]int64) string {
	var parts []string
	for _, r := range slices.Sorted(maps.Keys(reasons)) {
		parts = append(parts, fmt.Sprintf("%s: %d", short(r, 40), reasons[r]))
	}
	return strings.Join(parts, ", ")
}
