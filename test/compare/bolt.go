package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// fillBatch is how many messages are put at once before the clock starts.
const fillBatch = 10_000

func key(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

var bucket = []byte("messages")

type boltStore struct{ *bolt.DB }

func openBolt(ctx context.Context, dir string, b *backlog) (store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := bolt.Open(filepath.Join(dir, "bolt"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	for from := 0; from < b.messages && err == nil; from += fillBatch {
		err = db.Update(func(tx *bolt.Tx) error {
			messages, err := tx.CreateBucketIfNotExists(bucket)
			for i := from; i < min(from+fillBatch, b.messages) && err == nil; i++ {
				err = messages.Put(key(i), b.body(i))
			}
			return errors.Join(err, ctx.Err())
		})
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return boltStore{db}, nil
}

func (s boltStore) drain(ctx context.Context, take func([]byte)) error {
	for n := -1; n != 0; {
		n = 0
		err := s.Update(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucket).Cursor()
			// First after each Delete: Next would skip one where a page ends.
			for k, v := c.First(); k != nil && n < batch; k, v = c.First() {
				take(v)
				if err := c.Delete(); err != nil {
					return err
				}
				n++
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}
