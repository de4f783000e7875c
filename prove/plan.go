package prove

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
)

// proof tries the schedules of one case.
type proof struct {
	c     *Case
	clean *run
	runs  int // made so far, clean ones included: the number of the next world
	tried int // schedules
}

// start makes the clean run, twice: what two clean runs show differently cannot be compared. The
// verdict is nil where the clean run is as it should be.
func (p *proof) start(ctx context.Context) (*verdict, error) {
	first, err := p.run(ctx, nil)
	if err != nil {
		return nil, err
	}
	second, err := p.run(ctx, nil)
	if err != nil {
		return nil, err
	}
	if all := first.effects.differences(second.effects); len(all) > 0 {
		d := all[0]
		return nil, fmt.Errorf("two clean runs differ at %s (first %s, then %s): leave out of "+
			"Case.Effects what is never the same, and make the state outside fresh in Case.Reset",
			d.path, orNothing(d.want), orNothing(d.got))
	}
	p.clean = first
	if p.c.Want == nil {
		return nil, nil
	}
	want, err := pictureOf(p.c.Want)
	if err != nil {
		return nil, err
	}
	if all := want.differences(first.effects); len(all) > 0 {
		return &verdict{convicted: true, text: "the handler is wrong without any fault: each message " +
			"was delivered once, in order\n\n" + first.story() + "\n" +
			differencesText("Effects that differ from Case.Want", all)}, nil
	}
	return nil, nil
}

func (p *proof) run(ctx context.Context, s schedule) (*run, error) {
	p.runs++
	r := newRun(p.c, p.runs, s, p.clean)
	if err := r.do(ctx); err != nil {
		if len(s) > 0 {
			err = fmt.Errorf("schedule %s: %w", s, err)
		}
		return nil, err
	}
	return r, nil
}

// try runs a schedule, and returns the run where it differs from the clean one.
func (p *proof) try(ctx context.Context, s schedule) (*run, error) {
	p.tried++
	r, err := p.run(ctx, s)
	if err != nil || !r.differs() {
		return nil, err
	}
	return r, nil
}

// repeat tries the one schedule that the case names.
func (p *proof) repeat(ctx context.Context) (*verdict, error) {
	s, err := parseSchedule(p.c.Schedule, len(p.c.Messages))
	if err != nil {
		return nil, err
	}
	r, err := p.run(ctx, s)
	if err != nil {
		return nil, err
	}
	if r.differs() {
		return &verdict{convicted: true, schedule: s, tried: 1, text: r.conviction(s, "given")}, nil
	}
	return &verdict{tried: 1, text: fmt.Sprintf("the effects of schedule %s are those of the clean "+
		"run\n%s", s, r.story())}, nil
}

// all tries every single fault, or as many as there is room for, then combinations of them.
func (p *proof) all(ctx context.Context) (*verdict, error) {
	single, left := p.singles()
	for _, f := range single {
		if v, err := p.verdict(ctx, schedule{f}); v != nil || err != nil {
			return v, err
		}
	}
	random := rand.New(rand.NewPCG(p.c.Seed, 0))
	for p.tried < p.c.Schedules {
		if v, err := p.verdict(ctx, p.combination(random)); v != nil || err != nil {
			return v, err
		}
	}
	of := ""
	if left > 0 {
		of = fmt.Sprintf(" of %d", len(single)+left)
	}
	text := fmt.Sprintf("the effects are those of the clean run each time: %s, %s, %s\n"+
		"(%s%s, %s, seed %d)", count(len(p.c.Messages), "message"), count(p.points(), "point"),
		count(p.tried, "schedule"), count(len(single), "single fault"), of,
		count(p.tried-len(single), "combination"), p.c.Seed)
	if p.points() == 0 {
		text += "\nThe handler came to no point, so that it was killed only before it began and before " +
			"its ack:\nwrap its stores (World.Store, World.Table), or name its steps (Call, Point)."
	}
	return &verdict{tried: p.tried, text: text}, nil
}

// points counts the points of the clean run.
func (p *proof) points() int {
	n := 0
	for i := range p.clean.lives {
		n += len(p.clean.lives[i].points)
	}
	return n
}

// verdict tries a schedule; where it differs, it looks for the shortest that still does.
func (p *proof) verdict(ctx context.Context, s schedule) (*verdict, error) {
	r, err := p.try(ctx, s)
	if r == nil || err != nil {
		return nil, err
	}
	found := fmt.Sprintf("number %d tried, seed %d", p.tried, p.c.Seed)
	if len(s) > 1 {
		if s, r, err = p.shrink(ctx, s, r); err != nil {
			return nil, err
		}
	}
	return &verdict{convicted: true, schedule: s, tried: p.tried, text: r.conviction(s, found)}, nil
}

// singles lists the single faults to try, message by message: all, or as many as three quarters of
// the bound allow. The first message comes first, the others that there is no room for are
// chosen by the seed. left is how many were left out.
func (p *proof) singles() (out []fault, left int) {
	room := p.c.Schedules * 3 / 4
	each := make([][]fault, len(p.c.Messages))
	total := 0
	for i := range each {
		each[i] = p.faultsOf(i)
		total += len(each[i])
	}
	order := make([]int, len(each))
	for i := range order {
		order[i] = i
	}
	if total > room {
		random := rand.New(rand.NewPCG(p.c.Seed, 1))
		random.Shuffle(len(order)-1, func(i, j int) {
			order[i+1], order[j+1] = order[j+1], order[i+1]
		})
	}
	for _, i := range order {
		out = append(out, each[i][:min(len(each[i]), max(room-len(out), 0))]...)
	}
	return out, total - len(out)
}

// faultsOf lists every single fault of a message, the simplest first. Its points are those of its
// delivery in the clean run.
func (p *proof) faultsOf(msg int) []fault {
	points := p.clean.lives[msg].points
	end := len(points) + 1
	var out []fault
	for _, k := range kinds() {
		if p.c.Source != nil && !k.atSource(p.clean.settles) {
			continue
		}
		from := len(out)
		switch k {
		case again, lost:
			out = append(out, fault{message: msg, kind: k})
		case crash:
			for at := 0; at <= end; at++ {
				out = append(out, fault{message: msg, kind: k, point: at})
			}
		case fail, unsure, down, stall, race, orphan, beside:
			for at := 1; at < end; at++ {
				if k.fits(points[at-1]) && p.comes(k, msg) {
					out = append(out, fault{message: msg, kind: k, point: at})
				}
			}
		}
		if !k.canBeLate() || len(p.c.Messages) == 1 || p.c.Source != nil {
			continue
		}
		for _, f := range out[from:] {
			f.late = true
			out = append(out, f)
		}
	}
	return out
}

// comes reports whether a kind is tried on a message. An outage is tried on the first message only:
// handlers wait for the end of one, in real time.
func (p *proof) comes(k kind, msg int) bool {
	return (k != beside || msg < len(p.c.Messages)-1) && (k != down || msg == 0)
}

// atSource reports whether a kind can happen at a real source. A held consumer has lost its session
// there, so that race says it all; and a commit that has settled its message cannot lose the ack.
func (k kind) atSource(settles bool) bool {
	switch k {
	case again, stall, orphan:
		return false
	case lost:
		return !settles
	case crash, fail, unsure, down, race, beside:
	}
	return true
}

// fits reports whether a kind can happen at a point.
func (k kind) fits(pt point) bool {
	switch k {
	case fail, down:
		return pt.phase == before
	case unsure:
		return pt.phase == after
	case again, lost, crash, stall, race, orphan, beside:
	}
	return true
}

// maxFaults bounds the faults of a combination.
const maxFaults = 3

// combination draws two or three faults at random, but no outage. A second fault of one message
// happens to its second delivery, which may have other points than the first: any number up to the
// first's is drawn.
func (p *proof) combination(random *rand.Rand) schedule {
	var s schedule
	for range 2 + random.IntN(maxFaults-1) {
		msg := random.IntN(len(p.c.Messages))
		if len(s) > 0 && random.IntN(2) == 0 {
			msg = s[0].message // half of them meet on one message
		}
		all := slices.DeleteFunc(p.faultsOf(msg), func(f fault) bool { return f.kind == down })
		s = append(s, all[random.IntN(len(all))])
	}
	s.sort()
	return s
}

// maxShrinks bounds the runs that look for a shorter schedule.
const maxShrinks = 300

// shrink looks for a shorter schedule that still differs: without a fault, with a simpler one in
// its place, or with an earlier one.
func (p *proof) shrink(ctx context.Context, s schedule, r *run) (schedule, *run, error) {
	tried := map[string]bool{s.String(): true}
	for progress := true; progress; {
		progress = false
		for _, shorter := range p.shorter(s) {
			if tried[shorter.String()] || len(tried) > maxShrinks {
				continue
			}
			tried[shorter.String()] = true
			better, err := p.run(ctx, shorter)
			if err != nil {
				return nil, nil, err
			}
			if better.differs() {
				s, r, progress = shorter, better, true
				break
			}
		}
	}
	return s, r, nil
}

// shorter lists what is a little shorter than a schedule, the shortest first.
func (p *proof) shorter(s schedule) []schedule {
	var out []schedule
	if len(s) > 2 { // single faults were tried before
		for i := range s {
			out = append(out, slices.Delete(slices.Clone(s), i, i+1))
		}
	}
	replace := func(i int, f fault) {
		next := slices.Clone(s)
		next[i] = f
		next.sort()
		out = append(out, next)
	}
	for _, f := range s { // what happens to one message stays together
		for msg := range f.message {
			next := slices.Clone(s)
			for i := range next {
				if next[i].message == f.message {
					next[i].message = msg
				}
			}
			next.sort()
			out = append(out, next)
		}
	}
	for i, f := range s {
		if f.late {
			replace(i, fault{f.message, f.kind, f.point, false})
		}
		for _, k := range kinds() {
			if k == f.kind {
				break
			}
			replace(i, fault{f.message, k, f.point, f.late && k.canBeLate()})
		}
		for at := range f.point {
			replace(i, fault{f.message, f.kind, at, f.late})
		}
	}
	return out
}
