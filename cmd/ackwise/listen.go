package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ackwise/ackwise"
)

// listenFlags say where health and metrics are served.
type listenFlags struct {
	Listen    string   `placeholder:"HOST:PORT" help:"Serve /livez, /readyz and /metrics there. Default: nowhere."`
	Insecure  bool     `help:"Let --listen be reached from other machines: there is no login and no encryption."`
	AllowHost []string `placeholder:"NAME" help:"A name by which --listen may be called, besides addresses and localhost."`
}

// Validate checks what the flags alone can tell.
func (f *listenFlags) Validate() error {
	if f.Listen == "" {
		if f.Insecure || len(f.AllowHost) > 0 {
			return errors.New("--insecure and --allow-host are for --listen")
		}
		return nil
	}
	host, _, err := net.SplitHostPort(f.Listen)
	if err != nil {
		return fmt.Errorf("--listen=%.80s is not HOST:PORT, such as 127.0.0.1:8080", f.Listen)
	}
	if addr, err := netip.ParseAddr(host); err != nil && host != "localhost" && host != "" {
		return fmt.Errorf("--listen=%.80s: the host is an address of this machine, or localhost",
			f.Listen)
	} else if !f.Insecure && host != "localhost" && !addr.IsLoopback() {
		return fmt.Errorf("--listen=%.80s can be reached from other machines, without login and "+
			"encryption: use 127.0.0.1, or add --insecure where the network is trusted", f.Listen)
	}
	return nil
}

// health serves what is known of the pipelines.
type health struct {
	r        *runner
	hosts    []string
	draining atomic.Bool
	server   *http.Server
	wg       sync.WaitGroup
}

// listen begins to serve, until close.
func (r *runner) listen(f listenFlags) (*health, error) {
	h := &health{r: r, hosts: append([]string{"localhost"}, f.AllowHost...)}
	l, err := (&net.ListenConfig{}).Listen(r.a.ctx, "tcp", f.Listen)
	if err != nil {
		return nil, &ackwise.HintError{Err: fmt.Errorf("listen on %s: %w", f.Listen, err),
			Hint: "Name a port that nobody uses with --listen; 127.0.0.1:0 takes a free one."}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry,
		promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	h.server = &http.Server{Handler: h.guard(mux), ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	r.log.Info("listening", "address", l.Addr().String(), "open_to_others", f.Insecure)
	h.wg.Go(func() { _ = h.server.Serve(l) }) // ends with close
	stop := context.AfterFunc(r.a.ctx, func() { h.draining.Store(true) })
	r.closeLater(func() error {
		stop()
		return h.close()
	})
	return h, nil
}

// close ends what is served last: until then /readyz says that the pipelines drain.
func (h *health) close() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.r.a.ctx), time.Second)
	defer cancel()
	if err := h.server.Shutdown(ctx); err != nil {
		_ = h.server.Close() // a reader that does not end
	}
	h.wg.Wait()
	return nil
}

// guard lets only those through who call this machine by an address or a name that it is known by:
// a page of another name that resolves to it does not.
func (h *health) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		host := req.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		known := slices.ContainsFunc(h.hosts, func(n string) bool { return strings.EqualFold(n, host) })
		if err != nil && !known {
			http.Error(w, "this name is not known here; see --allow-host", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// ready is 200 once every pipeline's source is open and asked for messages, or has ended, and 503
// while they open or drain. An open circuit breaker does not make it red: the process does what it
// is to do, and ending it would help no target.
func (h *health) ready(w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	ready := !h.draining.Load()
	for _, f := range h.r.flows {
		state := f.phase()
		ready = ready && (state == "receiving" || state == "ended")
		if h.draining.Load() && state == "receiving" {
			state = "draining"
		}
		fmt.Fprintf(&b, "%s: %s\n", f.cfg.Name, state)
	}
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, b.String())
}
