package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// spot is where a mark is written.
type spot struct {
	stay      *part // the assignment that it belongs to
	topic     string
	id        [16]byte
	partition int32
	offset    int64  // of the next record to be read
	metadata  string // the note, in base64: Kafka keeps text
}

// errAnew is no refusal: the source has not taken in the assignment that the partition has now, and
// may mean the one before it.
var errAnew = fmt.Errorf("the partition has just come anew: %w", kerr.RebalanceInProgress)

// errNoMember says that this member is joining. A commit without a member's ID is taken by a group
// that is empty, whoever had the partition meanwhile.
var errNoMember = fmt.Errorf("this member is not in the group now: %w", kerr.RebalanceInProgress)

// fence is what commits are fenced by.
func (g *group) fence() (member string, generation int32, err error) {
	member, generation = g.cl.GroupMetadata()
	if member == "" || generation < 0 {
		err = errNoMember
	}
	return member, generation, err
}

// place says where a mark is written, or that its partition is not this member's any more. Ask for
// the fence before: then a partition that has gone since is refused by the group.
func (g *group) place(m logsource.Mark) (spot, error) {
	at, err := offset(m.Position)
	if err != nil {
		return spot{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.parts[m.Partition]
	if p == nil {
		delete(g.stays, m.Partition)
		return spot{}, fmt.Errorf("%s: %w", m.Partition, logsource.ErrFenced)
	}
	if !p.known || m.Position != "" && at+1 < p.base {
		return spot{}, fmt.Errorf("%s: %w", m.Partition, errAnew)
	}
	s := spot{stay: p, topic: p.topic, id: p.id, partition: p.partition, offset: at + 1,
		metadata: base64.StdEncoding.EncodeToString(m.Note)}
	if m.Position == "" {
		s.offset = p.base
	}
	return s, nil
}

// Commit writes positions and notes, fenced by this member's generation (KIP-848: its epoch).
//
// The request is our own: the client's waits for a join of the group to end, and that may take as
// long as another member's session, though the group takes commits meanwhile.
func (g *group) Commit(ctx context.Context, marks []logsource.Mark) []error {
	errs, stays := make([]error, len(marks)), make([]*part, len(marks))
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group = g.opts.Group
	var err error
	if req.MemberID, req.Generation, err = g.fence(); err != nil {
		return slices.Repeat([]error{err}, len(marks))
	}
	if g.opts.Instance != "" {
		req.InstanceID = new(g.opts.Instance)
	}
	at := map[string]int{} // topic → its place in the request
	for i := range marks {
		s, err := g.place(marks[i])
		if err != nil {
			errs[i] = err
			continue
		}
		stays[i] = s.stay
		k, ok := at[s.topic]
		if !ok {
			k = len(req.Topics)
			at[s.topic] = k
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic, t.TopicID = s.topic, s.id
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.Metadata = s.partition, s.offset, &s.metadata
		req.Topics[k].Partitions = append(req.Topics[k].Partitions, p)
	}
	if len(req.Topics) == 0 {
		return errs
	}
	resp, err := req.RequestWith(ctx, g.cl)
	for i := range marks {
		if errs[i] == nil {
			errs[i] = g.committed(stays[i], resp, err)
		}
		if errors.Is(errs[i], kerr.UnknownTopicID) ||
			errors.Is(errs[i], kerr.UnknownTopicOrPartition) {
			errs[i] = g.deleted(ctx, stays[i], errs[i])
		}
	}
	return errs
}

// deleted ends the source if the topic of a partition is gone, or was made anew. A topic that is
// just made may not be known everywhere yet; then err may pass.
func (g *group) deleted(ctx context.Context, p *part, err error) error {
	ctx = context.WithoutCancel(ctx) // a poll's own ends when somebody wants the gate
	ctx, cancel := context.WithTimeout(ctx, g.opts.SessionTimeout)
	defer cancel()
	found, listErr := g.adm.ListTopics(ctx, p.topic)
	t, ok := found[p.topic]
	if listErr != nil || !ok && len(found) > 0 ||
		ok && t.Err != nil && !errors.Is(t.Err, kerr.UnknownTopicOrPartition) ||
		ok && t.Err == nil && (p.id == [16]byte{} || [16]byte(t.ID) == p.id) {
		return err
	}
	gone := &deletedError{topic: p.topic}
	g.fail(gone)
	return g.fenced(p, gone)
}

// deletedError reports a topic that was deleted while it was read.
type deletedError struct{ topic string }

func (e *deletedError) Error() string {
	return fmt.Sprintf("the topic %s was deleted while it was read", e.topic)
}
func (e *deletedError) Final() bool { return true }

var errNoAnswer = errors.New("the broker's answer does not name it")

// committed returns what became of a partition's commit.
func (g *group) committed(stay *part, resp *kmsg.OffsetCommitResponse, err error) error {
	if err != nil {
		return severed(err)
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for _, p := range t.Partitions {
			named := t.Topic == stay.topic || t.Topic == "" && t.TopicID == stay.id
			if named && p.Partition == stay.partition {
				return g.commitError(stay, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	return errNoAnswer
}

// commitError sorts a commit's error. Only where the group has surely removed this member is the
// partition lost at once. An old generation is not enough: this member may be joining the next one,
// and keep the partition. Then the commit is repeated; and if it does not keep it, the client says
// so soon.
func (g *group) commitError(stay *part, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID),
		errors.Is(err, kerr.FencedMemberEpoch):
		return g.fenced(stay, err)
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		return &ackwise.HintError{Err: err,
			Hint: "set note-bytes to three quarters of the broker's offset.metadata.max.bytes"}
	}
	return err
}

// fenced notes that the group has taken a partition before the client knows. A request may take so
// long that the member has joined again meanwhile and has the partition anew: of that assignment an
// old refusal says nothing, and the commit is repeated.
func (g *group) fenced(stay *part, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.parts[stay.name]
	if now != nil && now != stay {
		return fmt.Errorf("%w: %w", errAnew, err)
	}
	delete(g.stays, stay.name)
	if now != nil {
		delete(g.parts, stay.name)
		g.kicked[stay.name] = stay
		if !stay.done {
			stay.done = true
			close(stay.released)
		}
	}
	return fmt.Errorf("%w: %w", logsource.ErrFenced, err)
}
