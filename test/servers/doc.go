// Package servers gives the tests their real servers. It promises that a test is never skipped
// where the servers must be there, and that what a test started is gone when it ends.
//
//	make real ─▶ real.sh ─▶ with.sh ─▶ postgres.sh, redis.sh, dynamodb.sh ─▶ go test
//
// Address finds the server that with.sh started for all; Start starts one of the test's own, which
// it may kill and freeze. It does not install anything: with.sh does. See the tests of
// adapters/redis/redisstore for an example.
package servers
