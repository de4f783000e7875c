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

// GenerationOf returns the generation of a source's member; with KIP-848, its epoch.
func GenerationOf(s ackwise.Source) int32 {
	_, generation := s.(*Source).group.cl.GroupMetadata()
	return generation
}

// KillShare ends a source of a share group as a crash of its process does.
func KillShare(s ackwise.Source) {
	s.(*Source).Source.(*share).abort()
	s.Close()
}
