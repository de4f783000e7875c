package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// need is a request that brokers have to know, for what, and what to do where they do not.
type need struct {
	key      kmsg.Key
	version  int16
	of, hint string
}

// unsupportedError reports brokers that are too old, or not told to.
type unsupportedError struct{ need, hint string }

func (e *unsupportedError) Error() string {
	return fmt.Sprintf("the brokers do not know %s\n  hint: %s", e.need, e.hint)
}
func (e *unsupportedError) Final() bool { return true }

// checkVersions asks the brokers whether all of them know a request.
func checkVersions(ctx context.Context, adm *kadm.Client, n need) error {
	brokers, err := adm.ApiVersions(ctx)
	if err != nil {
		return fmt.Errorf("ask for the brokers' versions: %w", err)
	}
	for _, b := range brokers {
		if most, ok := b.KeyMaxVersion(int16(n.key)); b.Err == nil && (!ok || most < n.version) {
			return &unsupportedError{n.of, n.hint}
		}
	}
	return nil
}

// recordsFetch is the version of Fetch that returns records with headers, and only committed ones.
const recordsFetch = 4

// checkRecords asks one of the brokers, since no source waits for a broker that it does not need,
// whether it knows records as a source reads them. The client would wait for newer ones, without a
// word.
func checkRecords(ctx context.Context, cl *kgo.Client) error {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "ackwise", "1"
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("ask for a broker's versions: %w", err)
	}
	for _, k := range resp.ApiKeys {
		if k.ApiKey == int16(kmsg.Fetch) && k.MaxVersion < recordsFetch {
			return &unsupportedError{"records with headers", "they need Apache Kafka 0.11 or later"}
		}
	}
	return nil
}

// errNoProducer says that the brokers give no producer ID: without one they neither drop what the
// client repeats nor keep a key's order then.
func errNoProducer() error {
	return &unsupportedError{"idempotent producers", "they need Apache Kafka 0.11 or later"}
}

// fencedCommits is what a transaction needs to be fenced by the group's generation.
func fencedCommits() need {
	return need{kmsg.TxnOffsetCommit, 3,
		"transactions that are fenced by a group's generation (KIP-447)",
		"they need Apache Kafka 2.5 or later; use AtLeastOnce with a handler of package idempotency"}
}
