// Package repotest holds the repository's rules as tests over its own source: import direction,
// what may import third-party code, comments, sizes, texts and the module file. It promises that a
// finding names file and line, the rule, and what to do, and that each rule is itself tested on a
// small bad input that it must see. Sizes have a list of exceptions that can only shrink (see
// ratchet_test.go). It checks the form of the code, not what the code does; golangci-lint checks
// the rest (see .golangci.yml).
package repotest
