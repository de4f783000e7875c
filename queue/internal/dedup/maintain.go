package dedup

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
)

// Maintain does the disk's part: it writes the buckets that wait, and removes the files of those
// that are gone. One goroutine of the owner calls it, without the lock, which it takes for moments.
// What failed is tried again by the next call.
//
// synced returns when everything is synced that was applied so far. A file is removed only after
// that: the newest checkpoint may list it, and then the log must say that it is out of the window,
// or that the topic is deleted.
func (w *Window) Maintain(lock sync.Locker, synced func() error) error {
	for {
		lock.Lock()
		b := w.oldestWaiting()
		lock.Unlock()
		if b == nil {
			break
		}
		f, err := writeFile(w.opt.FS, w.opt.Dir, b.memory,
			header{storeID: w.opt.StoreID, topic: w.opt.Topic})
		lock.Lock()
		w.trouble = err
		if err == nil {
			w.written(b, f)
		}
		lock.Unlock()
		if err != nil {
			return err
		}
	}
	lock.Lock()
	gone := w.gone
	w.gone = nil
	lock.Unlock()
	if len(gone) == 0 {
		return nil
	}
	left, err := w.remove(gone, synced)
	lock.Lock()
	w.gone = append(w.gone, left...)
	lock.Unlock()
	return err
}

func (w *Window) oldestWaiting() *bucket {
	for _, b := range w.view.Load().closed {
		if w.waits(b) {
			return b
		}
	}
	return nil
}

// written puts a bucket's file in its memory's place. A bucket that is gone by now leaves its file
// to be removed.
func (w *Window) written(b *bucket, f *file) {
	on := &bucket{number: b.number, count: b.count, first: b.first, last: b.last, file: f}
	v := w.view.Load()
	i := slices.Index(v.closed, b)
	if i < 0 {
		w.gone = append(w.gone, on)
		return
	}
	closed := slices.Clone(v.closed)
	closed[i] = on
	w.waiting--
	w.view.Store(&view{closed: closed, open: v.open})
}

// remove removes files, and returns what is left to remove after an error. A file that a crash
// brings back is not listed, or is out of the window, and is removed again.
func (w *Window) remove(gone []*bucket, synced func() error) ([]*bucket, error) {
	if err := synced(); err != nil {
		return gone, err
	}
	for i, b := range gone {
		if err := w.opt.FS.Remove(b.file.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone[i:], fmt.Errorf("remove dedup bucket: %w", err)
		}
	}
	return nil, nil
}
