package nakadi

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Main is the command: it listens, writes the address to out, and serves until its process ends.
func Main(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("nakadi", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "the address to listen on")
	dir := flags.String("dir", "", "where the data is kept for the next start; empty = nowhere")
	tokens := flags.String("tokens", "", "valid tokens, token=user,…; empty = open to everybody")
	commit := flags.Duration("commit-timeout", time.Minute, "the longest commit_timeout")
	if err := flags.Parse(args); err != nil {
		return err
	}
	o := Options{Dir: *dir, MaxCommitTimeout: *commit, Tokens: map[string]string{}}
	for pair := range strings.SplitSeq(*tokens, ",") {
		if token, user, ok := strings.Cut(pair, "="); ok {
			o.Tokens[token] = user
		}
	}
	s, err := New(o)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *listen) //nolint:noctx // until the process ends
	if err != nil {
		return errors.Join(err, s.Close())
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return errors.Join(err, s.Close())
	}
	return errors.Join(http.Serve(l, s), s.Close()) //nolint:gosec // streams have no time limit
}
