package nakadi

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
)

// eventType is what a sink and a source need to know of an event type.
type eventType struct {
	Name      string   `json:"name"`
	Category  string   `json:"category"`
	Strategy  string   `json:"partition_strategy"`
	KeyFields []string `json:"partition_key_fields"`
	Cleanup   string   `json:"cleanup_policy"`

	partitions []string // for user_defined
}

// compacts reports whether events need a compaction key.
func (t *eventType) compacts() bool { return strings.HasPrefix(t.Cleanup, "compact") }

// typeCache remembers event types for a while: partitions may be added.
type typeCache struct {
	client *client

	mu    sync.Mutex // guards types
	types map[string]cached
}

type cached struct {
	t  *eventType
	at time.Time
}

// cacheFor is how long an event type is taken for unchanged.
const cacheFor = 5 * time.Minute

func (c *typeCache) get(ctx context.Context, name string) (*eventType, error) {
	c.mu.Lock()
	known, ok := c.types[name]
	c.mu.Unlock()
	if ok && time.Since(known.at) < cacheFor {
		return known.t, nil
	}
	t := &eventType{}
	path := "/event-types/" + url.PathEscape(name)
	if err := c.client.get(ctx, path, nil, t); err != nil {
		return nil, err
	}
	if t.Strategy == "user_defined" {
		list, err := partitionsOf(ctx, c.client, name)
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			t.partitions = append(t.partitions, p.Partition)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types[name] = cached{t, time.Now()}
	return t, nil
}

type partitionInfo struct {
	Partition string `json:"partition"`
	Oldest    string `json:"oldest_available_offset"` // behind the newest where nothing is left
	Newest    string `json:"newest_available_offset"`
}

func partitionsOf(ctx context.Context, c *client, name string) (list []partitionInfo, err error) {
	err = c.get(ctx, "/event-types/"+url.PathEscape(name)+"/partitions", nil, &list)
	return list, err
}

// partition chooses where a key lives, in the way in which Nakadi itself hashes.
func (t *eventType) partition(key string) string {
	if len(t.partitions) == 0 {
		return ""
	}
	var h int32
	for _, unit := range utf16.Encode([]rune(key)) {
		h = 31*h + int32(unit)
	}
	n := int64(h) % int64(len(t.partitions))
	return t.partitions[max(n, -n)]
}
