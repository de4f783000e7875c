package redisstore

import "strings"

// UseClock has a store's scripts read the time from a key, in microseconds, which a test sets.
func UseClock(s *Store, key string) {
	s.claim, s.settle = s.claim.withClock(key), s.settle.withClock(key)
}

// UseTableClock has a table's scripts do so.
func UseTableClock(t *Table, key string) {
	t.put, t.swap, t.upsert = t.put.withClock(key), t.swap.withClock(key), t.upsert.withClock(key)
}

func (s script) withClock(key string) script {
	other := newScript(strings.Replace(s.source, "redis.call('TIME')",
		"{0, redis.call('GET', '"+key+"')}", 1))
	other.once = s.once
	return other
}
