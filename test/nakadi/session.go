package nakadi

import (
	"net/http"
	"slices"
	"time"
)

// session is one stream of a subscription, and the slots that it has.
//
//	join ─▶ active ─▶ detached (its stream has ended, it may commit) ─▶ gone
//	          └───── a write fails, or its commit comes too late ───────▶ gone
type session struct {
	id        string
	params    params
	direct    []*subPart // what it asked for itself; nil = it takes part in the sharing
	started   time.Time
	committed int // events
	detached  bool
	gone      bool
}

// join adds a session, where there is a slot.
func (sub *subscription) join(ses *session, now time.Time) *problem {
	sub.expire(now)
	for _, p := range ses.direct {
		if slices.ContainsFunc(sub.sessions, func(o *session) bool {
			return slices.Contains(o.direct, p)
		}) {
			return problemf(http.StatusConflict, "partition %s is already taken", p.name)
		}
	}
	free := len(sub.parts)
	for _, o := range sub.sessions {
		free -= max(1, len(o.direct))
	}
	if free <= 0 && ses.direct == nil {
		return problemf(http.StatusConflict, "No free slots for streaming available for "+
			"subscription %s. Consider increasing the number of partitions", sub.def.ID)
	}
	sub.sessions = append(sub.sessions, ses)
	sub.share(now)
	return nil
}

// leave ends a session for good.
func (sub *subscription) leave(ses *session, now time.Time) {
	if ses.gone {
		return
	}
	ses.gone = true
	sub.sessions = slices.DeleteFunc(sub.sessions, func(o *session) bool { return o == ses })
	for _, p := range sub.parts {
		if p.next == ses {
			p.next = nil
		}
		if p.owner == ses {
			p.owner = nil
		}
	}
	sub.share(now)
}

// detach lets a session whose stream has ended commit what is open, as long as it may.
func (sub *subscription) detach(ses *session, now time.Time) {
	ses.detached = true
	sub.share(now)
	sub.expire(now)
}

// disconnect ends all sessions at once.
func (sub *subscription) disconnect() {
	for len(sub.sessions) > 0 {
		sub.leave(sub.sessions[0], time.Now())
	}
}

// expire ends the detached sessions that have committed all, or had their time.
func (sub *subscription) expire(now time.Time) {
	for _, ses := range slices.Clone(sub.sessions) {
		if ses.detached && (!sub.open(ses) || sub.late(ses, now) != nil) {
			sub.leave(ses, now)
		}
	}
	sub.hand(now)
}

// open reports whether a session has something to commit.
func (sub *subscription) open(ses *session) bool { return sub.uncommitted(ses) > 0 }

func (sub *subscription) uncommitted(ses *session) (n int) {
	for _, p := range sub.parts {
		if p.owner == ses {
			n += len(p.open)
		}
	}
	return n
}

// late returns a partition of which a session has committed nothing for too long.
func (sub *subscription) late(ses *session, now time.Time) *subPart {
	for _, p := range sub.parts {
		if p.owner == ses && len(p.open) > 0 && now.Sub(p.since) >= ses.params.commitTimeout {
			return p
		}
	}
	return nil
}

// share spreads the partitions evenly over the sessions, by their number only, and moves as few as
// it can.
func (sub *subscription) share(now time.Time) {
	var active []*session
	var parts []*subPart
	taken := map[*subPart]bool{}
	for _, ses := range sub.sessions {
		for _, p := range ses.direct {
			taken[p] = true
			p.give(ses)
		}
		if ses.direct == nil && !ses.detached {
			active = append(active, ses)
		}
	}
	for _, p := range sub.parts {
		if !taken[p] {
			parts = append(parts, p)
		}
	}
	has := map[*session]int{}
	for _, p := range parts {
		has[p.heir()]++
	}
	for i, ses := range active {
		want := len(parts) / len(active)
		if i < len(parts)%len(active) {
			want++
		}
		for _, p := range parts {
			old := p.heir()
			spare := old == nil || old.detached || has[old] > len(parts)/len(active)
			if has[ses] < want && old != ses && spare {
				has[old]--
				has[ses]++
				p.give(ses)
			}
		}
	}
	sub.hand(now)
}

// heir is whose a partition is, or will be.
func (p *subPart) heir() *session {
	if p.next != nil {
		return p.next
	}
	return p.owner
}

func (p *subPart) give(ses *session) {
	p.next = ses
	if p.owner == ses {
		p.next = nil
	}
}

// hand moves the partitions whose owner has committed all, or is gone. What it had not committed is
// sent to the next one again.
func (sub *subscription) hand(now time.Time) {
	for _, p := range sub.parts {
		if p.next != nil && (p.owner == nil || len(p.open) == 0) {
			p.owner, p.next = p.next, nil
			p.sent, p.since, p.keptAlive = p.committed, now, now
			p.open = nil
			p.idle, p.pending = 0, time.Time{}
		}
	}
}
