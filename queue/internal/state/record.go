package state

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
)

// Types of records. Their numbers are in the format (docs/FORMAT.md) and never change.
const (
	typeOpen          byte = 1
	typeCreateTopic   byte = 2
	typeDeleteTopic   byte = 3
	typeCreateSub     byte = 4
	typeDeleteSub     byte = 5
	typePublish       byte = 6
	typeDue           byte = 7
	typePull          byte = 8
	typeLease         byte = 9
	typeSettle        byte = 10
	typeExpire        byte = 11
	typeWake          byte = 12
	typeOpenSession   byte = 13
	typeEndSession    byte = 14
	typeRedrive       byte = 15
	typeDropDead      byte = 16
	typeTablePut      byte = 17
	typeTrim          byte = 18
	typeAckLost       byte = 19
	typeProducedAgain byte = 20
	typeCommitted     byte = 21
	typeSettleMany    byte = 22
	typeMakeSet       byte = 23
	typeBindSet       byte = 24
	typeClaims        byte = 25
	typeSettleClaims  byte = 26
	typeCompleteClaim byte = 27
	typeOnce          byte = 28
	typeExpireSet     byte = 29
)

// Record is one step of the state. apply never fails: what could is asked by check before, at
// replay, where a record that does not fit means a damaged log.
type Record interface {
	Type() byte
	Append([]byte) []byte
	check(*State) error
	apply(*State)
}

// Open begins an owner's term. Its number makes the generations of the term its own, and the
// identity makes the store's tokens its own: a copied directory, which has another inode, gets
// another one.
type Open struct {
	Now      int64
	Number   uint32
	Process  string
	Inode    uint64 // of the directory; 0 = unknown
	Identity [16]byte
}

// CreateTopic makes a topic.
type CreateTopic struct {
	Now    int64
	ID     uint32
	Name   string
	Config TopicConfig
}

// DeleteTopic deletes a topic and its subscriptions.
type DeleteTopic struct {
	Now    int64
	ID     uint32
	Reason string
}

// CreateSub makes a subscription that begins at the sequence Start of the topic's line; with Rest
// it gets what else is kept before that.
type CreateSub struct {
	Now    int64
	ID     uint32
	Topic  uint32
	Name   string
	Start  uint64
	Rest   bool
	Config SubConfig
}

// DeleteSub deletes a subscription.
type DeleteSub struct {
	Now    int64
	ID     uint32
	Reason string
}

// dueRecord lets the first Count scheduled messages of a topic take their places.
type dueRecord struct {
	Now   int64
	Topic uint32
	Count int
}

// pullRecord takes a topic's messages up to the sequence To into a subscription.
type pullRecord struct {
	Sub uint32
	To  uint64
}

// leaseRecord hands messages out to a session. The n-th gets the generation Gen + n. Runs holds,
// for each, how many before it in the same key run.
type leaseRecord struct {
	Now      int64
	Sub      uint32
	Session  uint32
	Deadline int64
	Gen      uint64
	Seqs     []uint64
	Runs     []uint32
}

// settleRecord ends one hand-out, or extends it.
type settleRecord struct {
	Now     int64
	Sub     uint32
	Seq     uint64
	Outcome ackwise.Outcome
	Until   int64 // OutcomeNack, OutcomeSnooze: when it is ready again; OutcomeExtend: the deadline
	Reason  string
}

// settleManyRecord ends hand-outs of one subscription, in this order, all with the same outcome and
// without a reason or a time: acks and releases, see plain.
type settleManyRecord struct {
	Now     int64
	Sub     uint32
	Outcome ackwise.Outcome
	Seqs    []uint64
}

// expireRecord ends hand-outs whose leases ran out in living sessions.
type expireRecord struct {
	Now  int64
	Sub  uint32
	Seqs []uint64
}

// wakeRecord makes the first Count delayed messages of a subscription ready.
type wakeRecord struct {
	Now   int64
	Sub   uint32
	Count int
}

// OpenSession begins a session.
type OpenSession struct {
	Now     int64
	ID      uint32
	Sub     uint32
	Word    string
	Name    string
	Foreign bool
	Process string
}

// EndSession ends a session and every hand-out that it holds.
type EndSession struct {
	Now int64
	ID  uint32
	How End
}

// redriveRecord brings a dead letter back to the head of its key.
type redriveRecord struct {
	Now  int64
	Sub  uint32
	Seq  uint64
	Redo bool
}

// dropDeadRecord drops a dead letter.
type dropDeadRecord struct {
	Now    int64
	Sub    uint32
	Seq    uint64
	Reason string
}

// TablePut writes a table's key; a nil value deletes it.
type TablePut struct {
	Table, Key string
	Value      []byte
	Version    uint64
}

// trimRecord lets go of a topic's messages before a sequence, by its retention.
type trimRecord struct {
	Now   int64
	Topic uint32
	To    uint64
}

// ackLostRecord remembers that the handler of a lost hand-out had succeeded: the cause of the
// hand-out that followed becomes ack-lost, and both counters move.
type ackLostRecord struct {
	Sub uint32
	Gen uint64
}

// producedAgainRecord counts repeats that dedup suppressed.
type producedAgainRecord struct {
	Topic uint32
	Count int
}

// committedRecord remembers a transaction by its ID, so that a repeat is not carried out again.
type committedRecord struct {
	ID string
}

func decodeRecord(typ byte, payload []byte) (Record, error) {
	d := decoder{b: payload}
	r := d.record(typ)
	if r == nil {
		return nil, fmt.Errorf("record of the unknown type %d: a newer version wrote it", typ)
	}
	if err := d.done(); err != nil {
		return nil, fmt.Errorf("decode record of type %d: %w", typ, err)
	}
	return r, nil
}

func (d *decoder) record(typ byte) Record {
	switch typ {
	case typeOpen:
		r := &Open{Now: d.int(), Number: d.u32(), Process: d.string(), Inode: d.uint()}
		d.identity(&r.Identity)
		return r
	case typeCreateTopic:
		r := &CreateTopic{Now: d.int(), ID: d.u32(), Name: d.string()}
		d.json(&r.Config)
		return r
	case typeDeleteTopic:
		return &DeleteTopic{Now: d.int(), ID: d.u32(), Reason: d.string()}
	case typeCreateSub:
		r := &CreateSub{Now: d.int(), ID: d.u32(), Topic: d.u32(), Name: d.string(),
			Start: d.uint(), Rest: d.bool()}
		d.json(&r.Config)
		return r
	case typeDeleteSub:
		return &DeleteSub{Now: d.int(), ID: d.u32(), Reason: d.string()}
	case typeOpenSession:
		return &OpenSession{Now: d.int(), ID: d.u32(), Sub: d.u32(), Word: d.string(),
			Name: d.string(), Foreign: d.bool(), Process: d.string()}
	case typeEndSession:
		return &EndSession{Now: d.int(), ID: d.u32(), How: End(d.byte())}
	case typeTablePut:
		r := &TablePut{Table: d.string(), Key: d.string(), Version: d.uint()}
		if d.bool() {
			r.Value = append([]byte{}, d.bytes()...)
		}
		return r
	case typeProducedAgain:
		return &producedAgainRecord{Topic: d.u32(), Count: int(d.uint())}
	case typeCommitted:
		return &committedRecord{ID: d.string()}
	}
	return d.movement(typ)
}

// movement decodes the records that move messages.
func (d *decoder) movement(typ byte) Record {
	switch typ {
	case typeDue:
		return &dueRecord{Now: d.int(), Topic: d.u32(), Count: int(d.uint())}
	case typePull:
		return &pullRecord{Sub: d.u32(), To: d.uint()}
	case typeLease:
		r := &leaseRecord{Now: d.int(), Sub: d.u32(), Session: d.u32(), Deadline: d.int(),
			Gen: d.uint(), Seqs: d.seqs()}
		r.Runs = make([]uint32, len(r.Seqs))
		for i := range r.Runs {
			r.Runs[i] = d.u32()
		}
		return r
	case typeSettle:
		return &settleRecord{Now: d.int(), Sub: d.u32(), Seq: d.uint(),
			Outcome: ackwise.Outcome(d.byte()), Until: d.int(), Reason: d.string()}
	case typeSettleMany:
		return &settleManyRecord{Now: d.int(), Sub: d.u32(), Outcome: ackwise.Outcome(d.byte()),
			Seqs: d.seqs()}
	case typeExpire:
		return &expireRecord{Now: d.int(), Sub: d.u32(), Seqs: d.seqs()}
	case typeWake:
		return &wakeRecord{Now: d.int(), Sub: d.u32(), Count: int(d.uint())}
	case typeRedrive:
		return &redriveRecord{Now: d.int(), Sub: d.u32(), Seq: d.uint(), Redo: d.bool()}
	case typeDropDead:
		return &dropDeadRecord{Now: d.int(), Sub: d.u32(), Seq: d.uint(), Reason: d.string()}
	case typeTrim:
		return &trimRecord{Now: d.int(), Topic: d.u32(), To: d.uint()}
	case typeAckLost:
		return &ackLostRecord{Sub: d.u32(), Gen: d.uint()}
	}
	return d.setRecord(typ)
}

func (d *decoder) u32() uint32 { return uint32(d.uint()) }

func (d *decoder) identity(id *[16]byte) {
	if b := d.bytes(); len(b) == len(id) {
		copy(id[:], b)
	} else {
		d.fail()
	}
}

func (d *decoder) seqs() []uint64 {
	seqs := make([]uint64, d.count())
	last := uint64(0)
	for i := range seqs {
		last += uint64(d.int()) // differences, which are small
		seqs[i] = last
	}
	return seqs
}

func putSeqs(b []byte, seqs []uint64) []byte {
	b = putUint(b, uint64(len(seqs)))
	last := uint64(0)
	for _, seq := range seqs {
		b = putInt(b, int64(seq-last))
		last = seq
	}
	return b
}

func (d *decoder) json(v any) {
	if b := d.bytes(); d.err == nil {
		if err := json.Unmarshal(b, v); err != nil {
			d.err = err
		}
	}
}

func putJSON(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // configs hold numbers and booleans only
	}
	return putString(b, text)
}

var errUnknownNumber = errors.New(
	"it names a topic, subscription, session or message that is not there")

func fits(ok bool) error {
	if !ok {
		return errUnknownNumber
	}
	return nil
}
