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

// membership is this member's fence. Ask for it before txnOffsets.
func (s *Source) membership() (group, member string, generation int32, instance *string) {
	member, generation = s.group.cl.GroupMetadata()
	if s.opts.Instance != "" {
		instance = &s.opts.Instance
	}
	return s.opts.Group, member, generation, instance
}

// txnOffsets are marks as a transaction commits them.
func (s *Source) txnOffsets(marks []logsource.Mark) ([]kmsg.TxnOffsetCommitRequestTopic, error) {
	var topics []kmsg.TxnOffsetCommitRequestTopic
	at := map[string]int{} // topic → its place
	for _, m := range marks {
		spot, err := s.group.place(m)
		if err != nil {
			return nil, err
		}
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
	return topics, nil
}

// fenced sorts the error of a partition's TxnOffsetCommit as that of a commit: where the group has
// removed this member the error is logsource.ErrFenced, and the partition comes anew.
func (s *Source) fenced(partition string, err error) error {
	return s.group.commitError(partition, err)
}
