package redisstore

import "strings"

// UseClock has a store's scripts read the time from a key, in microseconds, which a test sets.
func UseClock(s *Store, key string) {
	const server = "redis.call('TIME')"
	test := "{0, redis.call('GET', '" + key + "')}"
	s.claim = newScript(strings.Replace(s.claim.source, server, test, 1))
	s.settle = newScript(strings.Replace(s.settle.source, server, test, 1))
}
