package redisstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// fake is a server that answers what it is told to. It speaks over pipes.
type fake struct {
	mu      sync.Mutex // guards calls
	calls   []string   // the commands that came, but for those of the connection and INFO
	scripts func(command string, n int) string
}

// fakeClient makes a client that tries once, of a server whose scripts are answered by a function
// of the command, EVAL or EVALSHA, and of how many came before, in the server's protocol. Where it
// returns "" the answer is lost: the connection ends in its place.
func fakeClient(scripts func(command string, n int) string, with ...func(*redis.Options)) (
	*redis.Client, *fake) {
	f := &fake{scripts: scripts}
	o := &redis.Options{
		Protocol: 2, DisableIdentity: true, MaxRetries: -1, DialerRetries: 1,
		ContextTimeoutEnabled: true,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go f.serve(far) // ends with the client's connection
			return near, nil
		},
	}
	for _, change := range with {
		change(o)
	}
	return redis.NewClient(o), f
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		words, err := readCommand(r)
		if err != nil {
			return // the client is gone
		}
		answer := f.answer(words)
		if _, err := io.WriteString(c, answer); err != nil || answer == "" {
			return
		}
	}
}

func (f *fake) answer(words []string) string {
	switch command := strings.ToUpper(words[0]); command {
	case "INFO":
		return bulk("maxmemory_policy:noeviction\r\naof_enabled:1\r\n")
	case "EVAL", "EVALSHA":
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, command)
		return f.scripts(command, len(f.calls)-1)
	default:
		return "-ERR unknown command\r\n"
	}
}

func bulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

// list writes an array of what is written already.
func list(all ...string) string {
	return fmt.Sprintf("*%d\r\n%s", len(all), strings.Join(all, ""))
}

func readCommand(r *bufio.Reader) ([]string, error) {
	n, err := readCount(r, '*')
	words := make([]string, n)
	for i := 0; i < n && err == nil; i++ {
		var size int
		if size, err = readCount(r, '$'); err != nil {
			break
		}
		b := make([]byte, size+2)
		_, err = io.ReadFull(r, b)
		words[i] = string(b[:size])
	}
	return words, err
}

func readCount(r *bufio.Reader, kind byte) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, errors.New("not a command")
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}
