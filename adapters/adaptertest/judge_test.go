package adaptertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// story is what happened to the one message of a test, written line by line.
type story struct {
	b     *book
	clock int64
	outs  int
}

func newStory() *story {
	s := &story{b: newBook()}
	m := messages(0, 1, 0)
	s.b.send(m)
	s.b.written(m)
	return s
}

func (s *story) line(by *member, line said) {
	m := messages(0, 1, 0)[0]
	s.clock++
	line.At, line.ID, line.Sum = s.clock, m.ID, sumOf(&m)
	line.Token = fmt.Append(nil, "token-", s.outs)
	s.b.events = append(s.b.events, event{by: by, said: line})
}

func (s *story) received(by *member, attempt int, cause ackwise.Cause) {
	s.outs++
	s.line(by, said{Kind: saysReceived, Attempt: attempt, Cause: cause})
}

func (s *story) acked(by *member) {
	s.line(by, said{Kind: saysOrder, Outcome: doAck})
	s.line(by, said{Kind: saysSettling})
	s.line(by, said{Kind: saysSettled, Outcome: doAck})
}

func (s *story) over(by *member) { s.line(by, said{Kind: saysOver}) }

// verdict is what the judge says of a story, by what the source's features promise.
type verdict struct {
	name     string
	features ackwise.Features
	tell     func(s *story)
	fault    string // "" = none
}

// TestJudge shows what the judge takes from a system, and what not.
func TestJudge(t *testing.T) {
	one, killed := &member{name: "one"}, &member{name: "killed", killed: 1}
	for _, v := range slices.Concat(acksTakenBack(one, killed), handOutsUnseen(one),
		untold(one, killed), shutOut(one)) {
		t.Run(v.name, func(t *testing.T) {
			s := newStory()
			v.tell(s)
			faults := strings.Join(s.b.judge(&Harness{Source: &v.features}), "; ")
			if v.fault == "" && faults != "" || !strings.Contains(faults, v.fault) {
				t.Errorf("the judge says %q, want %q", faults, v.fault)
			}
		})
	}
}

// acksTakenBack are stories of a message that comes again although it was acked.
func acksTakenBack(one, killed *member) []verdict {
	all := ackwise.Features{Lease: time.Hour, Extend: true, Counts: true, Causes: true}
	handOuts := ackwise.Features{Lease: time.Hour, Extend: true, HandOuts: true}
	short := ackwise.Features{Lease: 2, Extend: true, HandOuts: true} // on the story's clock
	journal := ackwise.Features{Counts: true, Causes: true}
	positions := ackwise.Features{}
	return []verdict{
		{"an acked one after its member's end, of a position", positions, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.over(one)
			s.received(one, 1, ackwise.CauseUnknown)
		}, ""},
		{"an acked one after its member's end, of a queue", handOuts, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.over(one)
			s.received(one, 2, ackwise.CauseUnknown)
		}, "after it was acked"},
		{"one that was acked late, of a queue that counts hand-outs", short, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.received(one, 2, ackwise.CauseAckLost)
		}, ""},
		{"one that was acked in time, of a queue that counts hand-outs", handOuts, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.received(one, 2, ackwise.CauseAckLost)
		}, "after it was acked"},
		{"an acked one of a member that was killed, of a journal", journal, func(s *story) {
			s.received(killed, 1, ackwise.CauseFirst)
			s.acked(killed)
			s.over(killed)
			s.received(one, 2, ackwise.CauseConsumerLost)
		}, ""},
		{"an acked one where another member was killed, of a journal", journal, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.over(killed)
			s.received(one, 2, ackwise.CauseConsumerLost)
		}, "after it was acked"},
		{"an acked one of a member that was killed, of a queue", all, func(s *story) {
			s.received(killed, 1, ackwise.CauseFirst)
			s.acked(killed)
			s.over(killed)
			s.received(one, 2, ackwise.CauseConsumerLost)
		}, "after it was acked"},
		{"an acked one after its server was killed, of a queue", all, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.b.disturbed, s.b.restarted = true, true
			s.received(one, 2, ackwise.CauseAckLost)
		}, "after it was acked"},
		{"an acked one after a server was killed that forgets", all, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.b.disturbed, s.b.restarted, s.b.forgets = true, true, true
			s.received(one, 2, ackwise.CauseAckLost)
		}, ""},
		{"an acked one in another guise after a server was killed that forgets", all, func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.acked(one)
			s.b.disturbed, s.b.restarted, s.b.forgets = true, true, true
			s.received(one, 2, ackwise.CauseLeaseExpired)
		}, "can only be one of [ack-lost]"},
	}
}

// handOutsUnseen are stories of hand-outs that nobody has seen, or may not have seen.
func handOutsUnseen(one *member) []verdict {
	all := ackwise.Features{Lease: time.Hour, Extend: true, Counts: true, Causes: true}
	positions := ackwise.Features{}
	return []verdict{
		{"one that was lost on its way, counted", all, func(s *story) {
			s.b.disturbed = true
			s.received(one, 2, ackwise.CauseConsumerLost)
		}, ""},
		{"one that was lost on its way, and is not counted", all, func(s *story) {
			s.b.disturbed = true
			s.received(one, 1, ackwise.CauseConsumerLost)
		}, "can only be one of [first]"},
		{"one that was lost on its way, where nothing is counted", positions, func(s *story) {
			s.b.disturbed = true
			s.received(one, 1, ackwise.CauseUnknown)
		}, ""},
		{"a restart that was none", all, func(s *story) {
			s.b.disturbed = true
			s.received(one, 1, ackwise.CauseFirst)
			s.received(one, 2, ackwise.CauseRestarted)
		}, "the cause is restarted"},
		{"a restart", all, func(s *story) {
			s.b.disturbed, s.b.restarted = true, true
			s.received(one, 1, ackwise.CauseFirst)
			s.received(one, 2, ackwise.CauseRestarted)
		}, ""},
		{"counts that begin anew", all, func(s *story) {
			s.b.disturbed = true
			s.received(one, 1, ackwise.CauseFirst)
			s.received(one, 1, ackwise.CauseLeaseExpired)
		}, "it is attempt 1, and the one before was 1"},
	}
}

// untold are stories of a member that was killed before it could tell what it had settled.
func untold(one, killed *member) []verdict {
	all := ackwise.Features{Counts: true, Causes: true}
	tell := func(asked string) func(s *story) {
		return func(s *story) {
			s.received(killed, 1, ackwise.CauseFirst)
			if asked != "" {
				s.line(killed, said{Kind: saysSettling, Outcome: asked})
			}
			s.over(killed)
			s.received(one, 2, ackwise.CauseReleased)
		}
	}
	return []verdict{
		{"a release that was asked for", all, tell(ackwise.OutcomeRelease.String()), ""},
		{"a release that nobody asked for", all, tell(""), "the cause is released"},
		{"a release in the place of a nack", all, tell(doNack), "the cause is released"},
	}
}

// shutOut are stories of a member whose settlement was refused and that has then stopped.
func shutOut(one *member) []verdict {
	journal := ackwise.Features{Counts: true, Causes: true}
	queue := ackwise.Features{Lease: time.Hour, Extend: true, Counts: true, Causes: true}
	tell := func(refusal said, stops bool) func(s *story) {
		return func(s *story) {
			s.received(one, 1, ackwise.CauseFirst)
			s.line(one, said{Kind: saysOrder, Outcome: doAck})
			refusal.Kind = saysRefused
			s.line(one, refusal)
			if stops {
				s.over(one)
			}
			s.received(&member{name: "two"}, 2, ackwise.CauseConsumerLost)
		}
	}
	return []verdict{
		{"a lease that was lost, of a journal", journal, tell(said{Lost: true}, true), ""},
		{"a lease that was lost, of a queue", queue, tell(said{Lost: true}, true),
			"the cause is consumer-lost"},
		{"a lease that was lost by a member that is still there", journal,
			tell(said{Lost: true}, false), "the cause is consumer-lost"},
		{"a settlement that was refused for another reason", journal, tell(said{}, true),
			"the cause is consumer-lost"},
	}
}

// TestOpen shows which messages nobody has to wait for.
func TestOpen(t *testing.T) {
	for _, c := range []struct {
		name      string
		m         *member
		disturbed bool
		open      int
	}{
		{"its member is there", &member{}, false, 1},
		{"its member was killed", &member{over: true, killed: 1}, false, 0},
		{"its member has stopped", &member{over: true}, false, 1},
		{"its member has stopped, and the system was away", &member{over: true}, true, 0},
	} {
		t.Run("acked without an answer: "+c.name, func(t *testing.T) {
			s := newStory()
			s.b.disturbed = c.disturbed
			s.b.acked[messages(0, 1, 0)[0].ID] = c.m
			if open := s.b.open(); len(open) != c.open {
				t.Errorf("open are %q, want %d", open, c.open)
			}
		})
	}
}
