package kill

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// letter is a dead letter as dead list prints it.
type letter struct {
	Message struct{ ID string }
	Cause   string
	Counts  struct {
		Crashes int `json:"crashes"`
	}
}

// TestPoison has one message among 1,000 good ones take down whatever handles it. It ends in the
// dead letters after its crash budget; no good one does.
func TestPoison(t *testing.T) {
	t.Parallel()
	const crashes = 3
	for _, c := range []struct{ name, flag, command, concurrency string }{
		{"exec", "--exec", `[ "$ACKWISE_ID" != poison ] || kill -9 $$; ` +
			`echo "{\"id\":\"$ACKWISE_ID\",\"outcome\":\"done\"}" >>"$FILE"`, "4"},
		{"pipe", "--pipe", self(t), "16"},
		{"pipe one by one", "--pipe", self(t), "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			w := newWorld(t)
			var in strings.Builder
			for i, m := range w.add(1000, 50) {
				if i == 400 {
					in.WriteString(input{ID: poison, Key: "bad"}.line())
				}
				in.WriteString(m.line())
			}
			run(t, in.String(), 0, "publish", "--dir", w.dir, "--create", "--id-field", "id",
				"--key-field", "key", topic)
			p := start(t, w.ack, append(w.handlerEnv(), "FILE="+w.file), "consume",
				"--dir", w.dir, "--create", "--ordered", "--print-acks", "--until-empty",
				"--max-crashes", fmt.Sprint(crashes), "--backoff", "5ms", c.flag, c.command,
				"--concurrency", c.concurrency, pipeline)
			p.wantExit(t, 0)
			judgePoison(t, w, crashes)
			t.Logf("%s", time.Since(begin).Round(time.Millisecond))
		})
	}
}

func judgePoison(t *testing.T, w *world, crashes int) {
	t.Helper()
	out, _ := run(t, "", 0, "dead", "list", "--dir", w.dir, "--json", pipeline)
	var dead []letter
	if err := json.Unmarshal([]byte(out), &dead); err != nil {
		t.Fatal(err, out)
	}
	if len(dead) != 1 || dead[0].Message.ID != poison || dead[0].Counts.Crashes != crashes ||
		dead[0].Cause != "consumer-lost" {
		t.Errorf("dead letters: %+v, want only the poison, after %d crashes", dead, crashes)
	}
	handled := w.handled(t)
	w.judgePrinted(t, handled)
	w.judgeOrder(t, handled)
	if acks := texts(w.ack); len(acks) != len(w.inputs) {
		t.Errorf("%d acks printed, want %d", len(acks), len(w.inputs))
	}
	b := audit(t, w.dir)
	if !b.Balanced || b.Accepted != len(w.inputs)+1 || b.Acked != len(w.inputs) || b.Dead != 1 {
		t.Errorf("the books: %+v", b)
	}
	if b.Crashes != crashes {
		t.Errorf("the books have %d crashes, want %d: only the poison is charged", b.Crashes,
			crashes)
	}
	run(t, "", 0, "verify", "--dir", w.dir)
}

// TestHandlersDieWithTheirParent kills a consumer whose handler process is at work: the handler is
// gone before the next consumer gets the message.
func TestHandlersDieWithTheirParent(t *testing.T) {
	w := newWorld(t)
	run(t, w.add(1, 1)[0].line(), 0, "publish", "--dir", w.dir, "--create", "--id-field", "id", topic)
	p := start(t, w.ack, nil, "consume", "--dir", w.dir, "--create", "--exec",
		"echo $$ >'"+w.file+"'; exec sleep 600", pipeline)
	pid := 0
	until(t, "the handler runs", func() bool {
		b, _ := os.ReadFile(w.file)
		_, err := fmt.Sscan(string(b), &pid)
		return err == nil && stateOf(pid) != ""
	})
	t.Cleanup(func() {
		if t.Failed() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	if !p.kill(t) {
		t.Fatal("the consumer was not killed")
	}
	until(t, "the handler is gone", func() bool {
		s := stateOf(pid)
		return s == "" || s == "Z"
	})
}
