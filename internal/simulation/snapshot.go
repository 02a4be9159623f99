package simulation

import (
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
)

// Snapshot is the committed state at one height: every method answers as of that height, however many blocks are
// committed meanwhile. A missing key is nil without an error. Keys of ranges come in byte order, start included and
// end excluded; an empty end means to the end of the namespace. Returned slices belong to the caller's
// simulation and are not changed by anyone. One goroutine uses a snapshot at a time.
type Snapshot interface {
	// Height is the number of blocks below the snapshot.
	Height() uint64
	Get(namespace, key string) (*rwset.VersionedValue, error)
	Metadata(namespace, key string) ([]byte, error)
	GetHash(namespace, collection string, keyHash []byte) (*rwset.VersionedValue, error)
	HashMetadata(namespace, collection string, keyHash []byte) ([]byte, error)
	GetPrivate(namespace, collection, key string) (*rwset.VersionedValue, error)
	Range(namespace, start, end string) (StateIterator, error)
	PrivateRange(namespace, collection, start, end string) (StateIterator, error)
	History(namespace, key string) (HistoryIterator, error)
}

// Documents is what a Snapshot is as well that answers JSON queries. A simulation on any other refuses them.
type Documents interface {
	// Query selects among the public documents of a namespace or, with a collection named, the private ones. It goes on behind a
	// bookmark, if there is one.
	Query(namespace, collection, query, bookmark string) (DocumentIterator, error)
}

// DocumentIterator walks over what a query selects, in the order of the query.
type DocumentIterator interface {
	StateIterator
	// Bookmark is where the query goes on behind the last result; it can be asked for after Close.
	Bookmark() string
	// StopWhen makes Next fail, be it under way, when the function says so. The function may be called from any goroutine.
	StopWhen(func() bool)
}

// StateIterator walks over keys of the state.
type StateIterator interface {
	Next() (key string, value *rwset.VersionedValue, ok bool, err error)
	Close() error
}

// HistoryIterator walks over the past of a key, newest first; nil without an error is the end.
type HistoryIterator interface {
	Next() (*queryresultpb.KeyModification, error)
	Close() error
}

// Definitions knows how the definitions of contracts are kept in the state.
type Definitions interface {
	// Collections gives the collections of a contract's committed definition; false if there is no definition.
	// Every key of the state that it needs it reads through read, so that the reads are part of the read set.
	Collections(contract string, read func(namespace, key string) ([]byte, error)) (*peerpb.CollectionConfigPackage, bool, error)
}
