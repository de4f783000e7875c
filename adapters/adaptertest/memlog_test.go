package adaptertest_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

func TestMemlog(t *testing.T) { t.Parallel(); adaptertest.Run(t, memlogHarness()) }

// memlogs are the logs of a harness by their addresses, and who reads them.
type memlogs struct {
	mu      sync.Mutex // guards the fields below
	logs    []*memlog.Log
	members int
}

const (
	partitions = 4
	drain      = 20 * time.Second // more than a busy machine makes of the 300 ms that a handler gets
)

// memlogHarness is logsource on a log in this process's memory.
func memlogHarness() adaptertest.Harness {
	all := &memlogs{}
	return adaptertest.Harness{
		Name: "logsource (fake)", Source: logFeatures(),
		OpenSource: func(_ context.Context, address string) (ackwise.Source, error) {
			return all.open(address)
		},
		New: func(*testing.T) *adaptertest.Bed {
			address, log := all.add()
			return &adaptertest.Bed{Source: address, Patience: patience,
				Write: func(_ context.Context, ms []ackwise.Message) error {
					for _, m := range ms {
						log.Append(partitionOf(&m), m)
					}
					return nil
				},
				Kill: func(s ackwise.Source) {
					s.(*memlogSource).member.Kill()
					rebalance(log)
				}}
		},
	}
}

func (a *memlogs) add() (string, *memlog.Log) {
	a.mu.Lock()
	defer a.mu.Unlock()
	log := memlog.New("suite", partitions)
	a.logs = append(a.logs, log)
	return fmt.Sprint(len(a.logs) - 1), log
}

func (a *memlogs) open(address string) (ackwise.Source, error) {
	a.mu.Lock()
	var i int
	_, err := fmt.Sscan(address, &i)
	log := a.logs[i]
	a.members++
	name := fmt.Sprintf("member-%d", a.members)
	a.mu.Unlock()
	if err != nil {
		return nil, err
	}
	m := log.Join(name)
	s, err := logsource.New(m, logsource.Options{Consumer: name})
	if err != nil {
		return nil, err
	}
	rebalance(log)
	return &memlogSource{s, m, log}, nil
}

// rebalance spreads the partitions, and takes those that are not given back in time.
func rebalance(log *memlog.Log) {
	log.Rebalance(0, time.Now().Add(drain))
	time.AfterFunc(drain, func() { log.Expire(time.Now()) })
}

func partitionOf(m *ackwise.Message) int {
	h := fnv.New32()
	_, _ = h.Write([]byte(m.Key))
	return int(h.Sum32() % partitions)
}

type memlogSource struct {
	*logsource.Source
	member *memlog.Member
	log    *memlog.Log
}

// Close leaves the group.
func (s *memlogSource) Close() error {
	err := s.Source.Close()
	rebalance(s.log)
	return err
}
