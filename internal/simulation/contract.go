package simulation

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Contract is what one running contract sees of a simulation: its own namespace, with a collection named or, if
// the collection is empty, the public state. It adds the checks that depend on the contract and the client: private
// data are closed to Init, and to clients that are no members of a collection that says so.
//
// Errors are worded as Fabric's peer words them, without the name of the operation and the transaction, which
// belong to the protocol between peer and contract. One goroutine uses it at a time.
type Contract struct {
	sim       *Simulator
	namespace string
	init      bool
	rights    map[string]rights
}

type rights struct{ read, write bool }

// Contract gives a contract's view. init says that the contract runs its initialisation.
func (s *Simulator) Contract(namespace string, init bool) *Contract {
	return &Contract{sim: s, namespace: namespace, init: init, rights: map[string]rights{}}
}

// Namespace names the contract.
func (c *Contract) Namespace() string { return c.namespace }

var errInit = errors.New("private data APIs are not allowed in chaincode Init()")

func (c *Contract) mayRead(collection string) error {
	r, err := c.access(collection)
	if err == nil && !r.read {
		return fmt.Errorf("tx creator does not have read access permission on privatedata in chaincodeName:%s collectionName: %s", c.namespace, collection)
	}
	return err
}

func (c *Contract) mayWrite(collection string) error {
	r, err := c.access(collection)
	if err == nil && !r.write {
		return fmt.Errorf("tx creator does not have write access permission on privatedata in chaincodeName:%s collectionName: %s", c.namespace, collection)
	}
	return err
}

// access decides once per collection what the client may do.
func (c *Contract) access(collection string) (rights, error) {
	if c.init {
		return rights{}, errInit
	}
	if r, ok := c.rights[collection]; ok {
		return r, nil
	}
	defer c.sim.mu.Unlock()
	if err := c.sim.enter(); err != nil {
		return rights{}, err
	}
	config, err := c.sim.collection(c.namespace, collection)
	if err != nil {
		return rights{}, err
	}
	if config == nil {
		return rights{}, fmt.Errorf("collection %s/%s/%s could not be found", c.sim.cfg.ChannelID, c.namespace, collection)
	}
	r := rights{read: true, write: true}
	if config.MemberOnlyRead || config.MemberOnlyWrite {
		member, err := c.sim.cfg.Member(config.MemberOrgsPolicy)
		if err != nil {
			return rights{}, fmt.Errorf("error setting up collection for collection criteria %s/%s/%s: %w", c.sim.cfg.ChannelID, c.namespace, collection, err)
		}
		if !member {
			r = rights{read: !config.MemberOnlyRead, write: !config.MemberOnlyWrite}
		}
	}
	c.rights[collection] = r
	return r, nil
}

// Get reads a key; nil if it is missing.
func (c *Contract) Get(collection, key string) ([]byte, error) {
	if collection == "" {
		return c.sim.Get(c.namespace, key)
	}
	if err := c.mayRead(collection); err != nil {
		return nil, err
	}
	return c.sim.GetPrivate(c.namespace, collection, key)
}

// GetMany reads keys; nil for missing ones.
func (c *Contract) GetMany(collection string, keys []string) ([][]byte, error) {
	if collection == "" {
		return c.sim.GetMany(c.namespace, keys)
	}
	if err := c.mayRead(collection); err != nil {
		return nil, err
	}
	return c.sim.GetPrivateMany(c.namespace, collection, keys)
}

// GetHash reads the hash of a private value. Every client may.
func (c *Contract) GetHash(collection, key string) ([]byte, error) {
	if c.init {
		return nil, errInit
	}
	return c.sim.GetHash(c.namespace, collection, key)
}

// Put writes a key; an empty value deletes it.
func (c *Contract) Put(collection, key string, value []byte) error {
	if collection == "" {
		return c.sim.Put(c.namespace, key, value)
	}
	if err := c.mayWrite(collection); err != nil {
		return err
	}
	return c.sim.PutPrivate(c.namespace, collection, key, value)
}

// Delete deletes a key, be it there or not.
func (c *Contract) Delete(collection, key string) error { return c.Put(collection, key, nil) }

// Purge deletes a private key with all its past.
func (c *Contract) Purge(collection, key string) error {
	if !c.sim.cfg.Purge {
		return errors.New("purge private data is not enabled, channel application capability of V2_5 or later is required")
	}
	if collection == "" {
		return errors.New("only applicable for private data")
	}
	if err := c.mayWrite(collection); err != nil {
		return err
	}
	return c.sim.Purge(c.namespace, collection, key)
}

func (c *Contract) checkKeyPolicies() error {
	if !c.sim.cfg.KeyPolicies {
		return errors.New("key level endorsement is not enabled, channel application capability of V1_3 or later is required")
	}
	return nil
}

// Metadata reads a key's metadata.
func (c *Contract) Metadata(collection, key string) (map[string][]byte, error) {
	if err := c.checkKeyPolicies(); err != nil {
		return nil, err
	}
	if collection == "" {
		return c.sim.Metadata(c.namespace, key)
	}
	if err := c.mayRead(collection); err != nil {
		return nil, err
	}
	return c.sim.PrivateMetadata(c.namespace, collection, key)
}

// PutMetadata makes one entry the whole metadata of a key: the protocol knows no more than one at a time.
func (c *Contract) PutMetadata(collection, key, name string, value []byte) error {
	if err := c.checkKeyPolicies(); err != nil {
		return err
	}
	metadata := map[string][]byte{name: value}
	if collection == "" {
		return c.sim.PutMetadata(c.namespace, key, metadata)
	}
	if err := c.mayWrite(collection); err != nil {
		return err
	}
	return c.sim.PutPrivateMetadata(c.namespace, collection, key, metadata)
}

// Range opens a range query.
func (c *Contract) Range(collection, start, end string) (*Query, error) {
	if collection == "" {
		return c.sim.Range(c.namespace, start, end)
	}
	if err := c.mayRead(collection); err != nil {
		return nil, err
	}
	return c.sim.PrivateRange(c.namespace, collection, start, end)
}

// RangePage opens one page of a range query.
func (c *Contract) RangePage(start, end string, pageSize int32) (*Query, error) {
	return c.sim.RangePage(c.namespace, start, end, pageSize)
}

// Query opens a JSON query.
func (c *Contract) Query(collection, query string) (*Query, error) {
	if collection == "" {
		return c.sim.ExecuteQuery(c.namespace, query)
	}
	if err := c.mayRead(collection); err != nil {
		return nil, err
	}
	return c.sim.ExecuteQueryPrivate(c.namespace, collection, query)
}

// QueryPage opens one page of a JSON query.
func (c *Contract) QueryPage(query, bookmark string, pageSize int32) (*Query, error) {
	return c.sim.ExecuteQueryPage(c.namespace, query, bookmark, pageSize)
}

// History opens the history of a public key.
func (c *Contract) History(key string) (HistoryIterator, error) {
	return c.sim.History(c.namespace, key)
}

// Program is how a defined contract runs and is endorsed on this peer.
type Program struct {
	Version           string
	PackageID         string
	EndorsementPlugin string
	InitRequired      bool
}

// ImplicitCollection is the collection that an organisation has in every contract.
func ImplicitCollection(mspID string) *peerpb.StaticCollectionConfig {
	role, _ := proto.Marshal(&msppb.MSPRole{MspIdentifier: mspID, Role: msppb.MSPRole_MEMBER}) // fails on invalid UTF-8 only: then nobody is a member
	return &peerpb.StaticCollectionConfig{
		Name: ImplicitPrefix + mspID,
		MemberOrgsPolicy: &peerpb.CollectionPolicyConfig{Payload: &peerpb.CollectionPolicyConfig_SignaturePolicy{SignaturePolicy: &commonpb.SignaturePolicyEnvelope{
			Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: &commonpb.SignaturePolicy_NOutOf{
				N: 1, Rules: []*commonpb.SignaturePolicy{{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: 0}}},
			}}},
			Identities: []*msppb.MSPPrincipal{{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: role}},
		}}},
	}
}
