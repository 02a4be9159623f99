package lifecycle

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Catalog answers which contracts are defined on channels and how this peer runs them. It keeps what it has found
// until the channel's definitions change (Changed), so that an invocation costs one read of the state. It may be
// used from several goroutines.
type Catalog struct {
	mspID    string // of the peer's organisation
	packages *Packages
	// unpackaged runs contracts without a package under the id name:version, for developers who start them by hand.
	unpackaged bool

	mu       sync.RWMutex // guards channels and everything below it
	channels map[string]*channelCatalog
}

type channelCatalog struct {
	// height is the lowest height whose state holds the latest definitions: an entry found below is out of date.
	height  uint64
	entries map[string]*entry
}

// entry is what the state at one height said of a contract. It is not changed.
type entry struct {
	definition *Definition
	approved   bool
	// source is the hash of the approved package's name, nil if no package was named.
	source []byte
	height uint64
}

// NewCatalog makes the catalog of a peer whose organisation has the given MSP id. With unpackaged set, a contract
// that is approved but not installed runs under the id name:version.
func NewCatalog(mspID string, packages *Packages, unpackaged bool) *Catalog {
	return &Catalog{mspID: mspID, packages: packages, unpackaged: unpackaged, channels: map[string]*channelCatalog{}}
}

// Changed says that a block wrote to the namespace _lifecycle, public or private, and that the channel has the
// given height with it. It is to be called as soon as the block's state can be read.
func (c *Catalog) Changed(channelID string, height uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[channelID]
	if ch == nil {
		ch = &channelCatalog{}
		c.channels[channelID] = ch
	}
	ch.height = max(ch.height, height)
	ch.entries = nil
}

// Forget drops what is known of a channel, which the peer has left.
func (c *Catalog) Forget(channelID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.channels, channelID)
}

// Contract is what the catalog says of a defined contract.
type Contract struct {
	*Definition
	// Approved: the peer's organisation has approved this definition.
	Approved bool
	// PackageID is the installed package that runs it, empty if there is none on this peer.
	PackageID string
}

// Snapshot is the part of simulation.Snapshot that the catalog reads.
type Snapshot interface {
	Height() uint64
	Get(namespace, key string) (*rwset.VersionedValue, error)
	GetHash(namespace, collection string, keyHash []byte) (*rwset.VersionedValue, error)
}

func publicState(s Snapshot) Reader {
	return func(namespace, key string) ([]byte, error) {
		v, err := s.Get(namespace, key)
		if v == nil {
			return nil, err
		}
		return v.Value, nil
	}
}

// Lookup finds a contract; nil if it is not defined. The result is shared and must not be changed.
func (c *Catalog) Lookup(channelID, name string, s Snapshot) (*Contract, error) {
	sequence, err := readSequence(name, publicState(s).lifecycle())
	if err != nil || sequence == 0 {
		return nil, err
	}
	e, err := c.find(channelID, name, sequence, s)
	if err != nil {
		return nil, err
	}
	return c.contract(e), nil
}

func (c *Catalog) contract(e *entry) *Contract {
	r := &Contract{Definition: e.definition, Approved: e.approved}
	if e.approved {
		r.PackageID, _ = c.packages.byHash(e.source)
	}
	return r
}

// find gives the entry of a contract at a sequence, from the snapshot if it is not known.
func (c *Catalog) find(channelID, name string, sequence int64, s Snapshot) (*entry, error) {
	c.mu.RLock()
	var e *entry
	var height uint64
	if ch := c.channels[channelID]; ch != nil {
		e, height = ch.entries[name], ch.height
	}
	c.mu.RUnlock()
	if e != nil && e.definition.Sequence == sequence && e.height >= height {
		return e, nil
	}
	e, err := c.read(name, s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := c.channels[channelID]
	if ch == nil {
		ch = &channelCatalog{}
		c.channels[channelID] = ch
	}
	if e.height >= ch.height { // else an old snapshot: good for its simulation only
		if ch.entries == nil {
			ch.entries = map[string]*entry{}
		}
		ch.entries[name] = e
	}
	return e, nil
}

func (c *Catalog) read(name string, s Snapshot) (*entry, error) {
	d, err := Read(name, publicState(s))
	if err != nil {
		return nil, err
	}
	if d == nil {
		return nil, fmt.Errorf("chaincode definition for '%s' has a sequence but no metadata", name)
	}
	e := &entry{definition: d, height: s.Height()}
	hash := func(key string) ([]byte, error) {
		v, err := s.GetHash(Namespace, simulation.ImplicitPrefix+c.mspID, rwset.KeyHash(key))
		if v == nil {
			return nil, err
		}
		return v.Value, nil
	}
	private := approvalName(name, d.Sequence)
	r, err := d.Parameters.record()
	if err != nil {
		return nil, err
	}
	differ, err := r.mismatches(sectionNamespaces, private, hash)
	if err != nil {
		return nil, fmt.Errorf("could not check opaque org state for '%s': %w", name, err)
	}
	if len(differ) > 0 {
		return e, nil
	}
	e.approved = true
	r, err = localPackage("")
	if err != nil {
		return nil, err
	}
	metadata, err := r.metadata()
	if err != nil {
		return nil, err
	}
	kind, err := hash(metadataKey(sectionSources, private))
	if err != nil {
		return nil, fmt.Errorf("could not check opaque org state for chaincode source for '%s': %w", name, err)
	}
	if hashIs(kind, metadata) {
		if e.source, err = hash(fieldKey(sectionSources, private, fieldPackageID)); err != nil {
			return nil, fmt.Errorf("could not check opaque org state for chaincode source hash for '%s': %w", name, err)
		}
	}
	return e, nil
}

func approvalName(name string, sequence int64) string { return fmt.Sprintf("%s#%d", name, sequence) }

var _ simulation.Definitions = (*Catalog)(nil)

// Program tells how to run a contract in a simulation. The definition's sequence becomes part of the read set: a
// transaction does not outlive the definition it ran under.
func (c *Catalog) Program(sim *simulation.Simulator, name string) (*simulation.Program, error) {
	if sim == nil {
		return nil, errors.New("could not get channel config for channel ''")
	}
	channelID := sim.ChannelID()
	sequence, err := readSequence(name, Reader(sim.Get).lifecycle())
	if err != nil {
		return nil, fmt.Errorf("could not get current sequence for chaincode '%s' on channel '%s': %w", name, channelID, err)
	}
	if sequence == 0 {
		if _, err := sim.Get(legacyNamespace, name); err != nil {
			return nil, fmt.Errorf("could not retrieve state for chaincode %s: %w", name, err)
		}
		return nil, fmt.Errorf("chaincode %s not found", name)
	}
	e, err := c.find(channelID, name, sequence, sim.Snapshot())
	if err != nil {
		return nil, err
	}
	if !e.approved {
		return nil, fmt.Errorf("chaincode definition for '%s' at sequence %d on channel '%s' has not yet been approved by this org", name, sequence, channelID)
	}
	d := e.definition
	id, ok := c.packages.byHash(e.source)
	if !ok {
		if !c.unpackaged {
			return nil, fmt.Errorf("chaincode definition for '%s' exists, but chaincode is not installed", name)
		}
		id = name + ":" + d.Endorsement.Version
	}
	return &simulation.Program{
		Version: d.Endorsement.Version, PackageID: id, EndorsementPlugin: d.Endorsement.EndorsementPlugin, InitRequired: d.Endorsement.InitRequired,
	}, nil
}

// Collections implements simulation.Definitions.
func (c *Catalog) Collections(name string, read func(namespace, key string) ([]byte, error)) (*peerpb.CollectionConfigPackage, bool, error) {
	d, err := readOrLegacy(name, read)
	if d == nil || err != nil {
		return nil, false, err
	}
	return d.Collections, true, nil
}

// readOrLegacy reads a definition and, if there is none, looks where older ones were.
func readOrLegacy(name string, read Reader) (*Definition, error) {
	d, err := Read(name, read)
	if err != nil {
		return nil, fmt.Errorf("could not get info about chaincode: %w", err)
	}
	if d == nil {
		_, err = read(legacyNamespace, name)
	}
	return d, err
}

// List gives every contract that is defined on a channel, by name.
func (c *Catalog) List(channelID string, s simulation.Snapshot) ([]*Contract, error) {
	prefix := metadataKey(sectionNamespaces, "")
	it, err := s.Range(Namespace, prefix, prefix+"\x7f")
	if err != nil {
		return nil, err
	}
	defer func() { _ = it.Close() }()
	var names []string
	for {
		key, v, ok, err := it.Next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		m := &lifecyclepb.StateMetadata{}
		if err := proto.Unmarshal(v.Value, m); err != nil {
			return nil, fmt.Errorf("error unmarshalling metadata for key %s: %w", key, err)
		}
		if m.Datatype == typeDefinition {
			names = append(names, key[len(prefix):])
		}
	}
	var all []*Contract
	for _, name := range names {
		found, err := c.Lookup(channelID, name, s)
		if err != nil {
			return nil, err
		}
		if found != nil {
			all = append(all, found)
		}
	}
	return all, nil
}
