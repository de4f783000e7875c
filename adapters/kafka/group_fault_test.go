package kafka_test

import (
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
)

// leave takes a member out of the group, as an operator can.
func (p *place) leave(t testing.TB, s ackwise.Source) {
	t.Helper()
	member := kafka.MemberOf(s)
	if p.protocol == "consumer" {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.MemberEpoch = "g-"+p.topic, member, -1
		resp, err := req.RequestWith(t.Context(), p.cl)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = "g-"+p.topic, member
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	req.Members = append(req.Members, m)
	resp, err := req.RequestWith(t.Context(), p.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRejoinedInSilence: the group removes a member, and tells it no more than that it rebalances.
// The client joins again and keeps what it had; but somebody else had it in between, and its
// position is another one.
func TestRejoinedInSilence(t *testing.T) {
	p := fakePlace(t, 1, "classic")
	p.put(t, 0, 0, 6)
	s := open(t, p.url("&session-timeout=2s"))
	d := receive(t, s, 1)[0]
	old := kafka.MemberOf(s)
	var fired atomic.Int32
	p.fake.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		p.fake.KeepControl()
		if req.(*kmsg.HeartbeatRequest).MemberID != old {
			return nil, nil, false
		}
		fired.Add(1)
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.RebalanceInProgress.Code
		return resp, nil, true
	})
	p.leave(t, s)
	at := kadm.Offsets{}
	at.AddOffset(p.topic, 0, 4, -1)
	if _, err := p.adm.CommitOffsets(t.Context(), "g-"+p.topic, at); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.Lost():
	case <-late(t):
		t.Fatal("what the member had was not lost")
	}
	expect(t, s, map[string]ackwise.Cause{"m4": ackwise.CauseUnknown, "m5": ackwise.CauseUnknown})
	if fired.Load() == 0 {
		t.Error("the group told of no rebalance")
	}
}

// TestCommitRefused: an old generation is no reason to let a partition go; the commit is repeated.
func TestCommitRefused(t *testing.T) {
	for _, code := range []*kerr.Error{kerr.IllegalGeneration, kerr.RebalanceInProgress,
		kerr.StaleMemberEpoch, kerr.NotCoordinator} {
		t.Run(code.Message, func(t *testing.T) {
			t.Parallel()
			p := fakePlace(t, 1, "classic")
			p.put(t, 0, 0, 1)
			s := open(t, p.url(""))
			d := receive(t, s, 1)[0]
			fired := 0
			p.fake.ControlKey(int16(kmsg.OffsetCommit),
				func(req kmsg.Request) (kmsg.Response, error, bool) {
					fired++
					return refuse(req.(*kmsg.OffsetCommitRequest), code), nil, true
				})
			l := []ackwise.Settlement{{Token: d.Token}}
			for try := 0; s.Settle(t.Context(), l)[0].Err != nil; try++ {
				if try > 5 {
					t.Fatal("the ack is refused again and again")
				}
			}
			if fired != 1 {
				t.Errorf("refused %d times", fired)
			}
		})
	}
}

func refuse(req *kmsg.OffsetCommitRequest, code *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range req.Topics {
		answer := kmsg.NewOffsetCommitResponseTopic()
		answer.Topic, answer.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			a := kmsg.NewOffsetCommitResponseTopicPartition()
			a.Partition, a.ErrorCode = p.Partition, code.Code
			answer.Partitions = append(answer.Partitions, a)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}
