package lambdahost

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"
)

// environment is one process of the function with its Runtime API.
type environment struct {
	o      Options
	cmd    *exec.Cmd
	server *http.Server
	wg     sync.WaitGroup // the server's goroutine, ended by end; the waiting one, by the process
	next   chan *invocation
	gone   chan struct{} // closed when the process has ended

	mu      sync.Mutex // guards the fields below
	current *invocation
	initErr string // what the process reported before its first ask
	wait    error  // how the process ended
}

// invocation is one event in flight.
type invocation struct {
	id       string
	event    []byte
	deadline time.Time
	answer   chan answer // of one
}

type answer struct {
	body []byte
	err  error
}

const api = "/2018-06-01/runtime/"

// start starts a process and serves its Runtime API.
func start(o Options, n int) (*environment, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not wait
	if err != nil {
		return nil, err
	}
	e := &environment{o: o, next: make(chan *invocation), gone: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api+"invocation/next", e.serveNext)
	mux.HandleFunc("POST "+api+"invocation/{id}/response", e.serveResponse)
	mux.HandleFunc("POST "+api+"invocation/{id}/error", e.serveError)
	mux.HandleFunc("POST "+api+"init/error", e.serveInitError)
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}

	//nolint:noctx // it is ended by end, not by a context
	e.cmd = exec.Command(o.Command[0], o.Command[1:]...)
	// No more than Lambda gives.
	e.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "LANG=en_US.UTF-8"},
		"AWS_LAMBDA_RUNTIME_API="+ln.Addr().String(),
		"AWS_LAMBDA_FUNCTION_NAME=function",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_LAMBDA_FUNCTION_VERSION=1",
		"LAMBDAHOST_PROCESS="+strconv.Itoa(n))
	e.cmd.Env = append(e.cmd.Env, o.Env...)
	e.cmd.Stdout, e.cmd.Stderr = o.Log, o.Log
	if err := e.cmd.Start(); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	e.wg.Go(func() { _ = e.server.Serve(ln) }) // it always ends with an error: that it was closed
	e.wg.Go(func() {
		err := e.cmd.Wait()
		e.mu.Lock()
		e.wait = err
		e.mu.Unlock()
		close(e.gone)
	})
	return e, nil
}

// invoke gives the process an event and waits for what becomes of it. usable says whether the
// process can get another one.
func (e *environment) invoke(ctx context.Context, event []byte) (_ []byte, _ error, usable bool) {
	inv := &invocation{event: event, answer: make(chan answer, 1)}
	patience := time.NewTimer(e.o.Init)
	defer patience.Stop()
	select {
	case e.next <- inv:
	case <-e.gone:
		return nil, e.ended(TypeInit), false
	case <-patience.C:
		return nil, &FunctionError{Type: TypeInit, Message: fmt.Sprintf(
			"the process did not ask for an event within %s", e.o.Init)}, false
	case <-ctx.Done():
		return nil, fmt.Errorf("invoke: %w", context.Cause(ctx)), false
	}
	limit := time.NewTimer(e.o.Timeout)
	defer limit.Stop()
	select {
	case a := <-inv.answer:
		return a.body, a.err, true
	case <-e.gone:
		select { // it may have answered with its last breath
		case a := <-inv.answer:
			return a.body, a.err, false
		default:
		}
		return nil, e.ended(TypeExit), false
	case <-limit.C:
		return nil, &FunctionError{Type: TypeTimeout, Message: fmt.Sprintf(
			"Task timed out after %.2f seconds", e.o.Timeout.Seconds())}, false
	case <-ctx.Done():
		return nil, fmt.Errorf("invoke: %w", context.Cause(ctx)), false
	}
}

func (e *environment) ended(kind string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := "the process ended"
	if e.wait != nil {
		text += ": " + e.wait.Error()
	}
	if e.initErr != "" {
		text += ": " + e.initErr
	}
	return &FunctionError{Type: kind, Message: text}
}

func (e *environment) serveNext(w http.ResponseWriter, r *http.Request) {
	select {
	case inv := <-e.next:
		e.mu.Lock()
		inv.id = strconv.FormatInt(time.Now().UnixNano(), 36)
		inv.deadline = time.Now().Add(e.o.Timeout)
		e.current = inv
		e.mu.Unlock()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn",
			"arn:aws:lambda:eu-central-1:000000000000:function:function")
		_, _ = w.Write(inv.event) // a process that does not get it has ended, and that is seen
	case <-r.Context().Done():
	case <-e.gone:
	}
}

func (e *environment) serveResponse(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut off: the process has ended, or sends it again
	}
	e.settle(w, r.PathValue("id"), answer{body: body})
}

func (e *environment) serveError(w http.ResponseWriter, r *http.Request) {
	e.settle(w, r.PathValue("id"), answer{err: readError(r)})
}

// settle takes the first answer to the event in flight, and refuses any other.
func (e *environment) settle(w http.ResponseWriter, id string, a answer) {
	e.mu.Lock()
	inv := e.current
	if inv != nil && inv.id == id {
		e.current = nil
	}
	e.mu.Unlock()
	if inv == nil || inv.id != id {
		http.Error(w, `{"errorType":"InvalidRequestID"}`, http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	inv.answer <- a
}

func (e *environment) serveInitError(w http.ResponseWriter, r *http.Request) {
	err := readError(r)
	e.mu.Lock()
	e.initErr = err.Error()
	e.mu.Unlock()
	w.WriteHeader(http.StatusAccepted)
}

func readError(r *http.Request) error {
	var said struct{ ErrorType, ErrorMessage string }
	if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
		return &FunctionError{Type: "Unhandled", Message: "an error that cannot be read: " + err.Error()}
	}
	return &FunctionError{Type: said.ErrorType, Message: said.ErrorMessage}
}

func (e *environment) lives() bool {
	select {
	case <-e.gone:
		return false
	default:
		return true
	}
}

func (e *environment) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current != nil && e.lives()
}

// kill ends the process where it stands. One that has ended is no error.
func (e *environment) kill() { _ = e.cmd.Process.Kill() }

// end ends the process and its Runtime API, and waits for both.
func (e *environment) end() {
	e.kill()
	<-e.gone
	_ = e.server.Close() // closes connections only; nothing is left to be answered
	e.wg.Wait()
}
