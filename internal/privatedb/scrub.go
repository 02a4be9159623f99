package privatedb

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Scrub leaves nothing of what was forgotten in the store's files: it writes what still waits into a new folder and removes the old
// one. A crash leaves the one or the other whole.
func (t *Transient) Scrub() (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil || t.db == nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("scrub transient store: %w", err)
		}
	}()
	fs, next, old := t.config.FS, t.config.Dir+".new", t.config.Dir+".old"
	empty, err := t.copyTo(next)
	if err != nil {
		return err
	}
	if err := t.db.Close(); err != nil {
		return err
	}
	t.db, t.size = nil, 0
	if err := fs.Rename(t.config.Dir, old); err != nil {
		return errors.Join(err, t.open())
	}
	if !empty {
		if err := fs.Rename(next, t.config.Dir); err != nil {
			return errors.Join(err, fs.Rename(old, t.config.Dir), t.open())
		}
	}
	if err := errors.Join(t.syncParent(), fs.RemoveAll(old), t.syncParent()); err != nil {
		return err
	}
	if empty {
		return nil // Put makes the folder again
	}
	return t.open()
}

// copyTo writes what waits into a store of its own.
func (t *Transient) copyTo(dir string) (empty bool, err error) {
	if err := t.config.FS.RemoveAll(dir); err != nil {
		return false, err
	}
	it, err := t.db.NewIter(nil)
	if err != nil {
		return false, err
	}
	if !it.First() {
		return true, errors.Join(it.Error(), it.Close())
	}
	if err := makeDir(t.config.FS, dir); err != nil {
		return false, errors.Join(err, it.Close())
	}
	db, err := pebble.Open(dir, t.options())
	if err != nil {
		return false, errors.Join(err, it.Close())
	}
	for ok := true; ok && err == nil; ok = it.Next() {
		err = db.Set(it.Key(), it.Value(), pebble.NoSync)
	}
	return false, errors.Join(err, it.Error(), it.Close(), db.Flush(), db.Close())
}

// settle ends what a crash interrupted in Scrub.
func (t *Transient) settle() error {
	fs, next, old := t.config.FS, t.config.Dir+".new", t.config.Dir+".old"
	if _, err := fs.Stat(old); err == nil {
		if _, err := fs.Stat(t.config.Dir); err != nil {
			// The new one is whole, if there is one: it was closed before the old was moved.
			from := old
			if _, err := fs.Stat(next); err == nil {
				from = next
			}
			if err := errors.Join(fs.Rename(from, t.config.Dir), t.syncParent()); err != nil {
				return fmt.Errorf("open transient store: %w", err)
			}
		}
	}
	return errors.Join(fs.RemoveAll(old), fs.RemoveAll(next))
}

func (t *Transient) syncParent() error {
	d, err := t.config.FS.OpenDir(t.config.FS.PathDir(t.config.Dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
