// Command cmd runs the fake Nakadi of test/nakadi as a process, so that it can be killed and
// frozen.
//
//	cmd -listen 127.0.0.1:0 -dir DIR -tokens token=user,… ─▶ prints the address it listens on
//
// It promises nothing that package nakadi does not. adapters/nakadi/process_test.go is an example.
package main
