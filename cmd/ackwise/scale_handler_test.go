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

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/process"
)

// scaleEnv makes this test binary a handler process of TestRealScale, or a consumer process of
// TestRealScaleInbox, with a scaleConfig.
const scaleEnv = "TEST_RUNS_SCALE_HANDLER"

// scalePipeline names the pipeline of a handler process.
const scalePipeline = "TEST_SCALE_PIPELINE"

// scaleCopy marks the copy of a message that its producer published again.
const scaleCopy = "copy"

// scaleConfig is what such a process has to know.
type scaleConfig struct {
	DSN    string        // of the database
	Tables string        // what the names of its tables begin with
	Dir    string        // where the records are kept
	Member string        // the process that it works for
	Pause  time.Duration // what a delivery takes, beside its effect
	From   string        // the source of a consumer process; "" = this is a handler process
	Held   int           // what a consumer process holds, at most
}

// record is one line of what a process has seen. It is written before anything is done with it, so
// that no kill takes it back.
type record struct {
	// What is start, begin, done, again, failed, settled or lost; in a consumer process also given,
	// and unsure: a settlement was answered by an error, and may be carried out or not.
	What    string `json:"what"`
	At      int64  `json:"at"` // of the machine's clock
	Pid     int    `json:"pid,omitempty"`
	ID      string `json:"id,omitempty"`
	Copy    bool   `json:"copy,omitempty"`
	Key     string `json:"key,omitempty"`
	Attempt int    `json:"attempt,omitempty"`
	Cause   string `json:"cause,omitempty"`
	Token   string `json:"token,omitempty"`
	Outcome string `json:"outcome,omitempty"` // of what is settled, in a consumer process
	Revoked bool   `json:"revoked,omitempty"` // it was asked for before it ended, in such a process
	Error   string `json:"error,omitempty"`
}

func recordOf(what string, d *ackwise.Delivery) record {
	_, isCopy := d.Header(scaleCopy)
	return record{What: what, ID: d.ID, Copy: isCopy, Key: d.Key, Attempt: d.Attempt,
		Cause: d.Cause.String(), Token: string(d.Token)}
}

// recorder appends records to a process's own file.
type recorder struct {
	mu   sync.Mutex // guards file, so that lines do not mix
	file *os.File
}

func newRecorder(c scaleConfig, pipeline string) (*recorder, error) {
	f, err := os.OpenFile(recordsOf(c.Dir, pipeline, c.Member),
		os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	r := &recorder{file: f}
	r.note(record{What: "start", Pid: os.Getpid()})
	return r, nil
}

func recordsOf(dir, pipeline, member string) string {
	return dir + "/" + pipeline + "-" + member + ".jsonl"
}

func (r *recorder) note(one record) {
	one.At = time.Now().UnixNano()
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
	if h.cfg.From != "" {
		return runScaleConsumer(h.cfg)
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
		l, err := process.ParseLine(in.Bytes())
		if err != nil {
			return fmt.Errorf("read %s: %w", in.Text(), err)
		}
		switch {
		case l.Lost:
			h.note(record{What: "lost", Token: string(l.Token)})
		case l.Settled:
			h.note(record{What: "settled", Token: string(l.Token)})
		case !l.Stop:
			h.wg.Go(func() { h.deliver(l.Delivery) }) // ends with the delivery
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

func (h *scaleHandler) deliver(d *ackwise.Delivery) {
	h.note(recordOf("begin", d))
	timer := time.NewTimer(h.cfg.Pause)
	<-timer.C
	made, err := h.apply(context.Background(), d)
	outcome := "done"
	if err != nil {
		outcome = "failed"
	}
	h.note(ended(d, made, err))
	answer, err := json.Marshal(map[string]string{"token": string(d.Token), "outcome": outcome})
	if err != nil {
		panic(err)
	}
	h.out.Lock()
	defer h.out.Unlock()
	if _, err := os.Stdout.Write(append(answer, '\n')); err != nil {
		os.Exit(1) // whoever asked is gone
	}
}

// ended is how a handler's call has ended.
func ended(d *ackwise.Delivery, made bool, err error) record {
	r := recordOf("again", d)
	switch {
	case err != nil:
		r.What, r.Error = "failed", err.Error()
	case made:
		r.What = "done"
	}
	return r
}

// apply makes the effect of a message, and its row in the inbox, in one transaction.
func (h *scaleHandler) apply(ctx context.Context, d *ackwise.Delivery) (made bool, err error) {
	err = pgx.BeginFunc(ctx, h.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, "INSERT INTO "+h.cfg.Tables+"_inbox VALUES ($1, $2) "+
			"ON CONFLICT DO NOTHING", h.pipeline, d.ID)
		if made = tag.RowsAffected() == 1; err != nil || !made {
			return err
		}
		return scaleEffect(ctx, tx, h.cfg, h.pipeline, d)
	})
	return made, err
}

// scaleEffect counts the message on its key's account, and says as the how manieth of its key.
func scaleEffect(ctx context.Context, tx pgx.Tx, c scaleConfig, pipeline string,
	d *ackwise.Delivery) error {
	seq, err := strconv.Atoi(string(d.Body))
	if err != nil {
		return err
	}
	var n int
	err = tx.QueryRow(ctx, "INSERT INTO "+c.Tables+"_account AS a VALUES ($1, $2, 1) "+
		"ON CONFLICT (pipeline, key) DO UPDATE SET n = a.n + 1 RETURNING n",
		pipeline, d.Key).Scan(&n)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+c.Tables+"_effect VALUES ($1, $2, $3, $4, $5, $6)",
		pipeline, d.ID, d.Key, seq, n-1, c.Member)
	return err
}
