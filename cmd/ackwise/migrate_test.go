package main

import (
	"strings"
	"testing"
)

func TestMigrateUsage(t *testing.T) {
	for _, address := range []string{"shop", "mysql://u:geheim@h/d", "postgres://",
		"postgres://u:geheim@h:x/d",
		"postgres://u:geheim@h/d?sslmode=nonsense", "postgres://h/d?password=geheim&port=x"} {
		r := run(t, "", "migrate", address)
		r.want(t, exitUsage, "the URL", "hint: ")
		if strings.Contains(r.out+r.err, "geheim") {
			t.Errorf("%s: the password is shown:\n%s", address, r.err)
		}
	}
	run(t, "", "migrate").want(t, exitUsage, "<url>")
	r := run(t, "", "migrate", "postgres://u:geheim@127.0.0.1:1/d?connect_timeout=5", "--json")
	r.want(t, exitFailed, "127.0.0.1:1", "hint: See that the server answers there")
	if strings.Contains(r.out+r.err, "geheim") || r.out != "" {
		t.Errorf("a server that is not there: %s%s", r.out, r.err)
	}
}
