package redisstore

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise"
)

// checkClient refuses a client whose way of failing would break a promise of the store.
func checkClient(client redis.UniversalClient) error {
	respects := true
	switch c := client.(type) {
	case nil:
		return errors.New("the client is nil")
	case *redis.Ring:
		return &ackwise.HintError{Err: errors.New("a Ring moves keys when one of its servers goes"),
			Hint: "Use a single server, a Sentinel or a cluster."}
	case *redis.Client:
		respects = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		respects = c.Options().ContextTimeoutEnabled
	}
	if !respects {
		return &ackwise.HintError{Err: errors.New("the client ignores the deadline of a context"),
			Hint: "Set ContextTimeoutEnabled in the client's options."}
	}
	return nil
}

// checkServer refuses a server that would forget what it was told to keep. In a cluster all masters
// are asked.
func checkServer(ctx context.Context, client redis.UniversalClient, p Persistence) error {
	if c, ok := client.(*redis.ClusterClient); ok {
		return c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return checkNode(ctx, node, p)
		})
	}
	return checkNode(ctx, client, p)
}

func checkNode(ctx context.Context, node redis.Cmdable, p Persistence) error {
	memory, err := info(ctx, node, "memory")
	if err != nil {
		return err
	}
	if policy := memory["maxmemory_policy"]; policy != "noeviction" {
		return &ackwise.HintError{
			Err: fmt.Errorf("the server may evict keys: its maxmemory-policy is %q", policy),
			Hint: "Set it to noeviction: a server that is full then refuses new keys, and forgets " +
				"none. A cache wants a server of its own."}
	}
	if p == PersistNone {
		return nil
	}
	persistence, err := info(ctx, node, "persistence")
	if err != nil {
		return err
	}
	return checkPersistence(persistence["aof_enabled"] == "1", p, func(name string) (string, error) {
		all, err := node.ConfigGet(ctx, name).Result()
		return all[name], err
	})
}

// checkPersistence judges what a server writes down. Hosted servers often refuse to show their
// configuration: then only what they report is believed.
func checkPersistence(appends bool, p Persistence, config func(string) (string, error)) error {
	if p == PersistAlways {
		sync, err := config("appendfsync")
		if err != nil {
			return &ackwise.HintError{Err: fmt.Errorf("read the server's appendfsync: %w", err),
				Hint: "Allow CONFIG GET, or choose PersistSome."}
		}
		if !appends || sync != "always" {
			return &ackwise.HintError{Err: fmt.Errorf("the server does not sync each write: its "+
				"append-only file is on: %t, appendfsync is %q", appends, sync),
				Hint: "Set appendonly to yes and appendfsync to always, or choose PersistSome."}
		}
		return nil
	}
	if appends {
		return nil
	}
	saves, err := config("save")
	if err != nil || strings.TrimSpace(saves) == "" {
		return &ackwise.HintError{
			Err: errors.New("the server keeps nothing over a restart: its append-only file is off, " +
				"and no save points are seen"),
			Hint: "Set appendonly to yes. Where it may forget everything, choose PersistNone."}
	}
	return nil
}

// info reads a section of a server's INFO.
func info(ctx context.Context, node redis.Cmdable, section string) (map[string]string, error) {
	text, err := node.Info(ctx, section).Result()
	if err != nil {
		return nil, fmt.Errorf("ask the server for its %s: %w", section, cause(ctx, err))
	}
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}

// script is a script and its name on the server.
type script struct {
	source, sum string
	once        bool // the client does not repeat a call whose answer was lost
}

func newScript(source string) script {
	sum := sha1.Sum([]byte(source))
	return script{source: source, sum: hex.EncodeToString(sum[:])}
}

// onceOnly is a command that the client sends once, whatever its options say.
type onceOnly struct{ *redis.Cmd }

// NoRetry says so to the client.
func (onceOnly) NoRetry() bool { return true }

// call is one run of a script.
type call struct {
	keys []string
	args []any
}

// command makes the command of a run: by the script's name, or by its source.
func (c call) command(ctx context.Context, s script, known bool) *redis.Cmd {
	args := []any{"eval", s.source, len(c.keys)}
	if known {
		args = []any{"evalsha", s.sum, len(c.keys)}
	}
	for _, key := range c.keys {
		args = append(args, key)
	}
	cmd := redis.NewCmd(ctx, append(args, c.args...)...)
	cmd.SetFirstKeyPos(3) // a cluster finds the slot by it
	return cmd
}

// run runs a script once for each call, in one round trip, and once more for those that found that
// the server does not know the script: these have not run. It returns the replies in order.
func (s script) run(ctx context.Context, c redis.UniversalClient, calls []call) ([]any, error) {
	replies := make([]any, len(calls))
	todo := make([]int, len(calls))
	for i := range calls {
		todo[i] = i
	}
	for try := range 2 {
		p := c.Pipeline()
		cmds := make([]*redis.Cmd, len(todo))
		for i, n := range todo {
			cmds[i] = calls[n].command(ctx, s, try == 0)
			var one redis.Cmder = cmds[i]
			if s.once {
				one = onceOnly{cmds[i]}
			}
			_ = p.Process(ctx, one) // it is only taken in
		}
		_, _ = p.Exec(ctx) // the error is that of the first command which has one
		var unknown []int
		for i, cmd := range cmds {
			reply, err := cmd.Result()
			switch {
			case err == nil:
				replies[todo[i]] = reply
			case try == 0 && redis.HasErrorPrefix(err, "NOSCRIPT"):
				unknown = append(unknown, todo[i])
			default:
				return nil, cause(ctx, err)
			}
		}
		if len(unknown) == 0 {
			return replies, nil
		}
		todo = unknown
	}
	return replies, nil
}

// cause makes of an error of the client the one that its caller gets: a server without memory is
// full, and a context that ended says why.
func cause(ctx context.Context, err error) error {
	if redis.IsOOMError(err) || strings.Contains(err.Error(), "OOM command not allowed") {
		return fmt.Errorf("the server has no memory left: %w", ackwise.ErrFull)
	}
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// agree keeps, of a name, what all its users must agree on, and returns what is kept.
func agree(ctx context.Context, c redis.UniversalClient, key string, pairs ...any) (
	[]string, error) {
	replies, err := newScript(configScript).run(ctx, c, []call{{[]string{key}, pairs}})
	if err != nil {
		return nil, err
	}
	list, ok := replies[0].([]any)
	if !ok || len(list) != len(pairs)/2 {
		return nil, strange(replies[0])
	}
	kept := make([]string, len(list))
	for i, v := range list {
		if kept[i], ok = v.(string); !ok {
			return nil, strange(v)
		}
	}
	return kept, nil
}

// strange is the error of a reply that no script gives.
func strange(reply any) error {
	return fmt.Errorf("the server gave the unexpected reply %.80q", fmt.Sprint(reply))
}

// shardOf says in which shard a key is.
func shardOf(key string, shards int) int {
	return int(crc32.ChecksumIEEE([]byte(key)) % uint32(shards))
}

// prefix is what the names of a shard's keys begin with. What stands in braces decides the slot.
func prefix(kind, name string, shard int) string {
	return "ackwise:" + kind + ":{" + name + ":" + strconv.Itoa(shard) + "}:"
}
