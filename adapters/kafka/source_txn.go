package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise/deliver/logsource"
)

// What a transaction needs to settle what it has consumed.

// share reports that the source reads by a share group, which no transaction can settle.
func (s *Source) share() bool { return s.group == nil }

// conn says how the source reaches its brokers.
func (s *Source) conn() *Conn { return &s.opts.Conn }

// fenceOf puts this member's fence into a request. Ask for it before txnOffsets.
func (s *Source) fenceOf(req *kmsg.TxnOffsetCommitRequest) (err error) {
	req.Group = s.opts.Group
	if s.opts.Instance != "" {
		req.InstanceID = &s.opts.Instance
	}
	req.MemberID, req.Generation, err = s.group.fence()
	return err
}

// txnOffsets are marks as a transaction commits them, and the assignments that they belong to.
func (s *Source) txnOffsets(marks []logsource.Mark) (topics []kmsg.TxnOffsetCommitRequestTopic,
	stays map[string]*part, err error) {
	stays = map[string]*part{}
	at := map[string]int{} // topic → its place
	for _, m := range marks {
		spot, err := s.group.place(m)
		if err != nil {
			return nil, nil, err
		}
		stays[m.Partition] = spot.stay
		k, ok := at[spot.topic]
		if !ok {
			k = len(topics)
			at[spot.topic] = k
			t := kmsg.NewTxnOffsetCommitRequestTopic()
			t.Topic = spot.topic
			topics = append(topics, t)
		}
		p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = spot.partition, spot.offset, &spot.metadata
		topics[k].Partitions = append(topics[k].Partitions, p)
	}
	return topics, stays, nil
}
