package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise/queue"
)

type keysCmd struct {
	List    keysListCmd    `cmd:"" default:"withargs" help:"List parked keys (also without the word)."`
	Release keysReleaseCmd `cmd:"" help:"Redrive the dead letter that a key waits behind."`
	Skip    keysSkipCmd    `cmd:"" help:"Drop the dead letter that a key waits behind, so that the key goes on without it."`
}

type keysListCmd struct {
	dirFlag
	jsonFlag
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose parked keys."`
	Max      int      `default:"100" help:"At most so many, the longest first."`
}

// parkedStore is where parked keys are.
type parkedStore interface {
	deadStore
	ParkedKeys(ctx context.Context, topic, sub string, max int) ([]queue.ParkedKey, error)
}

// Run lists parked keys.
func (c *keysListCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	keys, err := d.ParkedKeys(a.ctx, c.Pipeline.topic, c.Pipeline.sub, c.Max)
	if err != nil {
		return err
	}
	return c.write(a, keys)
}

// keyJSON writes a key that is not text in the 64 form.
type keyJSON struct {
	queue.ParkedKey
	Key64 []byte
}

// MarshalJSON writes the key's fields.
func (k keyJSON) MarshalJSON() ([]byte, error) {
	type fields queue.ParkedKey // without its own methods
	f := fields(k.ParkedKey)
	if utf8.ValidString(f.Key) {
		return json.Marshal(f)
	}
	f.Key = ""
	return json.Marshal(struct {
		Key64 []byte `json:"key64"`
		fields
	}{[]byte(k.Key), f})
}

func (c *keysListCmd) write(a *app, keys []queue.ParkedKey) error {
	if c.JSON {
		all := make([]keyJSON, len(keys))
		for i, k := range keys {
			all[i] = keyJSON{ParkedKey: k}
		}
		return writeJSON(a.out, all)
	}
	t := newTable("KEY", "STATE", ">WAITING", ">FOR", ">ATTEMPTS", "DEAD LETTER", "LAST ERROR")
	for _, k := range keys {
		t.add(short(k.Key, 32), k.State, k.Depth, ago(a.now(), k.Since), k.Attempts, k.ID,
			dash(short(k.Error, 80)))
	}
	return t.write(a.out, "no parked keys")
}

type keysReleaseCmd struct {
	dirFlag
	jsonFlag
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose key."`
	Key      string   `arg:"" help:"The parked key."`
	DryRun   bool     `help:"Show what would be done, and do nothing."`
	Redo     bool     `help:"Order the effect again: consumers that deduplicate apply it once more."`
}

// Run releases a key.
func (c *keysReleaseCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return keyChange{p: c.Pipeline, key: c.Key, dry: c.DryRun, json: c.JSON, word: "redriven",
		apply: func(f queue.DeadFilter) (int, error) {
			return d.Redrive(a.ctx, c.Pipeline.topic, c.Pipeline.sub, f, c.Redo)
		}}.run(a, d)
}

type keysSkipCmd struct {
	dirFlag
	jsonFlag
	Pipeline pipeline `arg:"" name:"topic/subscription" help:"Whose key."`
	Key      string   `arg:"" help:"The parked key."`
	Reason   string   `default:"key skipped by hand" help:"Why. It is kept and counted."`
	DryRun   bool     `help:"Show what would be done, and do nothing."`
}

// Validate checks what the flags alone can tell.
func (c *keysSkipCmd) Validate() error {
	if c.Reason == "" {
		return errors.New("--reason is empty")
	}
	return nil
}

// Run skips the dead letter of a key.
func (c *keysSkipCmd) Run(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, false)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	return keyChange{p: c.Pipeline, key: c.Key, dry: c.DryRun, json: c.JSON, word: "dropped",
		apply: func(f queue.DeadFilter) (int, error) {
			return d.DropDead(a.ctx, c.Pipeline.topic, c.Pipeline.sub, f, c.Reason)
		}}.run(a, d)
}

// keyChange is what is done to the dead letter of one key.
type keyChange struct {
	p         pipeline
	key       string
	dry, json bool
	word      string
	apply     func(f queue.DeadFilter) (int, error)
}

// keyChanged is the result as JSON.
type keyChanged struct {
	Key     keyJSON `json:"key"`
	Changed int     `json:"changed"`
	DryRun  bool    `json:"dry_run"`
}

// maxKeys is among how many parked keys one is looked for.
const maxKeys = 1_000_000

func (c keyChange) run(a *app, d parkedStore) error {
	keys, err := d.ParkedKeys(a.ctx, c.p.topic, c.p.sub, maxKeys)
	if err != nil {
		return err
	}
	names := make([]string, len(keys))
	var parked *queue.ParkedKey
	for i := range keys {
		names[i] = keys[i].Key
		if keys[i].Key == c.key {
			parked = &keys[i]
		}
	}
	switch {
	case parked == nil:
		return find("parked key", c.key, names)
	case parked.State != "parked":
		return fmt.Errorf("the key %q is %s already: its messages are on their way", c.key,
			parked.State)
	}
	out := keyChanged{Key: keyJSON{ParkedKey: *parked}, DryRun: c.dry}
	if !c.dry {
		f := queue.DeadFilter{Key: c.key, Before: a.now().Add(time.Minute)}
		if out.Changed, err = c.apply(f); err != nil {
			return err
		}
	}
	if c.json {
		return writeJSON(a.out, out)
	}
	would := ""
	if c.dry {
		would = "would be "
	}
	_, err = fmt.Fprintf(a.out, "dead letter %s %s%s; %s parked behind it\n", printable(parked.ID),
		would, c.word, count(int(parked.Depth), "message"))
	return err
}
