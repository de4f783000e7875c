package dynamostreams

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func ids(rs []row) []string {
	out := []string{}
	for _, r := range rs {
		out = append(out, r.shard)
	}
	return out
}

// A lease has run out when this planner has seen it unchanged for as long as its owner said;
// before, and after a word of the owner, it has not.
func TestALeaseRunsOutByItsWitness(t *testing.T) {
	p := newPlanner("me", 10*time.Second, 9)
	v := view{rows: map[string]row{
		"a": {shard: "a", owner: "other", beat: 1, lease: 30 * time.Second}},
		shards: map[string]shard{"a": {id: "a"}}}
	at := noon
	takes := func(after time.Duration) bool {
		at = at.Add(after)
		return len(p.plan(v, at).acquire) > 0
	}
	if takes(0) || takes(29*time.Second) {
		t.Error("taken before the owner's lease was over")
	}
	r := v.rows["a"]
	r.beat++
	v.rows["a"] = r
	if takes(time.Second) || takes(29*time.Second) {
		t.Error("taken though the owner has spoken")
	}
	if !takes(time.Second) {
		t.Error("not taken after the owner's whole lease")
	}
	late := newPlanner("late", 10*time.Second, 9)
	if len(late.plan(v, at).acquire) > 0 {
		t.Error("taken by one that has not seen it for a lease")
	}
}

// A child is nobody's until its parent is done, whoever has read the parent.
func TestTheGate(t *testing.T) {
	listed := map[string]shard{"p": {id: "p"}, "c": {id: "c", parent: "p"}}
	for name, c := range map[string]struct {
		v    view
		want []string
	}{
		"the parent is open": {view{shards: listed, rows: map[string]row{"p": {shard: "p"},
			"c": {shard: "c", parent: "p"}}}, []string{"p"}},
		"the parent is done": {view{shards: listed, rows: map[string]row{"p": {shard: "p", done: true},
			"c": {shard: "c", parent: "p"}}}, []string{"c"}},
		"the parent has no row yet": {view{shards: listed, rows: map[string]row{
			"c": {shard: "c", parent: "p"}}}, nil},
		"the parent is older than all": {view{shards: map[string]shard{"c": listed["c"]},
			rows: map[string]row{"c": {shard: "c", parent: "p"}}}, []string{"c"}},
		"the stream was not listed": {view{rows: map[string]row{"c": {shard: "c", parent: "p"}}}, nil},
		"the parent is held": {view{shards: listed, held: map[string]bool{"p": true},
			rows: map[string]row{"p": {shard: "p", owner: "me"}, "c": {shard: "c", parent: "p"}}}, nil},
	} {
		got := ids(newPlanner("me", time.Second, 9).plan(c.v, noon).acquire)
		if len(got) != len(c.want) || !slices.Equal(got, c.want) && len(got) > 0 {
			t.Errorf("%s: takes %q, want %q", name, got, c.want)
		}
	}
}

// Shards that come later get a row; one whose parent came and went unseen is a gap.
func TestRegistrations(t *testing.T) {
	v := view{shards: map[string]shard{"b": {id: "b", parent: "a", first: "0211"},
		"c": {id: "c", parent: "b"}, "d": {id: "d"}, "f": {id: "f", parent: "e"}},
		rows: map[string]row{"a": {shard: "a", done: true}, "d": {shard: "d"}}}
	planner := newPlanner("me", time.Second, 9)
	p := planner.plan(v, noon)
	if !slices.Equal(ids(p.register), []string{"b", "c"}) || p.register[0].first != "0211" {
		t.Errorf("registers %v", p.register)
	}
	if len(p.gaps) > 0 || !p.relist || len(planner.plan(v, noon).gaps) > 0 {
		t.Errorf("gaps %q by one list", ids(p.gaps))
	}
	v.listed = noon
	if got := ids(planner.plan(v, noon).gaps); !slices.Equal(got, []string{"f"}) {
		t.Errorf("gaps %q", got)
	}
}

// A row goes when its shard is done, was not listed for an hour, and no child has to be asked for.
func TestCleaning(t *testing.T) {
	p := newPlanner("me", time.Second, 9)
	v := view{shards: map[string]shard{"c": {id: "c", parent: "b"}, "e": {id: "e"}},
		rows: map[string]row{"a": {shard: "a", done: true}, "b": {shard: "b", done: true},
			"d": {shard: "d"}, "e": {shard: "e", done: true}}}
	if p.plan(v, noon); len(p.plan(v, noon.Add(59*time.Minute)).remove) > 0 {
		t.Error("removed before an hour")
	}
	if got := ids(p.plan(v, noon.Add(time.Hour)).remove); !slices.Equal(got, []string{"a"}) {
		t.Errorf("removes %q, want a: b's child has no row, d is not done, e is listed", got)
	}
	v.shards = nil
	if len(p.plan(v, noon.Add(2*time.Hour)).remove) > 0 {
		t.Error("removed though the stream was not listed")
	}
}

// Members that each plan by what they see share the shards evenly, and then leave each other alone.
func TestBalance(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 5))
		g := &group{t: t, rows: map[string]row{}, shards: map[string]shard{}}
		for i := range 1 + r.IntN(20) {
			id := fmt.Sprint("s", i)
			g.rows[id], g.shards[id] = row{shard: id}, shard{id: id}
		}
		for step := range 12 {
			if step%3 == 0 && len(g.members) < 6 {
				g.members = append(g.members,
					newPlanner(fmt.Sprint("m", len(g.members)), 10*time.Second, 100))
			}
			if step == 7 && len(g.members) > 1 {
				g.members = g.members[1:] // it dies: its leases run out
			}
			g.rounds(12, r)
			g.even(seed, step)
		}
	}
}

// group is members that see the same rows.
type group struct {
	t       *testing.T
	now     time.Duration
	rows    map[string]row
	shards  map[string]shard
	members []*planner
	writes  int
}

// rounds lets members look, in any order, each speaking for what it has.
func (g *group) rounds(n int, r *rand.Rand) {
	for i := range n {
		g.now += 2 * time.Second
		if i >= n-3 {
			g.writes = 0 // of the last rounds
		}
		for _, k := range r.Perm(len(g.members)) {
			g.look(g.members[k])
		}
	}
}

func (g *group) look(p *planner) {
	held := map[string]bool{}
	for id, r := range g.rows {
		if r.owner != p.me {
			continue
		}
		r.beat++
		if r.wanted != "" {
			r.owner, r.wanted = r.wanted, ""
			r.fence++
			g.writes++
		}
		held[id] = r.owner == p.me
		g.rows[id] = r
	}
	out := p.plan(view{rows: g.rows, shards: g.shards, held: held}, noon.Add(g.now))
	for _, a := range out.acquire {
		r := g.rows[a.shard]
		r.owner, r.wanted = p.me, ""
		r.fence++
		g.rows[a.shard] = r
		g.writes++
	}
	for _, a := range out.ask {
		r := g.rows[a.shard]
		r.wanted = p.me
		g.rows[a.shard] = r
		g.writes++
	}
}

func (g *group) even(seed uint64, step int) {
	count := map[string]int{}
	for _, r := range g.rows {
		count[r.owner]++
	}
	least, most := len(g.rows), 0
	for _, p := range g.members {
		least, most = min(least, count[p.me]), max(most, count[p.me])
	}
	if most-least > 1 || g.writes > 0 {
		g.t.Errorf("seed %d, step %d: %d shards, shares %v, %d moves in the last rounds",
			seed, step, len(g.rows), count, g.writes)
	}
}

// A member takes no more than its most, and says what is left.
func TestMost(t *testing.T) {
	v := view{rows: map[string]row{}, shards: map[string]shard{}}
	for _, id := range []string{"a", "b", "c", "d"} {
		v.rows[id], v.shards[id] = row{shard: id}, shard{id: id}
	}
	p := newPlanner("me", time.Second, 3).plan(v, noon)
	if len(p.acquire) != 3 || p.over != 1 {
		t.Errorf("takes %d, leaves %d, want 3 and 1", len(p.acquire), p.over)
	}
}

func TestPositions(t *testing.T) {
	last := ""
	for _, sequence := range []string{"000000000000000000000", "000000000000000000009",
		"000000000000000000010", "100000000000000000000", "100000000000000000000000",
		"9999999999999999999999999999999999999999"} {
		p, err := positionOf(sequence)
		if err != nil || string(p) <= last || sequenceOf(p) != sequence {
			t.Errorf("%s: position %s after %s, back %s, %v", sequence, p, last, sequenceOf(p), err)
		}
		last = string(p)
	}
	if a, _ := positionOf("7"); sequenceOf(a) != "000000000000000000007" {
		t.Errorf("7 is %s", sequenceOf(a))
	}
	for _, bad := range []string{"", "x1", "-1", "10000000000000000000000000000000000000000"} {
		if p, err := positionOf(bad); err == nil {
			t.Errorf("%q is taken for %s", bad, p)
		}
	}
}
