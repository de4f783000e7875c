package kafka

import (
	"errors"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/ackwise/ackwise/deliver/logsource"
)

// bare is a member without a client, to which the partition t/0 was assigned; the source knows it.
func bare(t *testing.T) (*group, *part) {
	t.Helper()
	g := &group{opts: &SourceOptions{Group: "g"}, parts: map[string]*part{},
		noted: map[string]committed{}, kicked: map[string]*part{}, stays: map[string]bool{}}
	p := g.newPart("t", 0)
	g.admit([]*part{p}, []logsource.Change{{Kind: logsource.Assigned, Partition: p.name}})
	g.told(t, logsource.Assigned)
	return g, p
}

// told is a Poll, which returns these kinds of changes.
func (g *group) told(t *testing.T, want ...logsource.ChangeKind) {
	t.Helper()
	changes, err, _ := g.take(100)
	var got []logsource.ChangeKind
	for _, c := range changes {
		got = append(got, c.Kind)
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("Poll returned %v, %v; want %v", got, err, want)
	}
}

// comesAnew assigns the partition again, as a rejoin of the group does.
func comesAnew(g *group, base int64) *part {
	again := g.newPart("t", 0)
	again.base, again.next = base, base
	g.admit([]*part{again}, []logsource.Change{{Kind: logsource.Lost, Partition: "t/0"},
		{Kind: logsource.Assigned, Partition: "t/0", Position: position(base - 1)}})
	return again
}

// A commit that was sent for an earlier membership is refused after the member has joined again and
// has got the partition anew: that refusal says nothing of the new assignment. If that were taken
// away no rejoin would follow, and whatever is fetched of it would be thrown away for ever.
func TestALateRefusalOfAnOldMember(t *testing.T) {
	for _, code := range []error{kerr.UnknownMemberID, kerr.FencedMemberEpoch, kerr.FencedInstanceID} {
		g, p := bare(t)
		s, err := g.place(logsource.Mark{Partition: "t/0", Position: position(4)})
		if err != nil || s.stay != p {
			t.Fatal(err)
		}
		again := comesAnew(g, 9)
		if err := g.commitError(s.stay, code); err == nil || errors.Is(err, logsource.ErrFenced) {
			t.Errorf("late: %v, want an error after which it is tried again", err)
		}
		if g.parts["t/0"] != again {
			t.Error("the new assignment was thrown away")
		}
		if err := g.commitError(again, code); !errors.Is(err, logsource.ErrFenced) {
			t.Errorf("its own: %v", err)
		}
		if g.parts["t/0"] != nil || g.kicked["t/0"] != again {
			t.Error("a member that was removed has its partition still")
		}
	}
}

// A mark, a Release or a Pause of the last stay, which the source has not left yet, is not one of
// the new stay: the mark would take the group's position back to where the last stay was, the
// others would stop the partition for good.
func TestAnOldStayIsNotTheNewOne(t *testing.T) {
	g, _ := bare(t)
	again := comesAnew(g, 9)
	old := func() {
		t.Helper()
		for _, at := range []int64{4, 20} {
			s, err := g.place(logsource.Mark{Partition: "t/0", Position: position(at)})
			if err == nil || errors.Is(err, logsource.ErrFenced) {
				t.Errorf("the old mark is written, at %d (%v)", s.offset, err)
			}
		}
		g.Release("t/0")
		if again.leaving || again.done {
			t.Error("the new stay was released")
		}
		if g.Pause("t/0", true); !again.full.IsZero() {
			t.Error("the new stay can be paused")
		}
	}
	old()
	g.told(t, logsource.Lost, logsource.Assigned)
	old() // it was told, and has perhaps not taken it in
	g.told(t)
	if _, err := g.place(logsource.Mark{Partition: "t/0", Position: position(9)}); err != nil {
		t.Error(err)
	}
	if _, err := g.place(logsource.Mark{Partition: "t/0", Position: position(4)}); err == nil {
		t.Error("a mark from before the assignment is written")
	}
	if g.Pause("t/0", true); again.full.IsZero() {
		t.Error("it cannot be paused")
	}
	g.Release("t/0")
	if !again.done {
		t.Error("it cannot be released")
	}
	// What was given back is nobody's, so that the next assignment is known at once.
	delete(g.parts, "t/0")
	next := g.newPart("t", 0)
	g.admit([]*part{next}, nil)
	if !next.known {
		t.Error("after a Release there is no old stay")
	}
}
