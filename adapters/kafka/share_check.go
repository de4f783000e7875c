package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// Settings of a share group that decide what it sees.
const (
	shareReset     = "share.auto.offset.reset"
	shareIsolation = "share.isolation.level"
	shareLease     = "share.record.lock.duration.ms"
	shareLimit     = "share.delivery.count.limit"
	// The brokers' own lease of a record and bound of hand-outs, where nothing says another one.
	defaultLease = 30 * time.Second
	defaultLimit = 5
)

// prepareShare compares the group's settings with what the options ask for; with Create it sets
// them.
func prepareShare(ctx context.Context, cl *kgo.Client, adm *kadm.Client, o *SourceOptions) error {
	want := map[string]string{shareReset: "earliest", shareIsolation: "read_committed"}
	if o.Latest {
		want[shareReset] = "latest"
	}
	if o.Uncommitted {
		want[shareIsolation] = "read_uncommitted"
	}
	if o.Create {
		if err := alterGroup(ctx, cl, o.Group, want); err != nil {
			return fmt.Errorf("set up share group %s: %w", o.Group, err)
		}
	}
	got, err := describeGroup(ctx, cl, o.Group)
	for err == nil && o.Create && compareGroup(o, got, want) != nil && pause.For(ctx, prepareAgain) {
		got, err = describeGroup(ctx, cl, o.Group) // what was just set is seen a moment later
	}
	hidden := errors.Is(err, kerr.GroupAuthorizationFailed) ||
		errors.Is(err, kerr.ClusterAuthorizationFailed) // then it is as its operator has set it up
	if err != nil && !hidden {
		return fmt.Errorf("read the settings of share group %s: %w", o.Group, err)
	}
	if err := compareGroup(o, got, want); !hidden && err != nil {
		return err
	}
	brokers := map[string]string{}
	if got[shareLease] == "" || got[shareLimit] == "" {
		brokers = brokerConfigs(ctx, adm)
	}
	number := func(name string, otherwise int) int {
		n, err := strconv.Atoi(cmp.Or(got[name], brokers["group."+name]))
		if err != nil || n <= 0 {
			return otherwise
		}
		return n
	}
	o.lease = time.Duration(number(shareLease, int(defaultLease/time.Millisecond))) * time.Millisecond
	o.handOuts = number(shareLimit, defaultLimit)
	return checkRenew(ctx, adm, o)
}

// compareGroup says which setting of a group is not what is wanted. What the broker does not name
// has its default.
func compareGroup(o *SourceOptions, got, want map[string]string) error {
	unset := map[string]string{shareReset: "latest", shareIsolation: "read_uncommitted"}
	for name, value := range want {
		if is := cmp.Or(got[name], unset[name]); is != value {
			return &ackwise.HintError{
				Err: fmt.Errorf("the share group %s has %s=%s, not %s",
					o.Group, name, is, value),
				Hint: "create=true sets it; or ask for what it is by start and isolation",
			}
		}
	}
	return nil
}

// brokerConfigs asks for the brokers' settings; there are none of those that this user may not see.
// Any broker may become a group's coordinator: of numbers that differ it is the smallest.
func brokerConfigs(ctx context.Context, adm *kadm.Client) map[string]string {
	got := map[string]string{}
	brokers, err := adm.ListBrokers(ctx)
	if err != nil || len(brokers) == 0 {
		return got
	}
	configs, _ := adm.DescribeBrokerConfigs(ctx, brokers.NodeIDs()...) // of those that have answered
	for _, r := range configs {
		for _, c := range r.Configs {
			got[c.Key] = smaller(got[c.Key], c.MaybeValue())
		}
	}
	return got
}

// smaller returns the smaller one of two numbers, or the one that is one.
func smaller(a, b string) string {
	one, errA := strconv.Atoi(a)
	two, errB := strconv.Atoi(b)
	if errB != nil && a != "" || errA == nil && one <= two {
		return a
	}
	return b
}

// renewVersion of ShareAcknowledge can extend a lease (KIP-1222).
const renewVersion = 2

func checkRenew(ctx context.Context, adm *kadm.Client, o *SourceOptions) error {
	brokers, err := adm.ApiVersions(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers' versions: %w", err)
	}
	o.renews = true
	for _, b := range brokers {
		most, ok := b.KeyMaxVersion(int16(kmsg.ShareAcknowledge))
		if b.Err == nil && (!ok || most < renewVersion) {
			o.renews = false
		}
	}
	return nil
}

func alterGroup(ctx context.Context, cl *kgo.Client, group string, set map[string]string) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	for name, value := range set {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Value = name, &value
		r.Configs = append(r.Configs, c)
	}
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

func describeGroup(ctx context.Context, cl *kgo.Client, group string) (map[string]string, error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for _, r := range resp.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return nil, err
		}
		for _, c := range r.Configs {
			if c.Value != nil {
				got[c.Name] = *c.Value
			}
		}
	}
	return got, nil
}
