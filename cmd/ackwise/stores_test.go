package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/ackwise/ackwise/internal/bench"
)

// guarded is a server that asks for a password, notes who gave which, and does nothing else.
type guarded struct {
	address string
	scheme  string

	mu    sync.Mutex // guards given
	given []string   // user and password, a space between
}

// wasAll is what a guarded server answers to those who are in.
const wasAll = "this server only asks for passwords"

// guard starts a server of a scheme, until the test ends.
func guard(t *testing.T, scheme string) *guarded {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{address: l.Addr().String(), scheme: scheme}
	serve := map[string]func(net.Conn){"redis": g.redis, "postgres": g.postgres}[scheme]
	var wg sync.WaitGroup
	var mu sync.Mutex // guards conns
	var conns []net.Conn
	wg.Go(func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() { serve(conn); _ = conn.Close() }) // ends with the connection
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return g
}

// store is the address of a store on it, with this password.
func (g *guarded) store(password string) string {
	if g.scheme == "redis" {
		return "redis://app@" + g.address + "?name=x&password=" + password
	}
	return "postgres://app@" + g.address + "/d?sslmode=disable&name=x&password=" + password
}

func (g *guarded) note(user, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.given = append(g.given, user+" "+password)
}

// saw checks what was given, whatever number of times one after the other.
func (g *guarded) saw(t *testing.T, want ...string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	equal(t, "given to "+g.scheme, slices.Compact(slices.Clone(g.given)), want)
}

func (g *guarded) redis(conn net.Conn) {
	for r, in := bufio.NewReader(conn), false; ; {
		args, err := redisCommand(r)
		if err != nil {
			return
		}
		reply := "-NOAUTH Authentication required.\r\n"
		switch word := strings.ToLower(args[0]); {
		case word == "hello" && len(args) >= 5 && strings.EqualFold(args[2], "auth"):
			g.note(args[3], args[4])
			in, reply = true, "%1\r\n+proto\r\n:3\r\n"
		case in && (word == "client" || word == "set"):
			reply = "+OK\r\n"
		case in && word == "ping":
			reply = "+PONG\r\n"
		case in:
			reply = "-ERR " + wasAll + "\r\n"
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

// redisCommand reads an array of strings.
func redisCommand(r *bufio.Reader) ([]string, error) {
	number := func(kind string) (int, error) {
		line, err := r.ReadString('\n')
		text, ok := strings.CutPrefix(strings.TrimSpace(line), kind)
		if err != nil || !ok {
			return 0, errors.Join(err, errors.New("not a command"))
		}
		return strconv.Atoi(text)
	}
	n, err := number("*")
	if err != nil || n == 0 {
		return nil, errors.Join(err, errors.New("no command"))
	}
	args := make([]string, n)
	for i := range args {
		size, err := number("$")
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

func (g *guarded) postgres(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	first, err := b.ReceiveStartupMessage()
	start, ok := first.(*pgproto3.StartupMessage)
	if err != nil || !ok {
		return
	}
	b.Send(&pgproto3.AuthenticationCleartextPassword{})
	if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	answer, err := b.Receive()
	if p, ok := answer.(*pgproto3.PasswordMessage); err == nil && ok {
		g.note(start.Parameters["user"], p.Password)
	}
	b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "42501", Message: wasAll})
	_ = b.Flush()
}

// TestStorePasswordIsKeptElsewhere: whoever takes the address of a store gives its server the
// password that the address only names, and shows it to nobody.
func TestStorePasswordIsKeptElsewhere(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "secret"), "hush in a file\n")
	put(t, filepath.Join(dir, "in.txt"), "one\n")
	for _, scheme := range []string{"redis", "postgres"} {
		for kept, want := range map[string]string{"env:STORE_SECRET": "app hush of the environment",
			"file:secret": "app hush in a file"} {
			for _, what := range []string{"run", "bench", "migrate"} {
				g := guard(t, scheme)
				url := g.store(kept)
				var c *exec.Cmd
				switch {
				case what == "run":
					c = runFile(t, dir, pipelineOf("from: file://in.txt", "to: file://out.txt",
						"no_dead_letters: true", "pattern: dedup", "dedup: {again: 1h, store: \""+url+"\"}"))
				case what == "bench":
					c = command(t, "bench", "dedup", "--dir", dir, "--store", url)
				case scheme == "redis":
					continue
				default:
					c = command(t, "migrate", strings.Replace(url, "name=x&", "", 1))
				}
				c.Dir, c.Env = dir, append(c.Env, "STORE_SECRET=hush of the environment")
				r := finish(t, c)
				r.want(t, 1, wasAll)
				if strings.Contains(r.out+r.err, "hush") {
					t.Errorf("%s: a password is shown: %s%s", what, r.out, r.err)
				}
				g.saw(t, want)
			}
		}
	}
}

func TestPlainInsertGivesThePassword(t *testing.T) {
	t.Setenv("STORE_SECRET", "hush")
	for _, scheme := range []string{"redis", "postgres"} {
		g := guard(t, scheme)
		u, err := parseStoreURL(g.store("env:STORE_SECRET"))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := u.scheme.insert(t.Context(), u)
		if err == nil {
			err = errors.Join(plain.insert(t.Context(), make([]bench.DedupRow, 1)), plain.close())
		}
		if scheme == "redis" && err != nil || scheme == "postgres" &&
			(err == nil || !strings.Contains(err.Error(), wasAll)) {
			t.Errorf("%s: %v", scheme, err)
		}
		g.saw(t, "app hush")
	}
}

// TestStorePasswordIsReadForEachConnection: a password that was changed is found.
func TestStorePasswordIsReadForEachConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	g := guard(t, "redis")
	u, err := parseStoreURL(g.store("file:" + path))
	if err != nil {
		t.Fatal(err)
	}
	put(t, path, "first")
	c, err := redisClient(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, password := range []string{"first", "second"} {
		put(t, path, password)
		conn := c.Conn() // the client's pool makes one for each that is held
		defer func() { _ = conn.Close() }()
		if err := conn.Ping(t.Context()).Err(); err != nil {
			t.Error(err)
		}
	}
	g.saw(t, "app first", "app second")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	conn := c.Conn()
	defer func() { _ = conn.Close() }()
	if err := conn.Ping(t.Context()).Err(); err == nil ||
		!strings.Contains(err.Error(), "read the option password: open "+path) {
		t.Errorf("without the file: %v", err)
	}
}

// TestStorePasswordIsMissing: a run ends that cannot read the password, though nothing listens
// where the store should be, which it would wait for.
func TestStorePasswordIsMissing(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), "one\n")
	put(t, filepath.Join(dir, "empty"), "\n")
	for _, scheme := range []string{"redis", "postgres"} {
		g := guarded{address: "127.0.0.1:1", scheme: scheme}
		for kept, want := range map[string]string{
			"env:STORE_SECRET_NOT": "env:STORE_SECRET_NOT is empty or not set",
			"file:empty":           "file:empty is empty or not set",
			"file:nowhere":         "open nowhere: no such file",
		} {
			want = "read the option password: " + want
			text := pipelineOf("from: file://in.txt", "to: file://out.txt", "no_dead_letters: true",
				"pattern: dedup", "dedup: {again: 1h, store: \""+g.store(kept)+"\"}")
			finish(t, runFile(t, dir, text)).want(t, 1, "pipeline \"p\": open the dedup store "+scheme,
				want, "Nothing was handled")
			if r := finish(t, runFile(t, dir, text, "--dry-run")); r.code != 0 ||
				!strings.Contains(r.out, "in "+scheme+"://127.0.0.1:1") {
				t.Errorf("a dry run: exit code %d, %s%s", r.code, r.out, r.err)
			}
			if scheme == "postgres" {
				c := command(t, "migrate", g.store(kept))
				c.Dir = dir
				finish(t, c).want(t, 1, "connect to the database at 127.0.0.1:1: "+want)
			}
		}
	}
}

func TestLintOfAPasswordInTheFile(t *testing.T) {
	for url, found := range map[string]bool{
		"postgres://u:hush@h/d?name=x":                   true,
		"postgres://u@h/d?name=x&password=hush":          true,
		"postgres://u@h/d?name=x":                        false,
		"postgres://u@h/d?name=x&password=env:PG":        false,
		"redis://:hush@h:6379?name=x":                    true,
		"redis://u:hush@h:6379?name=x":                   true,
		"redis://u@h:6379?name=x":                        false,
		"redis://u@h:6379?name=x&password=file:/run/s/r": false,
	} {
		path := writeFile(t, "f.yaml", again("dedup: {store: \""+url+"\"}"))
		r := run(t, "", "lint", "--json", path)
		got := decode[[]lintFinding](t, r.out)
		if strings.Contains(r.out+r.err, "hush") {
			t.Errorf("%s: the password is shown: %s", url, r.out)
		}
		if !found {
			if len(got) != 0 {
				t.Errorf("%s: got %+v", url, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Check != "password" || got[0].Line != 6 ||
			got[0].Pipeline != "p" ||
			!strings.Contains(got[0].Text, "write password=env:NAME or password=file:PATH") {
			t.Errorf("%s: got %+v", url, got)
		}
		r = run(t, "", "lint", path)
		r.want(t, 3, "lint found 1 place")
		if !strings.HasPrefix(r.out, path+":6: a password stands in the file") {
			t.Errorf("%s: lint prints %s", url, r.out)
		}
	}
}

func TestParsePassword(t *testing.T) {
	t.Setenv("STORE_SECRET", "h&sh?")
	for text, want := range map[string]string{
		"postgres://u@h:5432/d?sslmode=disable&name=a&password=env:STORE_SECRET": "postgres://" +
			"u@h:5432/d?sslmode=disable",
		"redis://h:6379/2?password=env%3ASTORE_SECRET&name=a": "redis://h:6379/2",
	} {
		u, err := parseStoreURL(text)
		if err != nil || u.server != want || u.literal || u.password == nil ||
			strings.Contains(u.key(), "password") {
			t.Errorf("%s: got %+v, %v", text, u, err)
			continue
		}
		if got, err := u.password(t.Context()); err != nil || got != "h&sh?" {
			t.Errorf("%s: the password is %q, %v", text, got, err)
		}
	}
	const literal = "postgres://u@h/d?name=a&password=hush" // as it always was
	u, err := parseStoreURL(literal)
	if err != nil || u.server != "postgres://u@h/d?password=hush" || u.password != nil || !u.literal {
		t.Errorf("got %+v, %v", u, err)
	}
}

// TestMigrateTakesOnePassword: what is wrong with the option is said, and not what stands there.
func TestMigrateTakesOnePassword(t *testing.T) {
	for query, want := range map[string]string{
		"password=env:":                 "it is env:NAME or file:PATH",
		"password=env:A&password=env:B": "the option password stands twice",
		"password=env:A":                "leave one of them out",
	} {
		user := "u"
		if query == "password=env:A" {
			user += ":hush"
		}
		r := run(t, "", "migrate", fmt.Sprintf("postgres://%s@127.0.0.1:1/d?%s", user, query))
		r.want(t, exitUsage, "the URL of the database at 127.0.0.1:1: ", want)
		if strings.Contains(r.err, "hush") {
			t.Errorf("the password is shown: %s", r.err)
		}
	}
}
