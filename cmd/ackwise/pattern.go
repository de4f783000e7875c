package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// pattern is how a pipeline's effect bears a second delivery. "" = not said.
type pattern string

// The patterns. This command carries out the first one; the others are the handler's own.
const (
	patternDedup       pattern = "dedup"
	patternWrite       pattern = "write"
	patternUpsert      pattern = "upsert"
	patternCompare     pattern = "compare"
	patternTransaction pattern = "transaction"
	patternNone        pattern = "none"
)

func patterns() []pattern {
	return []pattern{patternDedup, patternWrite, patternUpsert, patternCompare,
		patternTransaction, patternNone}
}

// String returns the word.
func (p pattern) String() string { return string(p) }

// dedupBy is what tells two messages apart. "" = byID.
type dedupBy string

const (
	byID   dedupBy = "id"
	byBody dedupBy = "body"
)

// String returns the word.
func (b dedupBy) String() string { return string(b) }

// dedupSum is what two messages of one ID must agree in. "" = sumBody.
type dedupSum string

const (
	sumBody dedupSum = "body"
	sumNone dedupSum = "none"
)

// String returns the word.
func (s dedupSum) String() string { return string(s) }

// defaultWindow is how long pattern dedup remembers, unless told otherwise.
const defaultWindow = 24 * time.Hour

// dedupConfig is how a pipeline of pattern dedup remembers what it did.
type dedupConfig struct {
	// Store is where it is remembered: memory: (in this process, until it ends), queue://DIR/NAME,
	// postgres://…?name=NAME (a database that ackwise migrate has prepared), redis://…?name=NAME,
	// or dynamodb://REGION/TABLE?name=NAME. Each pipeline needs a name of its own. A password is
	// password=env:NAME or password=file:PATH behind the ?, which is read for each connection;
	// postgres:// without one takes PGPASSWORD from the environment. Default: the directory of the
	// queue:// source, under the pipeline's name; another source needs Store.
	Store string
	// Window is how long an effect is remembered. A message that comes again later is handled
	// again, so that a Window shorter than Again is refused. Most stores keep the one that they
	// were made with: another Window needs another name. Default: 24 h.
	Window time.Duration
	// Again is how long after its first delivery a message may come again: through retries, through
	// consumers that were down, or as a dead letter that is redriven. Default: the longest that the
	// pauses between this pipeline's attempts may take, which is also the least.
	Again time.Duration
	// Lease is how long a message is claimed without a word from its handler; so late is a
	// message taken over whose process died. Default: 30 s.
	Lease time.Duration
	// MaxKeys bounds what is remembered. A full store lets messages wait, and forgets nothing
	// early. Default: the store's own.
	MaxKeys int
	// By is what a message is known by: id, or body where producers give no IDs, so that two equal
	// bodies within the window are one message. Default: id.
	By dedupBy
	// Sum is what is compared where an ID comes again: body, so that another body is a conflict and
	// becomes a dead letter, or none. Only where messages are known by id. Default: body.
	Sum dedupSum
}

// checkPattern refuses a window that is too short, and a store that cannot be.
func (p *pipelineConfig) checkPattern(d *configReader) {
	if p.Pattern != patternDedup {
		return
	}
	if p.Guarantee != 0 {
		d.fault(p.at("pattern"), "pattern: dedup is for at-least-once; with %s no message is "+
			"handled twice, leave pattern out or say none", p.Guarantee)
		return
	}
	var err error
	if p.store, err = p.parseStore(); err != nil {
		d.fault(p.atDedup("store"), "dedup.store: %v", err)
	}
	span, bounded := p.RetrySpan()
	again, window := p.again(), cmp.Or(p.Dedup.Window, defaultWindow)
	switch {
	case !bounded && p.Dedup.Again == 0:
		d.fault(p.at("pattern"), "dedup.again is needed: this pipeline tries a message again for "+
			"ever (no_dead_letters, or max_failures: unlimited), which no window covers; say how "+
			"long after its first delivery a message may come again")
	case bounded && again < span:
		d.fault(p.atDedup("again"), "dedup.again: %s is shorter than the %s that the pauses "+
			"between this pipeline's attempts may take (max_failures, backoff, retry_budget)",
			again, span)
	case window < again:
		d.fault(p.atDedup("window"), "dedup.window: %s is shorter than the %s for which a message "+
			"may come again (dedup.again, or max_failures, backoff and retry_budget): what "+
			"comes after the window would be done twice", window, again)
	}
}

// atDedup is the line of a word of dedup, or of pattern where there is no dedup.
func (p *pipelineConfig) atDedup(word string) int {
	if p.has("dedup") {
		return p.at("dedup." + word)
	}
	return p.at("pattern")
}

// again is how long a message may come again.
func (p *pipelineConfig) again() time.Duration {
	span, _ := p.RetrySpan()
	return cmp.Or(p.Dedup.Again, max(span, time.Second))
}

func (p *pipelineConfig) parseStore() (storeURL, error) {
	if p.Dedup.Store != "" {
		return parseStoreURL(p.Dedup.Store)
	}
	if !p.from.is("queue://") {
		return storeURL{}, fmt.Errorf("%s keeps no dedup store, so one has to be named: %s", p.From,
			storeForms())
	}
	return parseStoreURL("queue://" + p.from.dir + "/" + p.Name)
}

func (p *pipelineConfig) storeOptions() storeOptions {
	return storeOptions{window: cmp.Or(p.Dedup.Window, defaultWindow), maxKeys: p.Dedup.MaxKeys,
		create: p.Create}
}

// says is what a dry run adds of the pattern.
func (p *pipelineConfig) says() string {
	switch p.Pattern {
	case "":
		return ""
	case patternDedup:
		return fmt.Sprintf(", pattern: dedup for %s in %s",
			cmp.Or(p.Dedup.Window, defaultWindow), p.store.key())
	}
	return ", pattern: " + p.Pattern.String()
}

// dedupOptions are those of the handler. The rule names the pipeline: another one that is given the
// same store name is refused, where it would take this one's effects for its own.
func (p *pipelineConfig) dedupOptions(log *slog.Logger) idempotency.Options {
	by, sum := cmp.Or(p.Dedup.By, byID), cmp.Or(p.Dedup.Sum, sumBody)
	o := idempotency.Options{Again: p.again(), Lease: p.Dedup.Lease, BusyDelay: time.Second,
		Logger: log, Rule: fmt.Sprintf("pipeline %s: %s, %s", p.Name, by, sum)}
	if by == byBody {
		o.Key = bodyKey
	}
	if by == byBody || sum == sumNone {
		o.Sum = func(*ackwise.Delivery) idempotency.Sum { return idempotency.Sum{} }
	}
	return o
}

// dedupOptions are those of the pipeline, which are counted where somebody looks.
func (f *flow) dedupOptions() idempotency.Options {
	o := f.cfg.dedupOptions(f.r.log)
	if f.meter != nil {
		o.Observe = f.meter.seeDedup
	}
	return o
}

// lintPassword finds a password in the address of the dedup store.
func (p *pipelineConfig) lintPassword(path string) (lintFinding, bool) {
	if !p.store.literal {
		return lintFinding{}, false
	}
	return lintFinding{File: path, Line: p.atDedup("store"), Pipeline: p.Name, Check: "password",
		Text: fmt.Sprintf("a password stands in the file, in the address of the dedup store of the "+
			"pipeline %q: write password=env:NAME or password=file:PATH behind its ? instead", p.Name),
	}, true
}

// bodyKey knows a message by its whole body.
func bodyKey(d *ackwise.Delivery) string {
	sum := sha256.Sum256(d.Body)
	return hex.EncodeToString(sum[:])
}
