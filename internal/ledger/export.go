package ledger

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

// Export writes the snapshot as files into dir, a folder that is there and empty, and makes them durable. Commits go on
// meanwhile. After an error the folder holds a part, and is the caller's to remove.
func (s *Snapshot) Export(ctx context.Context, fs vfs.FS, dir string) error {
	if s.tip.height == 0 {
		return errors.New("export snapshot: the ledger holds no block")
	}
	w := snapshotfile.NewWriter(fs, dir)
	err := errors.Join(s.exportIDs(ctx, w), s.exportCollections(w))
	if err == nil {
		err = s.exportStates(ctx, w, false)
	}
	if err == nil {
		err = s.exportStates(ctx, w, true)
	}
	if err != nil {
		w.Abandon()
		return fmt.Errorf("export snapshot: %w", err)
	}
	err = w.Finish(&snapshotfile.Metadata{
		ChannelID: s.ledger.config.ChannelID, LastBlock: s.tip.height - 1,
		LastBlockHash: s.tip.hash, PreviousHash: s.tip.previousHash, LastCommitHash: s.tip.commitHash,
	})
	if err != nil {
		return fmt.Errorf("export snapshot: %w", err)
	}
	return nil
}

func (s *Snapshot) exportIDs(ctx context.Context, w *snapshotfile.Writer) error {
	n := 0
	return s.each([]byte{prefixTx}, func(key, _ []byte) error {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		id, err := cutTxKey(key)
		if err != nil {
			return err
		}
		return w.TxID(id)
	})
}

func (s *Snapshot) exportCollections(w *snapshotfile.Writer) error {
	return s.each([]byte{prefixCollections}, func(key, value []byte) error { return w.Config(key[1:], value) })
}

func (s *Snapshot) exportStates(ctx context.Context, w *snapshotfile.Writer, hashed bool) error {
	places, err := s.Places(hashed)
	if err != nil {
		return err
	}
	// The files are sorted by the names that they use, which differ from ours where a name has a character below '$'.
	name := func(p rwset.Place) string {
		if hashed {
			return snapshotfile.HashedName(p.Namespace, p.Collection) + "\x00"
		}
		return p.Namespace + "\x00"
	}
	sort.Slice(places, func(i, j int) bool { return name(places[i]) < name(places[j]) })
	for _, p := range places {
		if err := s.exportPlace(ctx, w, p, hashed); err != nil {
			return err
		}
	}
	return nil
}

func (s *Snapshot) exportPlace(ctx context.Context, w *snapshotfile.Writer, p rwset.Place, hashed bool) error {
	open := func() (Iterator, error) { return s.Range(p.Namespace, "", "") }
	if hashed {
		open = func() (Iterator, error) { return s.HashRange(p.Namespace, p.Collection) }
	}
	it, err := open()
	if err != nil {
		return err
	}
	defer it.Close()
	for n := 1; ; n++ {
		key, v, ok, err := it.Next()
		if err != nil || !ok {
			return err
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r := &snapshotfile.Record{Key: []byte(key), Value: v.Value, Metadata: v.Metadata, Version: v.Version}
		if hashed {
			err = w.Hashed(p.Namespace, p.Collection, r)
		} else {
			err = w.Public(p.Namespace, r)
		}
		if err != nil {
			return err
		}
	}
}
