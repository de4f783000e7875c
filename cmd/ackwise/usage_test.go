package main

import (
	"os"
	"strings"
	"testing"
)

func TestUsage(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct{ args, fault string }{
		{"publsh", `did you mean "publish"`},
		{"dead lst --dir d t/s", `did you mean "list"`},
		{"consume --dir d t/s --concurency 3", `did you mean "--concurrency"`},
		{"publish t", "--dir"},
		{"publish --dir d", "<topic>"},
		{"publish --dir d a/b", "invalid topic"},
		{"publish --dir d .x", "begins with '.'"},
		{"publish --dir d " + long, "100 bytes long"},
		{"publish --dir d t --batch 0", "--batch"},
		{"publish --dir d t --batch x", "--batch"},
		{"publish --dir d t --delay -1s", "--delay"},
		{"publish --dir d t --header x", "NAME=VALUE"},
		{"publish --dir d t --header =v", "the name is empty"},
		{"publish --dir d t --key " + strings.Repeat("k", 1025), "invalid key"},
		{"publish --dir d t --id a --id-field b", "--id"},
		{"publish --dir d t --on-bad ignore", "--on-bad"},
		{"consume --dir d t", "TOPIC/SUBSCRIPTION"},
		{"consume --dir d t/", "invalid subscription"},
		{"consume --dir d t/s/u", "invalid subscription"},
		{"consume --dir d t/s --exec a --pipe b", "--exec"},
		{"consume --dir d t/s --from yesterday", "beginning, now or a time"},
		{"consume --dir d t/s --on-dead hold", "needs --ordered"},
		{"consume --dir d t/s --on-dead drop", "--on-dead"},
		{"consume --dir d t/s --guarantee exactly-once", "--guarantee"},
		{"consume --dir d t/s --max-failures 0", "--max-failures"},
		{"consume --dir d t/s --max-crashes 0", "--max-crashes"},
		{"consume --dir d t/s --max -1", "--max"},
		{"consume --dir d t/s --backoff 0s", "--backoff"},
		{"consume --dir d t/s --lease soon", "--lease"},
		{"peek --dir d t/s --max 0", "--max"},
		{"peek --dir d t/s --state lost", "--state"},
		{"redrive --dir d t/s", "--all"},
		{"redrive --dir d t/s x --all", "--all stands alone"},
		{"redrive --dir d t/s --all --rate fast", "not a rate"},
		{"redrive --dir d t/s --all --rate 5/x", "not a rate"},
		{"redrive --dir d t/s --cause faild", `did you mean "failed"`},
		{"redrive --dir d t/s --before soon", "neither a time"},
		{"dead drop --dir d t/s --all", "--reason"},
		{"dead show --dir d t/s", "<id>"},
		{"keys release --dir d t/s", "<key>"},
		{"audit --dir d extra", "unexpected argument"},
		{"lint", "<file>"},
		{"lint a.yaml b.yaml", "unexpected argument"},
		{"lint --jsn a.yaml", `did you mean "--json"`},
		{"lnit a.yaml", `did you mean "lint"`},
		{"bench dedup --stor x", `did you mean "--store"`},
	} {
		r := run(t, "", strings.Fields(c.args)...)
		if r.code != 2 || !strings.Contains(r.err, c.fault) ||
			!strings.Contains(r.err, "hint: see ackwise") {
			t.Errorf("%s: exit code %d, want 2 and %q\n%s", c.args, r.code, c.fault, r.err)
		}
	}
	if _, err := os.Stat("d"); err == nil {
		t.Error("a usage error made a directory")
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{nil, {"--help"}, {"consume", "--help"}, {"dead", "--help"},
		{"lint", "--help"}, {"bench", "--help"}, {"bench", "engine", "--help"},
		{"bench", "dedup", "--help"}, {"bench", "guarantees", "--help"}} {
		if out := must(t, "", args...); !strings.HasPrefix(out, "Usage: ackwise") {
			t.Errorf("%q prints %s", args, out)
		}
	}
	if out := must(t, "", "version"); !strings.HasPrefix(out, "ackwise ") ||
		!strings.Contains(out, " go1.") {
		t.Errorf("version prints %s", out)
	}
	if v := decode[buildVersion](t, must(t, "", "version", "--json")); v.Go == "" {
		t.Errorf("version = %+v", v)
	}
}

func TestEnvironmentGivesFlags(t *testing.T) {
	t.Setenv("ACKWISE_DIR", t.TempDir()+"/d")
	t.Setenv("ACKWISE_PUBLISH_ID_FIELD", "i")
	t.Setenv("ACKWISE_KEY", "of an outer handler's message")
	ids := must(t, `{"i":"a","j":"b"}`, "publish", "--create", "t", "--print-ids")
	equal(t, "from the environment", lines(ids), []string{"a"})
	ids = must(t, `{"i":"a","j":"b2"}`, "publish", "t", "--print-ids", "--id-field", "j")
	equal(t, "a flag goes before", lines(ids), []string{"b2"})
	out := must(t, "", "consume", "--create", "t/s", "--until-empty")
	if strings.Contains(out, `"key"`) {
		t.Errorf("a handler's variable became a flag: %s", out)
	}
}

func TestEmptyListings(t *testing.T) {
	dir := dirOf(t)
	for cmd, none := range map[string]string{"peek": "no such messages", "dead list": "no dead letters",
		"dead groups": "no dead letters", "keys": "no parked keys", "keys list": "no parked keys"} {
		args := append(strings.Fields(cmd), "--dir", dir, "t/s")
		if out := must(t, "", args...); out != none+"\n" {
			t.Errorf("%s prints %q, want %q", cmd, out, none)
		}
		if out := must(t, "", append(args, "--json")...); out != "[]\n" {
			t.Errorf("%s --json prints %q, want []", cmd, out)
		}
	}
	if out := must(t, "", "dead", "export", "--dir", dir, "t/s"); out != "" {
		t.Errorf("dead export prints %q", out)
	}
	fresh := t.TempDir() + "/fresh"
	must(t, "", "publish", "--dir", fresh, "--create", "lonely")
	if out := must(t, "", "audit", "--dir", fresh); !strings.HasPrefix(out, "no subscriptions\n") ||
		!strings.Contains(out, "topic lonely: 0 messages kept, no subscription") {
		t.Errorf("audit prints %s", out)
	}
}
