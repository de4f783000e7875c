package kafka_test

import (
	"errors"
	"slices"
	"sync"
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

// TestLatestLooksAtTheLogFirst: where the log ended before the group was seen to have no position
// is not behind the start of anybody who opens the group meanwhile.
func TestLatestLooksAtTheLogFirst(t *testing.T) {
	p := fakePlace(t, 1, "classic")
	var mu sync.Mutex // guards asked
	var asked []string
	for _, key := range []kmsg.Key{kmsg.OffsetFetch, kmsg.ListOffsets, kmsg.OffsetCommit} {
		p.fake.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) {
			p.fake.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, key.Name())
			return nil, nil, false
		})
	}
	open(t, p.url("&start=latest"))
	mu.Lock()
	defer mu.Unlock()
	want := []string{"OffsetFetch", "ListOffsets", "OffsetFetch", "OffsetCommit"}
	if len(asked) < 4 || !slices.Equal(asked[:4], want) {
		t.Errorf("asked %v, want %v first", asked, want)
	}
}

// TestCommitFenced: a commit that the group refuses because it has removed the member takes the
// message away at once; when the client has heard of it too it comes again.
func TestCommitFenced(t *testing.T) {
	p := fakePlace(t, 1, "classic")
	p.put(t, 0, 0, 2)
	s := open(t, p.url("&session-timeout=2s"))
	d := receive(t, s, 1)[0]
	fired := make(chan struct{}, 2)
	p.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fired <- struct{}{}
		return refuse(req.(*kmsg.OffsetCommitRequest), kerr.UnknownMemberID), nil, true
	})
	r := s.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}})[0]
	if !errors.Is(r.Err, ackwise.ErrLeaseLost) {
		t.Errorf("ack: %+v", r)
	}
	p.leave(t, s)
	got := receive(t, s, 2)
	if got[0].ID != "m0" || got[0].Cause == ackwise.CauseFirst || got[1].ID != "m1" {
		t.Errorf("%s, %s; %s", got[0].ID, got[0].Cause, got[1].ID)
	}
	ack(t, s, got...)
	if len(fired) != 1 {
		t.Errorf("%d refusals, want 1", len(fired))
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
