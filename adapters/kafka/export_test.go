package kafka

import "github.com/ackwise/ackwise"

// Kill ends a source of a consumer group as a crash of its process does: the group is not told.
func Kill(s ackwise.Source) {
	g := s.(*Source).group
	g.cancel()
	s.Close()
}

// MemberOf returns the ID of a source's member.
func MemberOf(s ackwise.Source) string {
	member, _ := s.(*Source).group.cl.GroupMetadata()
	return member
}

// KillShare ends a source of a share group as a crash of its process does.
func KillShare(s ackwise.Source) {
	s.(*Source).Source.(*share).abort()
	s.Close()
}
