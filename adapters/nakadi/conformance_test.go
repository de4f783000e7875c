package nakadi_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/adapters/nakadi"
	"github.com/ackwise/ackwise/test/servers"
)

func TestConformanceWithNotes(t *testing.T) { adaptertest.Run(t, boxes()) }
func TestConformanceOfJSON(t *testing.T)    { adaptertest.Run(t, objectsRow()) }

const commitTimeout = 20 * time.Second

func features(notes bool) *ackwise.Features {
	return &ackwise.Features{Order: ackwise.OrderKey, Lease: commitTimeout,
		MaxNackDelay: 24 * time.Hour, Counts: notes, Causes: notes, KeyRuns: true}
}

// boxes is a type whose events carry any bytes, read with notes that its members share.
func boxes() adaptertest.Harness {
	return adaptertest.Harness{
		Name: "nakadi, wrapped, with notes", Source: features(true),
		Sink:       &ackwise.SinkFeatures{KeyRunSafe: true, MaxBatch: 500, MaxBodyBytes: 999_000},
		OpenSource: openSource, OpenSink: openSink,
		New: func(t *testing.T) *adaptertest.Bed {
			return place(t, "&wrap=body", "&notes=file:"+t.TempDir())
		},
	}
}

// objectsRow is a type whose events are JSON, read without notes.
func objectsRow() adaptertest.Harness {
	const anew = "docs/systems/nakadi.md: Nakadi writes the JSON of an event anew"
	return adaptertest.Harness{
		Name: "nakadi, JSON, without notes", Source: features(false),
		Sink:       &ackwise.SinkFeatures{KeyRunSafe: true, MaxBatch: 500, MaxBodyBytes: 999_000},
		Cannot:     map[adaptertest.Check]string{adaptertest.Bodies: anew},
		OpenSource: openSource, OpenSink: openSink, Undo: withoutMetadata,
		New: func(t *testing.T) *adaptertest.Bed { return place(t, "&gzip=true", "") },
	}
}

// place is a server of its own behind a proxy, with a type of four partitions.
func place(t *testing.T, sink, source string) *adaptertest.Bed {
	t.Helper()
	server := startFake(t)
	proxy := servers.StartProxy(t, server.address)
	if err := makeKind(server.address, "suite", 4, nil); err != nil {
		t.Fatal(err)
	}
	return &adaptertest.Bed{Server: server, Proxy: proxy, Patience: time.Minute,
		Sink: "nakadi://" + proxy.Address + "/suite?tls=false&timeout=3s" + sink,
		Source: "nakadi://" + proxy.Address + "?tls=false&timeout=3s&event_types=suite" +
			"&application=suite&create=true&keep_alive=1s&commit_timeout=20s&check_every=200ms" + source}
}

func openSource(ctx context.Context, address string) (ackwise.Source, error) {
	o, err := nakadi.ParseSource(address)
	if err != nil {
		return nil, err
	}
	return nakadi.OpenSource(ctx, o)
}

func openSink(ctx context.Context, address string) (ackwise.Sink, error) {
	o, err := nakadi.ParseSink(address)
	if err != nil {
		return nil, err
	}
	return nakadi.OpenSink(ctx, o)
}

// withoutMetadata takes away what Nakadi has added to a JSON body.
func withoutMetadata(m *ackwise.Message) {
	var body map[string]json.RawMessage
	if json.Unmarshal(m.Body, &body) != nil || body["metadata"] == nil {
		return
	}
	delete(body, "metadata")
	m.Body, _ = json.Marshal(body)
}
