package logsource

import "time"

// Backlog is what this member has read and not settled: how many messages, and when the oldest of
// them was made. oldest is zero where there is none, or none says when it was made.
func (s *Source) Backlog() (messages int, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.member.parts {
		messages += p.open
		if len(p.tracker.slots) == 0 {
			continue
		}
		made := p.tracker.slots[0].m.message.Time // the first slot is open
		if !made.IsZero() && (oldest.IsZero() || made.Before(oldest)) {
			oldest = made
		}
	}
	return messages, oldest
}
