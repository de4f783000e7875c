package wire

import (
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
)

// delivery is an ackwise.Delivery.
type delivery struct {
	Message   ackwise.Message    `json:"message"`
	Attempt   int                `json:"attempt"`
	Counts    ackwise.Counts     `json:"counts"`
	Cause     ackwise.Cause      `json:"cause"`
	History   []ackwise.Attempt  `json:"history,omitempty"`
	Token     ackwise.LeaseToken `json:"token"`
	Deadline  time.Time          `json:"deadline,omitzero"`
	Partition string             `json:"partition,omitempty"`
	Position  ackwise.Position   `json:"position"`
	Epoch     int                `json:"epoch,omitempty"`
	Suspect   bool               `json:"suspect,omitempty"`
}

// ReceivedOf turns deliveries into their JSON form.
func ReceivedOf(ds []*ackwise.Delivery) Received {
	r := Received{Deliveries: make([]delivery, len(ds))}
	for i, d := range ds {
		r.Deliveries[i] = delivery{Message: d.Message, Attempt: d.Attempt, Counts: d.Counts,
			Cause: d.Cause, History: d.History, Token: d.Token, Deadline: d.Deadline,
			Partition: d.Partition, Position: d.Position, Epoch: d.Epoch, Suspect: d.Suspect}
	}
	return r
}

// Values turns them back.
func (r Received) Values() []*ackwise.Delivery {
	ds := make([]*ackwise.Delivery, len(r.Deliveries))
	for i, w := range r.Deliveries {
		ds[i] = &ackwise.Delivery{Message: w.Message, Attempt: w.Attempt, Counts: w.Counts,
			Cause: w.Cause, History: w.History, Token: w.Token, Deadline: w.Deadline,
			Partition: w.Partition, Position: w.Position, Epoch: w.Epoch, Suspect: w.Suspect}
	}
	return ds
}

// result is an ackwise.Result.
type result struct {
	Class     string           `json:"class"`
	ID        string           `json:"id"`
	Position  ackwise.Position `json:"position,omitempty"`
	Duplicate bool             `json:"duplicate,omitempty"`
	Error     *Problem         `json:"error,omitempty"`
	After     time.Duration    `json:"after,omitempty"`
}

// PublishedOf turns results into their JSON form.
func PublishedOf(rs []ackwise.Result) Published {
	p := Published{Results: make([]result, len(rs))}
	for i, r := range rs {
		p.Results[i] = result{Class: r.Class.String(), ID: r.ID, Position: r.Position,
			Duplicate: r.Duplicate, Error: ProblemOf(r.Err), After: r.After}
	}
	return p
}

// Values turns them back.
func (p Published) Values() []ackwise.Result {
	rs := make([]ackwise.Result, len(p.Results))
	for i, w := range p.Results {
		rs[i] = ackwise.Result{Class: classOf(w.Class), ID: w.ID, Position: w.Position,
			Duplicate: w.Duplicate, Err: w.Error.Err(), After: w.After}
	}
	return rs
}

// classOf reads a class's word. A word that this version does not know is ResultUnknown, which the
// producer answers by sending again.
func classOf(word string) ackwise.ResultClass {
	for c := ackwise.ResultUnknown; c <= ackwise.ResultNotAttempted; c++ {
		if c.String() == word {
			return c
		}
	}
	return ackwise.ResultUnknown
}

// settlement is an ackwise.Settlement.
type settlement struct {
	Token   ackwise.LeaseToken `json:"token"`
	Outcome string             `json:"outcome"`
	Delay   time.Duration      `json:"delay,omitempty"`
	Reason  string             `json:"reason,omitempty"`
}

// SettleRequestOf turns settlements into their JSON form.
func SettleRequestOf(session string, ss []ackwise.Settlement) SettleRequest {
	return SettleRequest{Session: session, Settlements: settlementsOf(ss)}
}

// Values turns them back. An unknown outcome is an *ackwise.InvalidError.
func (r SettleRequest) Values() ([]ackwise.Settlement, error) { return settlements(r.Settlements) }

func settlementsOf(ss []ackwise.Settlement) []settlement {
	ws := make([]settlement, len(ss))
	for i, s := range ss {
		ws[i] = settlement{Token: s.Token, Outcome: s.Outcome.String(), Delay: s.Delay,
			Reason: s.Reason}
	}
	return ws
}

func settlements(ws []settlement) ([]ackwise.Settlement, error) {
	ss := make([]ackwise.Settlement, len(ws))
	for i, w := range ws {
		o, err := outcomeOf(w.Outcome)
		if err != nil {
			return nil, fmt.Errorf("read settlement %d: %w", i, err)
		}
		ss[i] = ackwise.Settlement{Token: w.Token, Outcome: o, Delay: w.Delay, Reason: w.Reason}
	}
	return ss, nil
}

func outcomeOf(word string) (ackwise.Outcome, error) {
	for o := ackwise.OutcomeAck; o <= ackwise.OutcomeDrop; o++ {
		if o.String() == word {
			return o, nil
		}
	}
	return 0, &ackwise.InvalidError{Field: "outcome", Value: word, Reason: "no such outcome"}
}

// settleResult is an ackwise.SettleResult.
type settleResult struct {
	Error    *Problem  `json:"error,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	Already  bool      `json:"already,omitempty"`
}

// SettledOf turns results into their JSON form.
func SettledOf(rs []ackwise.SettleResult) Settled {
	s := Settled{Results: make([]settleResult, len(rs))}
	for i, r := range rs {
		s.Results[i] = settleResult{Error: ProblemOf(r.Err), Deadline: r.Deadline,
			Already: r.Already}
	}
	return s
}

// Values turns them back.
func (s Settled) Values() []ackwise.SettleResult {
	rs := make([]ackwise.SettleResult, len(s.Results))
	for i, w := range s.Results {
		rs[i] = ackwise.SettleResult{Err: w.Error.Err(), Deadline: w.Deadline, Already: w.Already}
	}
	return rs
}

// Transaction is a queue.Commit.
type Transaction struct {
	ID      string            `json:"id,omitempty"`
	Publish []ackwise.Message `json:"publish,omitempty"`
	Settle  []settlement      `json:"settle,omitempty"`
	Reads   []tableEntry      `json:"reads,omitempty"`
	Writes  []tableEntry      `json:"writes,omitempty"`
	Once    []onceKey         `json:"once,omitempty"`
}

// onceKey is a key of a dedup set that is done with the transaction.
type onceKey struct {
	Set string          `json:"set"`
	Key Bytes           `json:"key"`
	Sum idempotency.Sum `json:"sum"`
}

// tableEntry is a queue.TableRead (with its version) or a queue.TableWrite (with its value).
type tableEntry struct {
	Table   string `json:"table"`
	Key     Bytes  `json:"key"`
	Version uint64 `json:"version,omitempty"`
	Value   []byte `json:"value"` // base64; null = the key is deleted
}

// TransactionOf turns a transaction into its JSON form.
func TransactionOf(c queue.Commit) Transaction {
	t := Transaction{ID: c.ID, Publish: c.Publish, Settle: settlementsOf(c.Settle)}
	for _, r := range c.Reads {
		t.Reads = append(t.Reads, tableEntry{Table: r.Table, Key: Bytes(r.Key), Version: r.Version})
	}
	for _, w := range c.Writes {
		t.Writes = append(t.Writes, tableEntry{Table: w.Table, Key: Bytes(w.Key), Value: w.Value})
	}
	for set, asks := range c.Once {
		for _, a := range asks {
			t.Once = append(t.Once, onceKey{Set: set, Key: Bytes(a.Key), Sum: a.Sum})
		}
	}
	return t
}

// Commit turns it back.
func (t Transaction) Commit() (queue.Commit, error) {
	ss, err := settlements(t.Settle)
	if err != nil {
		return queue.Commit{}, err
	}
	c := queue.Commit{ID: t.ID, Publish: t.Publish, Settle: ss}
	for _, r := range t.Reads {
		c.Reads = append(c.Reads,
			queue.TableRead{Table: r.Table, Key: string(r.Key), Version: r.Version})
	}
	for _, w := range t.Writes {
		c.Writes = append(c.Writes,
			queue.TableWrite{Table: w.Table, Key: string(w.Key), Value: w.Value})
	}
	for _, o := range t.Once {
		if c.Once == nil {
			c.Once = make(map[string][]idempotency.Ask)
		}
		c.Once[o.Set] = append(c.Once[o.Set], idempotency.Ask{Key: string(o.Key), Sum: o.Sum})
	}
	return c, nil
}
