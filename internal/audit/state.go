package audit

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
)

// compareStates compares the state of a ledger with that of the one made again from its blocks: every public key and
// every hash of a private one, with value, metadata and version. Then it compares the ledger's private values with their
// hashes. It gives how many there were of each.
func compareStates(stored, again *ledger.Ledger) (keys, private int, err error) {
	a, b := stored.NewSnapshot(), again.NewSnapshot()
	defer a.Close()
	defer b.Close()
	last := a.Height() - 1
	for _, hashed := range []bool{false, true} {
		places, err := union(a, b, hashed)
		if err != nil {
			return 0, 0, err
		}
		for _, place := range places {
			n, err := comparePlace(a, b, place, last)
			if err != nil {
				return 0, 0, err
			}
			keys += n
		}
	}
	private, err = comparePrivate(a, last)
	return keys, private, err
}

func union(a, b *ledger.Snapshot, hashed bool) ([]rwset.Place, error) {
	all, err := a.Places(hashed)
	if err != nil {
		return nil, err
	}
	more, err := b.Places(hashed)
	if err != nil {
		return nil, err
	}
	seen := map[rwset.Place]bool{}
	var places []rwset.Place
	for _, p := range append(all, more...) {
		if !seen[p] {
			seen[p] = true
			places = append(places, p)
		}
	}
	return places, nil
}

func open(s *ledger.Snapshot, p rwset.Place) (ledger.Iterator, error) {
	if p.Collection == "" {
		return s.Range(p.Namespace, "", "")
	}
	return s.HashRange(p.Namespace, p.Collection)
}

func comparePlace(a, b *ledger.Snapshot, place rwset.Place, last uint64) (keys int, err error) {
	stored, err := open(a, place)
	if err != nil {
		return 0, err
	}
	defer stored.Close()
	again, err := open(b, place)
	if err != nil {
		return 0, err
	}
	defer again.Close()
	for {
		key, v, ok, err := stored.Next()
		if err != nil {
			return 0, err
		}
		wantKey, want, wantOK, err := again.Next()
		switch {
		case err != nil:
			return 0, err
		case !ok && !wantOK:
			return keys, nil
		case ok != wantOK || key != wantKey:
			return 0, &Difference{last, fmt.Sprintf("the state of %s has the key %q where the blocks make %q", spell(place), key, wantKey)}
		case v.Version != want.Version || !bytes.Equal(v.Value, want.Value) || !bytes.Equal(v.Metadata, want.Metadata):
			return 0, &Difference{last, fmt.Sprintf("the state of %s at key %q is not what the blocks make", spell(place), key)}
		}
		keys++
	}
}

func spell(p rwset.Place) string {
	if p.Collection == "" {
		return fmt.Sprintf("namespace %q", p.Namespace)
	}
	return fmt.Sprintf("collection %q of namespace %q", p.Collection, p.Namespace)
}

// comparePrivate compares private values with the public hashes of the same version. A value may be older than its hash, where
// the node lacks the data of a later transaction.
func comparePrivate(s *ledger.Snapshot, last uint64) (values int, err error) {
	places, err := s.PrivatePlaces()
	if err != nil {
		return 0, err
	}
	for _, place := range places {
		n, err := comparePrivatePlace(s, place, last)
		if err != nil {
			return 0, err
		}
		values += n
	}
	return values, nil
}

func comparePrivatePlace(s *ledger.Snapshot, place rwset.Place, last uint64) (values int, err error) {
	it, err := s.PrivateRange(place.Namespace, place.Collection, "", "")
	if err != nil {
		return 0, err
	}
	defer it.Close()
	for {
		key, v, ok, err := it.Next()
		if !ok || err != nil {
			return values, err
		}
		public, err := s.GetHash(place.Namespace, place.Collection, rwset.KeyHash(key))
		if err != nil {
			return 0, err
		}
		if public == nil || public.Version != v.Version {
			continue
		}
		if sum := sha256.Sum256(v.Value); !bytes.Equal(sum[:], public.Value) {
			// The key may be personal data; its hash is public.
			return 0, &Difference{last, fmt.Sprintf("the private value in %s of the key with hash %x does not match its public hash", spell(place), rwset.KeyHash(key))}
		}
		values++
	}
}
