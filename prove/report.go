package prove

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

// step is one line of what happened in a run: a delivery and how it went, or a word between two.
type step struct {
	msg      int // index of the message; -1 = a word between
	title    string
	attempt  int // 0 = not the begin of a delivery
	cause    ackwise.Cause
	consumer int
	path     []string // what the handler did, and where it was stopped
	plain    bool     // a first delivery that went as in the clean run
}

// note begins the line of a delivery.
func (r *run) note(d *ackwise.Delivery, p *process) *step {
	s := &step{msg: r.index(d), plain: d.Attempt == 1, attempt: d.Attempt, cause: d.Cause,
		consumer: p.number, title: fmt.Sprintf("delivery %d (%s) to consumer %d", d.Attempt, d.Cause,
			p.number)}
	r.steps = append(r.steps, s)
	return s
}

// noteOf begins the line on which a held actor goes on.
func (r *run) noteOf(a *actor) *step {
	s := &step{msg: a.msg, title: fmt.Sprintf("delivery %d, consumer %d goes on", a.number,
		a.process.number)}
	r.steps = append(r.steps, s)
	return s
}

// say adds a word between two deliveries.
func (r *run) say(format string, args ...any) {
	r.steps = append(r.steps, &step{msg: -1, title: fmt.Sprintf(format, args...)})
}

func (s *step) add(word string) { s.path = append(s.path, word) }

// stop notes what the prover did to the delivery.
func (s *step) stop(word string) { s.add(word); s.plain = false }

// stopAt notes where a handler was stopped.
func (s *step) stopAt(word string, p point) {
	switch p.phase {
	case before:
		word += " before " + p.name
	case after:
		s.add(p.name)
	case alone:
		word += " at " + p.name
	}
	s.stop(word)
}

// passed notes a point that the handler passed: a call counts where it ends.
func (s *step) passed(p point, failed bool) {
	switch {
	case p.phase == before && failed:
		s.stop(p.name + " IS REFUSED")
	case p.phase == after && failed:
		s.stop(p.name + " IS DONE, ITS ANSWER LOST")
	case p.phase != before:
		s.add(p.name)
	}
}

// settle notes how the delivery ended.
func (s *step) settle(v ackwise.Verdict) {
	s.add(verdictText(v))
	s.plain = s.plain && v.Outcome == ackwise.OutcomeAck
}

func verdictText(v ackwise.Verdict) string {
	s := v.Outcome.String()
	if v.Delay > 0 {
		s += " for " + v.Delay.String()
	}
	if v.Reason != "" {
		s += ": " + v.Reason
	}
	return s
}

// story tells what happened, a delivery a line. Deliveries that went as in the clean run and stand
// side by side share a line, and so do those of one message that went alike.
func (r *run) story() string {
	var b strings.Builder
	for i := 0; i < len(r.steps); i++ {
		s := r.steps[i]
		if s.msg < 0 {
			fmt.Fprintf(&b, "  %s\n", s.title)
			continue
		}
		if last := r.side(i, plainAlike); last > i {
			fmt.Fprintf(&b, "  messages %d to %d, delivered once each to consumer %d\n      ack\n",
				s.msg+1, r.steps[last].msg+1, s.consumer)
			i = last
			continue
		}
		fmt.Fprintf(&b, "  message %d (%s), ", s.msg+1, r.c.Messages[s.msg].ID)
		if last := r.side(i, repeated); last > i+1 {
			fmt.Fprintf(&b, "deliveries %d to %d (%s) to consumer %d\n      %s, each\n", s.attempt,
				r.steps[last].attempt, s.cause, s.consumer, s.way())
			i = last
			continue
		}
		fmt.Fprintf(&b, "%s\n      %s\n", s.title, s.way())
	}
	return b.String()
}

// way is what the handler did, the same thing on end told once.
func (s *step) way() string {
	var words []string
	for i := 0; i < len(s.path); {
		n := 1
		for i+n < len(s.path) && s.path[i+n] == s.path[i] {
			n++
		}
		word := s.path[i]
		if n > 1 {
			word += fmt.Sprintf(" (%d times)", n)
		}
		words = append(words, word)
		i += n
	}
	return strings.Join(words, " → ")
}

// side is the index of the last of the steps from i on that are alike, each with the one before it.
func (r *run) side(i int, alike func(a, b *step) bool) int {
	for i+1 < len(r.steps) && alike(r.steps[i], r.steps[i+1]) {
		i++
	}
	return i
}

func plainAlike(a, b *step) bool {
	return a.plain && b.plain && b.msg == a.msg+1 && a.consumer == b.consumer
}

func repeated(a, b *step) bool {
	return a.msg == b.msg && a.attempt > 0 && b.attempt == a.attempt+1 && a.cause == b.cause &&
		a.consumer == b.consumer && slices.Equal(a.path, b.path)
}

// differs reports whether a run ended otherwise than the clean one: in its effects, or in what
// became of a message.
func (r *run) differs() bool {
	return len(r.clean.effects.differences(r.effects)) > 0 || r.fates() != ""
}

// fates tells which messages ended otherwise than in the clean run.
func (r *run) fates() string {
	var b strings.Builder
	for i := range r.lives {
		if want, got := r.clean.lives[i].fate, r.lives[i].fate; want != got {
			fmt.Fprintf(&b, "  message %d (%s): want %s, got %s\n", i+1, r.c.Messages[i].ID, want, got)
		}
	}
	return b.String()
}

// maxDifferences bounds the differences that are shown.
const maxDifferences = 12

// comparison tells what differs, want and got.
func (r *run) comparison() string {
	text := differencesText("Effects that differ from the clean run",
		r.clean.effects.differences(r.effects))
	if fates := r.fates(); fates != "" {
		text += "Messages that end otherwise than in the clean run:\n" + fates
	}
	return text
}

func differencesText(title string, all []difference) string {
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(title + ":\n")
	width := 0
	for _, d := range all[:min(len(all), maxDifferences)] {
		width = max(width, len([]rune(d.path)))
	}
	for i, d := range all {
		if i == maxDifferences {
			fmt.Fprintf(&b, "  and %d more\n", len(all)-i)
			break
		}
		fmt.Fprintf(&b, "  %-*s  want %s, got %s\n", width, d.path, orNothing(d.want), orNothing(d.got))
	}
	return b.String()
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// meaning says what a fault shows, and what to do about it.
func (k kind) meaning() string {
	switch k {
	case again:
		return "A message comes again, and its effect is made again. Make the effect idempotent, or " +
			"put idempotency.Dedup around it."
	case lost:
		return "The ack of a message can get lost on its way: it is made again after it had succeeded."
	case crash:
		return "A consumer can die between any two steps: what was marked before its effect is " +
			"lost or stuck then, and an effect that is marked after it is made twice. Dedup around " +
			"an effect that lives elsewhere leaves this gap: make marker and effect in one " +
			"transaction (queue.Transact, postgres.Inbox), or let the effect be one that may be " +
			"made twice (Write, Upsert, Compare, or a key that the other side deduplicates by)."
	case fail:
		return "A call that fails must fail the message (return the error), and what was marked as " +
			"begun must be given back: the message comes again, and has to find its effect undone."
	case unsure:
		return "A call whose answer is lost may have been made: the message comes again, and has to " +
			"find out."
	case down:
		return "A store can be down for longer than a handler tries: then the message has to fail " +
			"(return the error), so that it comes again. It is neither done nor dropped."
	case stall:
		return "A consumer can be slower than its leases. It wakes up after another has done its " +
			"work, and does it again: a fence in the same transaction as the effect stops it, a " +
			"claim alone does not."
	case race:
		return "Two consumers can hold one message at once. Only a claim, a version or a " +
			"transaction tells them apart."
	case orphan:
		return "A duplicate was answered \"done\" while the first consumer was still at it, and that " +
			"one died: nobody does the work any more. A duplicate of a running one has to wait."
	case beside:
		return "Two messages can be handled at once. What is read, changed and written back has to " +
			"be compared on the way (Compare, Apply), or one write is lost."
	}
	return ""
}

// conviction is the text of a schedule under which the handler differs.
func (r *run) conviction(s schedule, found string) string {
	var b strings.Builder
	b.WriteString("the handler does not survive redelivery: it ends otherwise than one clean run\n\n")
	fmt.Fprintf(&b, "Shortest schedule that differs (%s; %s): %s\n\n%s\n", count(len(s), "fault"),
		found, s, r.story())
	b.WriteString(r.comparison())
	b.WriteString("\nWhat it shows:\n")
	told := make(map[kind]bool)
	for _, f := range s {
		if !told[f.kind] {
			b.WriteString(wrap(f.kind.meaning()))
		}
		told[f.kind] = true
		if f.late && !told["late"] {
			b.WriteString(wrap("A message can come back after later ones: order of arrival is not " +
				"the order of what happened."))
			told["late"] = true
		}
	}
	return b.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// wrap breaks a text into lines of at most 90 characters, set in by two.
func wrap(text string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		if width+len(word) >= 90 {
			b.WriteString("\n")
			width = 0
		}
		if width == 0 {
			b.WriteString(" ")
			width = 1
		}
		b.WriteString(" " + word)
		width += 1 + len(word)
	}
	return b.String() + "\n"
}

// shortDuration writes a minute as 1m, not as 1m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
