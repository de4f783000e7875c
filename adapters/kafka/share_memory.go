package kafka

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// maxShareMemory bounds what is remembered of each kind.
const maxShareMemory = 8192

// recordPlace names a record.
type recordPlace struct {
	topic     string
	partition int32
	offset    int64
}

func placeOf(r *kgo.Record) recordPlace { return recordPlace{r.Topic, r.Partition, r.Offset} }

// shareMemory is what this process knows of hand-outs that have ended: how they were settled, and
// why their records will come again. It is bounded: the oldest is forgotten, and then its cause is
// unknown.
type shareMemory struct {
	outcomes map[ackwise.LeaseToken]ackwise.Outcome
	order    []ackwise.LeaseToken
	ends     map[recordPlace]handOutEnd
	places   []recordPlace
}

// handOutEnd is why a record will come again, and how often it had been handed out by then.
type handOutEnd struct {
	count int
	cause ackwise.Cause
}

func newShareMemory() shareMemory {
	return shareMemory{outcomes: map[ackwise.LeaseToken]ackwise.Outcome{},
		ends: map[recordPlace]handOutEnd{}}
}

// cause says why a record came. It is known where this process had it the time before: the broker
// counts one more.
func (m *shareMemory) cause(at recordPlace, count int) ackwise.Cause {
	end, ok := m.ends[at]
	delete(m.ends, at)
	switch {
	case ok && count == end.count+1:
		return end.cause
	case !ok && count == 1:
		return ackwise.CauseFirst
	}
	return ackwise.CauseUnknown
}

func (m *shareMemory) note(at recordPlace, count int, cause ackwise.Cause) {
	if _, ok := m.ends[at]; !ok {
		m.places = append(m.places, at)
	}
	m.ends[at] = handOutEnd{count, cause}
	for len(m.places) > maxShareMemory {
		delete(m.ends, m.places[0])
		m.places = m.places[1:]
	}
}

func (m *shareMemory) settled(t ackwise.LeaseToken, o ackwise.Outcome) {
	m.outcomes[t] = o
	m.order = append(m.order, t)
	for len(m.order) > maxShareMemory {
		delete(m.outcomes, m.order[0])
		m.order = m.order[1:]
	}
}

// expect notes why the record of a settlement would come again.
func (m *shareMemory) expect(r *ruling) {
	if r.outcome != ackwise.OutcomeExtend {
		m.note(placeOf(r.held.record), r.held.delivery.Counts.HandOuts, r.outcome.Again())
	}
}

// ended takes in what became of a settlement. What is away does not come again; of what was not
// carried out only an ack says why it does.
func (m *shareMemory) ended(r *ruling, err error) {
	if err != nil {
		delete(m.outcomes, r.held.delivery.Token)
	}
	back := ackOf(r.outcome) == kgo.AckRelease
	if err == nil && back || err != nil && r.outcome == ackwise.OutcomeAck {
		return
	}
	at := placeOf(r.held.record)
	if m.ends[at].count == r.held.delivery.Counts.HandOuts {
		delete(m.ends, at)
	}
}

// again answers a settlement of a hand-out that has ended.
func (m *shareMemory) again(t ackwise.LeaseToken, o ackwise.Outcome) ackwise.SettleResult {
	before, ok := m.outcomes[t]
	switch {
	case !ok || o == ackwise.OutcomeExtend:
		return ackwise.SettleResult{Err: ackwise.ErrLeaseLost}
	case before != o:
		return ackwise.SettleResult{Err: ackwise.ErrSettled}
	}
	return ackwise.SettleResult{Already: true}
}
