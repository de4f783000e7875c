package kill

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

var (
	seed   = flag.Uint64("seed", 1, "seed of the random choices")
	rounds = flag.Int("rounds", 0, "how many rounds TestKills (0: 20, or 200 in long runs) and "+
		"TestPulledPlugs (0: 3, or 50) do")
)

// handlerVar makes this test binary a handler process that writes to the file it names.
const handlerVar = "KILL_TEST_HANDLER"

// poison is the ID of the message that takes its handler process down.
const poison = "poison"

// binary is the command under test; TestMain builds it.
var binary string

func TestMain(m *testing.M) {
	if path := os.Getenv(handlerVar); path != "" {
		if err := handle(path); err != nil {
			fmt.Fprintln(os.Stderr, "handler:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if text := os.Getenv(ownerVar); text != "" {
		if err := own(text); err != nil {
			fmt.Fprintln(os.Stderr, "owner:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(build(m.Run))
}

// build builds the command, runs the tests and removes it.
func build(run func() int) int {
	dir, err := os.MkdirTemp("", "kill")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "ackwise")
	c := exec.Command("go", "build", "-o", binary, "github.com/ackwise/ackwise/cmd/ackwise")
	if out, err := c.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the command: %v\n%s", err, out)
		return 1
	}
	return run()
}

// handed is a line that a handler process gets.
type handed struct {
	ID      string `json:"id"`
	Attempt int    `json:"attempt"`
	Cause   string `json:"cause"`
	Token   string `json:"token"`
	Settled bool   `json:"settled"`
	Lost    bool   `json:"lost"`
	Stop    bool   `json:"stop"`
}

// handling is a line that a handler process writes to its file before it answers.
type handling struct {
	At      int64  `json:"at"` // Unix time in nanoseconds, after the delivery was read
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Cause   string `json:"cause"`
	PID     int    `json:"pid"`
}

// handle is the handler process: each ID goes to the file in one write, then it is answered. Every
// message whose ID ends in 7 fails at its first attempt, so that retries are under way too.
func handle(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 8<<20)
	for in.Scan() {
		var d handed
		if err := json.Unmarshal(in.Bytes(), &d); err != nil {
			return fmt.Errorf("read line: %w", err)
		}
		switch {
		case d.Stop:
			return nil
		case d.Settled || d.Lost:
			continue
		case d.ID == poison:
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		h := handling{At: time.Now().UnixNano(), ID: d.ID, Outcome: "done", Cause: d.Cause,
			PID: os.Getpid()}
		if d.Attempt == 1 && d.ID[len(d.ID)-1] == '7' {
			h.Outcome = "failed"
		}
		if err := writeLine(f, h); err != nil {
			return err
		}
		if err := writeLine(os.Stdout, map[string]string{"token": d.Token,
			"outcome": h.Outcome}); err != nil {
			return err
		}
	}
	return in.Err()
}

func writeLine(f *os.File, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return err
}

// long reports whether the many rounds are asked for.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }
