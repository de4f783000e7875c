package kafka_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/internal/pause"
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

// TestCloseWaitsForTheGroup: a group that is slow to answer is told of the end all the same, so
// that nobody waits for the session of the member.
func TestCloseWaitsForTheGroup(t *testing.T) {
	p := fakePlace(t, 1, "classic")
	p.put(t, 0, 0, 1)
	s := open(t, p.url(""))
	ack(t, s, receive(t, s, 1)...)
	var fired atomic.Int32
	p.fake.ControlKey(int16(kmsg.LeaveGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		fired.Add(1)
		p.fake.SleepControl(func() { pause.For(t.Context(), time.Second) })
		return nil, nil, false
	})
	if err := s.Close(); err != nil || fired.Load() != 1 {
		t.Errorf("close: %v; %d were told to leave", err, fired.Load())
	}
}

// limitMetadata has the fake keep no more beside a position than so many bytes. It tells of that
// limit unless it is hidden. The longest that came is returned.
func (p *place) limitMetadata(limit int, hidden bool) (longest *atomic.Int32) {
	longest = new(atomic.Int32)
	p.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
		p.fake.KeepControl()
		n := 0
		commit := req.(*kmsg.OffsetCommitRequest)
		for _, t := range commit.Topics {
			for _, at := range t.Partitions {
				n = max(n, len(*at.Metadata))
			}
		}
		longest.Store(max(longest.Load(), int32(n)))
		if n > limit {
			return refuse(commit, kerr.OffsetMetadataTooLarge), nil, true
		}
		return nil, nil, false
	})
	p.fake.ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (
		kmsg.Response, error, bool) {
		p.fake.KeepControl()
		ask := req.(*kmsg.DescribeConfigsRequest).Resources[0]
		if ask.ResourceType != kmsg.ConfigResourceTypeBroker {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		r := kmsg.NewDescribeConfigsResponseResource()
		r.ResourceType, r.ResourceName = ask.ResourceType, ask.ResourceName
		if hidden {
			r.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		} else {
			c := kmsg.NewDescribeConfigsResponseResourceConfig()
			most := 4096
			if ask.ResourceName == strconv.Itoa(len(p.fake.ListenAddrs())-1) {
				most = limit // only the last broker's
			}
			c.Name, c.Value = "offset.metadata.max.bytes", new(strconv.Itoa(most))
			r.Configs = append(r.Configs, c)
		}
		resp.Resources = append(resp.Resources, r)
		return resp, nil, true
	})
	return longest
}

// holdMany takes what it can get, and settles it out of order, so that much is to be noted: each
// message is nacked once.
func holdMany(t *testing.T, p *place, url string) {
	t.Helper()
	const n = 400
	p.put(t, 0, 0, n)
	s := open(t, url)
	got, acked := map[string]int{}, 0
	var held []*ackwise.Delivery
	for over := late(t); acked < n; {
		select {
		case <-over:
			t.Fatalf("%d of %d messages are acked, %d held", acked, n, len(held))
		default:
		}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		ds, err := s.Receive(short, 50)
		cancel()
		if err != nil && short.Err() == nil {
			t.Fatal(err)
		}
		for _, d := range ds {
			got[d.ID]++
		}
		if held = append(held, ds...); len(ds) > 0 && len(held) < n/2 {
			continue // there is room for more
		}
		for i := len(held) - 1; i >= 0; i -= 2 { // every other one, the last one first
			l := ackwise.Settlement{Token: held[i].Token}
			if got[held[i].ID] == 1 {
				l.Outcome, l.Delay, l.Reason = ackwise.OutcomeNack, time.Millisecond, "once"
			} else {
				acked++
			}
			if r := s.Settle(t.Context(), []ackwise.Settlement{l})[0]; r.Err != nil {
				t.Fatalf("settle %s: %v", held[i].ID, r.Err)
			}
			held = slices.Delete(held, i, i+1)
		}
	}
	for id, times := range got {
		if times != 2 {
			t.Errorf("%s came %d times", id, times)
		}
	}
}

// TestNotesFitTheBroker: the brokers keep less beside a position than the journal has by default.
// They are asked, the journal is as long as they keep it, and a longer one is refused at the start.
func TestNotesFitTheBroker(t *testing.T) {
	p := fakePlace(t, 1, "classic")
	longest := p.limitMetadata(480, false)
	holdMany(t, p, p.url(""))
	if n := longest.Load(); n > 480 || n < 250 {
		t.Errorf("the longest note has %d bytes", n)
	}
	for options, limit := range map[string]int{"&note-bytes=1000": 480, "": 300} {
		p := fakePlace(t, 1, "classic", kfake.NumBrokers(3))
		p.limitMetadata(limit, false)
		tooLong(t, p.url(options), strconv.Itoa(limit))
	}
}

// tooLong opens a source whose journal the brokers would not keep.
func tooLong(t *testing.T, url, limit string) {
	t.Helper()
	o, err := kafka.ParseSource(url)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kafka.OpenSource(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "offset.metadata.max.bytes") ||
		!strings.Contains(err.Error(), limit) {
		t.Errorf("open: %v", err)
	}
}

// TestNotesOfAHiddenLimit: who may not ask what the brokers keep is told when they refuse a note.
func TestNotesOfAHiddenLimit(t *testing.T) {
	p := fakePlace(t, 1, "classic")
	p.limitMetadata(40, true)
	p.put(t, 0, 0, 600)
	s := open(t, p.url(""))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	for err == nil {
		_, err = s.Receive(ctx, 10)
	}
	if !errors.Is(err, kerr.OffsetMetadataTooLarge) || !strings.Contains(err.Error(), "note-bytes") {
		t.Errorf("receive: %v", err)
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
