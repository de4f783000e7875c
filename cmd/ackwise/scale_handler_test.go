package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// scaleEnv makes this test binary a handler process of TestRealScale, with a scaleConfig.
const scaleEnv = "TEST_RUNS_SCALE_HANDLER"

// scalePipeline names the pipeline of such a process.
const scalePipeline = "TEST_SCALE_PIPELINE"

// scaleConfig is what a handler process has to know.
type scaleConfig struct {
	DSN    string        // of the database
	Tables string        // what the names of its tables begin with
	Dir    string        // where the records are kept
	Member string        // the process that it works for
	Pause  time.Duration // what a delivery takes, beside its effect
}

// record is one line of what a handler process has seen. It is written before anything is done
// with it, so that no kill takes it back.
type record struct {
	What    string `json:"what"` // start, begin, done, again, failed, settled or lost
	Member  string `json:"member"`
	Pid     int    `json:"pid,omitempty"`
	ID      string `json:"id,omitempty"`
	Key     string `json:"key,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	Cause   string `json:"cause,omitempty"`
	Token   string `json:"token,omitempty"`
	Error   string `json:"error,omitempty"`
}

// scaleLine is a line that a handler process gets.
type scaleLine struct {
	ID, Key, Body, Cause, Token string
	Attempt                     int
	Settled, Lost, Stop         bool
}

// recorder appends records to a process's own file.
type recorder struct {
	member string
	mu     sync.Mutex // guards file, so that lines do not mix
	file   *os.File
}

func newRecorder(c scaleConfig, pipeline string) (*recorder, error) {
	f, err := os.OpenFile(recordsOf(c.Dir, pipeline, c.Member),
		os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	r := &recorder{member: c.Member, file: f}
	r.note(record{What: "start", Pid: os.Getpid()})
	return r, nil
}

func recordsOf(dir, pipeline, member string) string {
	return dir + "/" + pipeline + "-" + member + ".jsonl"
}

func (r *recorder) note(one record) {
	one.Member = r.member
	line, err := json.Marshal(one)
	if err != nil {
		panic(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// scaleHandler is a long-lived handler process.
type scaleHandler struct {
	*recorder
	cfg      scaleConfig
	pipeline string
	pool     *pgxpool.Pool
	wg       sync.WaitGroup // deliveries at work

	out sync.Mutex // guards standard output
}

// runScaleHandler answers lines until they end.
func runScaleHandler(text, pipeline string) error {
	h := &scaleHandler{pipeline: pipeline}
	if err := json.Unmarshal([]byte(text), &h.cfg); err != nil {
		return err
	}
	var err error
	if h.pool, err = scalePool(context.Background(), h.cfg.DSN); err != nil {
		return err
	}
	if h.recorder, err = newRecorder(h.cfg, pipeline); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var l scaleLine
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return fmt.Errorf("read %s: %w", in.Text(), err)
		}
		switch {
		case l.Lost:
			h.note(record{What: "lost", Token: l.Token})
		case l.Settled:
			h.note(record{What: "settled", Token: l.Token})
		case !l.Stop:
			h.wg.Go(func() { h.deliver(l) }) // ends with the delivery
		}
	}
	h.wg.Wait()
	return in.Err()
}

// scalePool is a pool whose sessions do not keep the rows that they have locked when their process
// is frozen.
func scalePool(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	o, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	o.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = "2000"
	return pgxpool.NewWithConfig(ctx, o)
}

func (h *scaleHandler) deliver(l scaleLine) {
	r := record{What: "begin", ID: l.ID, Key: l.Key, Attempt: l.Attempt, Cause: l.Cause,
		Token: l.Token}
	h.note(r)
	timer := time.NewTimer(h.cfg.Pause)
	<-timer.C
	made, err := h.apply(context.Background(), l)
	outcome := "done"
	switch {
	case err != nil:
		r.What, r.Error, outcome = "failed", err.Error(), "failed"
	case made:
		r.What = "done"
	default:
		r.What = "again"
	}
	h.note(r)
	answer, err := json.Marshal(map[string]string{"token": l.Token, "outcome": outcome})
	if err != nil {
		panic(err)
	}
	h.out.Lock()
	defer h.out.Unlock()
	if _, err := os.Stdout.Write(append(answer, '\n')); err != nil {
		os.Exit(1) // whoever asked is gone
	}
}

// apply makes the effect of a message, and its row in the inbox, in one transaction.
func (h *scaleHandler) apply(ctx context.Context, l scaleLine) (made bool, err error) {
	seq, err := strconv.Atoi(l.Body)
	if err != nil {
		return false, err
	}
	err = pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO "+h.cfg.Tables+"_inbox VALUES ($1, $2) "+
			"ON CONFLICT DO NOTHING", h.pipeline, l.ID)
		if made = tag.RowsAffected() == 1; err != nil || !made {
			return err
		}
		return scaleEffect(ctx, tx, h.cfg, effect{h.pipeline, l.ID, l.Key, seq})
	})
	return made, err
}

// effect is what a message does.
type effect struct {
	pipeline, id, key string
	seq               int
}

// scaleEffect counts the message on its key's account, and says as the how manieth of its key.
func scaleEffect(ctx context.Context, tx pgx.Tx, c scaleConfig, e effect) error {
	var n int
	err := tx.QueryRow(ctx, "INSERT INTO "+c.Tables+"_account AS a VALUES ($1, $2, 1) "+
		"ON CONFLICT (pipeline, key) DO UPDATE SET n = a.n + 1 RETURNING n",
		e.pipeline, e.key).Scan(&n)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+c.Tables+"_effect VALUES ($1, $2, $3, $4, $5, $6)",
		e.pipeline, e.id, e.key, e.seq, n-1, c.Member)
	return err
}
