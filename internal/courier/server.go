package courier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

const (
	// maxWriteSets bounds the write sets of one Push.
	maxWriteSets = 1000
	// maxAhead is how far the height of what is brought may be ahead of this peer's.
	maxAhead = 10_000
)

// caller is who made a call: a peer of a member.
type caller struct {
	channel Channel
	id      *identity.Identity
	members *membership
}

// admit finds out who made a call and lets them in.
func (c *Courier) admit(ctx context.Context, method string, r *privatedatapb.SignedRequest, sender *privatedatapb.Sender) (*caller, error) {
	ch, ok := c.config.Channel(sender.GetChannelId())
	if !ok {
		return nil, status.Errorf(codes.NotFound, "this peer has not joined channel %q", sender.GetChannelId())
	}
	certificates := shown(ctx)
	if len(certificates) == 0 {
		return nil, status.Error(codes.Unauthenticated, "the connection was opened without a TLS client certificate; peers show theirs")
	}
	if hash := sha256.Sum256(certificates[0].Raw); !bytes.Equal(hash[:], sender.GetTlsCertificateHash()) {
		return nil, status.Error(codes.Unauthenticated, "the request was not made for this connection: it names another TLS certificate")
	}
	m := newMembership(ch)
	id, err := m.bundle.MSPs().Deserialize(sender.GetIdentity())
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, "the sender's identity is not of a member of the channel")
	}
	if err := id.Verify(signedBytes(method, r.Request), r.Signature); err != nil {
		return nil, status.Error(codes.Unauthenticated, "the signature of the request is wrong")
	}
	if err := m.bundle.CheckPeer(id); err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "the sender is not a valid peer of a member of the channel: %v", err)
	}
	if err := checkTLS(id.MSP(), certificates); err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "the TLS client certificate is not one of member %s: %v", id.MSPID(), err)
	}
	return &caller{ch, id, m}, nil
}

// shown are the certificates that the caller showed when it opened the connection.
func shown(ctx context.Context) []*x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	return info.State.PeerCertificates
}

// checkTLS wants a client certificate that comes from the member's TLS authorities. Whether these meant it for clients does not
// matter: nodes have one certificate for both sides.
func checkTLS(m *identity.MSP, shown []*x509.Certificate) error {
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, root := range m.TLSRootCerts() {
		options.Roots.AppendCertsFromPEM(root)
	}
	for _, intermediate := range m.TLSIntermediateCerts() {
		options.Intermediates.AppendCertsFromPEM(intermediate)
	}
	for _, intermediate := range shown[1:] {
		options.Intermediates.AddCert(intermediate)
	}
	_, err := shown[0].Verify(options)
	return err
}

// Push takes private data of an endorsed transaction, as far as this peer belongs to its collections, until the commit.
func (c *Courier) Push(ctx context.Context, signed *privatedatapb.SignedRequest) (*privatedatapb.PushResponse, error) {
	request := &privatedatapb.PushRequest{}
	if err := proto.Unmarshal(signed.GetRequest(), request); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the request cannot be decoded: %v", err)
	}
	caller, err := c.admit(ctx, privatedatapb.PrivateData_Push_FullMethodName, signed, request.Sender)
	if err != nil {
		return nil, err
	}
	if !c.gate.enter(caller.id.MSPID()) {
		return nil, tooMany()
	}
	defer c.gate.leave(caller.id.MSPID())
	kept, err := c.take(caller, request.Sender.ChannelId, request.TransactionId, request.Height, request.WriteSets)
	if err != nil {
		return nil, err
	}
	return &privatedatapb.PushResponse{Kept: kept}, nil
}

// take keeps what a peer brings.
func (c *Courier) take(caller *caller, channelID, txID string, height uint64, sets []*privatedatapb.WriteSet) (kept []bool, err error) {
	switch n := len(sets); {
	case txID == "" || len(txID) > 256:
		return nil, status.Error(codes.InvalidArgument, "transaction_id is empty or too long")
	case n == 0 || n > maxWriteSets:
		return nil, status.Errorf(codes.InvalidArgument, "write_sets: %d are given, 1 to %d are wanted", n, maxWriteSets)
	}
	kept = make([]bool, len(sets))
	set, err := c.mine(caller, sets, kept)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, ok := range kept {
			count(c.metrics.taken, channelID, ok && err == nil)
		}
	}()
	l := caller.channel.Ledger()
	if committed, err := l.HasTx(txID); err != nil {
		return nil, c.internal("look for a transaction", err)
	} else if committed || len(set.NsPvtRwset) == 0 {
		// It came too late: what was missing is reconciled. Kept until the commit it was as well as it could be.
		return kept, nil
	}
	if l.Transient().Bytes()+int64(proto.Size(set)) > c.config.MaxHeldBytes {
		return nil, status.Error(codes.ResourceExhausted, privatedb.ErrTransientFull.Error())
	}
	// The height decides how long the data is kept for a transaction that never comes, so others cannot name any.
	if err := l.Transient().Put(txID, max(l.Height(), min(height, l.Height()+maxAhead)), set); err != nil {
		if errors.Is(err, privatedb.ErrTransientFull) {
			return nil, status.Error(codes.ResourceExhausted, err.Error())
		}
		return nil, c.internal("keep private data", err)
	}
	return kept, nil
}

// mine puts together the write sets of the collections that this peer belongs to and marks them as kept.
func (c *Courier) mine(caller *caller, sets []*privatedatapb.WriteSet, kept []bool) (*rwsetpb.TxPvtReadWriteSet, error) {
	mine := &rwsetpb.TxPvtReadWriteSet{DataModel: rwsetpb.TxReadWriteSet_KV}
	self, err := caller.members.bundle.MSPs().Deserialize(c.config.Signer.Serialize())
	if err != nil {
		return mine, nil // this peer's member is not on the channel any more
	}
	byNamespace := map[string]*rwsetpb.NsPvtReadWriteSet{}
	for i, w := range sets {
		belongs, err := caller.members.belongs(self, w.GetNamespace(), w.GetCollection(), now)
		if err != nil {
			return nil, c.internal("read a collection's definition", err)
		}
		if !belongs {
			continue
		}
		ns := byNamespace[w.Namespace]
		if ns == nil {
			ns = &rwsetpb.NsPvtReadWriteSet{Namespace: w.Namespace}
			byNamespace[w.Namespace] = ns
			mine.NsPvtRwset = append(mine.NsPvtRwset, ns)
		}
		ns.CollectionPvtRwset = append(ns.CollectionPvtRwset, &rwsetpb.CollectionPvtReadWriteSet{CollectionName: w.Collection, Rwset: w.Rwset})
		kept[i] = true
	}
	if _, err := rwset.ParsePrivate(mine); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "write_sets: %v", err)
	}
	return mine, nil
}

// Pull gives private data that this peer has and the caller may have.
func (c *Courier) Pull(ctx context.Context, signed *privatedatapb.SignedRequest) (*privatedatapb.PullResponse, error) {
	request := &privatedatapb.PullRequest{}
	if err := proto.Unmarshal(signed.GetRequest(), request); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "the request cannot be decoded: %v", err)
	}
	caller, err := c.admit(ctx, privatedatapb.PrivateData_Pull_FullMethodName, signed, request.Sender)
	if err != nil {
		return nil, err
	}
	if !c.gate.enter(caller.id.MSPID()) {
		return nil, tooMany()
	}
	defer c.gate.leave(caller.id.MSPID())
	if n := len(request.Wanted); n == 0 || n > maxWanted {
		return nil, status.Errorf(codes.InvalidArgument, "wanted: %d are given, 1 to %d are wanted", n, maxWanted)
	}
	response := &privatedatapb.PullResponse{}
	given, err := c.give(ctx, caller, request.Sender.ChannelId, request.Wanted)
	if err != nil {
		return nil, err
	}
	for i, raw := range given {
		if len(raw) > 0 {
			response.Answers = append(response.Answers, &privatedatapb.Answer{Wanted: uint32(i), Rwset: raw[0]})
		}
	}
	return response, nil
}

// give finds what a peer wants and may have, for each its write sets: there can be several of a transaction that waits and whose hash is
// not known. What does not fit into one answer is left out.
func (c *Courier) give(ctx context.Context, caller *caller, channelID string, wanted []*privatedatapb.Wanted) ([][][]byte, error) {
	given := make([][][]byte, len(wanted))
	held := &holdings{channel: caller.channel}
	size, some := 0, false
	for i, w := range wanted {
		if w == nil || ctx.Err() != nil {
			continue
		}
		may, err := caller.may(w)
		if err != nil {
			return nil, c.internal("read a collection's definition", err)
		}
		if !may {
			c.metrics.denied.WithLabelValues(channelID).Inc()
			c.config.Log.Warn("a peer asked for private data of a collection that it does not belong to",
				"channel", channelID, "member", caller.id.MSPID(), "namespace", w.Namespace, "collection", w.Collection)
			continue
		}
		found, err := held.find(w)
		if err != nil {
			return nil, c.internal("read private data", err)
		}
		if len(found) == 0 {
			continue
		}
		for _, raw := range found {
			size += len(raw)
		}
		if size > maxAnswer && some {
			break
		}
		given[i], some = found, true
		c.metrics.given.WithLabelValues(channelID).Inc()
	}
	return given, nil
}

// may reports whether the caller satisfies the collection's member policy, as it was before the block or is now: who is
// let into a collection gets what is in it, as in Fabric.
func (r *caller) may(w *privatedatapb.Wanted) (bool, error) {
	ok, err := r.members.belongs(r.id, w.Namespace, w.Collection, w.Block)
	if ok || err != nil {
		return ok, err
	}
	return r.members.belongs(r.id, w.Namespace, w.Collection, now)
}

// holdings finds private data of a channel: in its ledger or, for blocks that are not there yet, among what waits for its commit. It
// serves one request.
type holdings struct {
	channel Channel
	blocks  map[uint64]map[uint64]*rwsetpb.TxPvtReadWriteSet
	waiting map[string][]*rwsetpb.TxPvtReadWriteSet
}

// maxBlocks bounds the blocks' data that is kept for one request.
const maxBlocks = 16

func (h *holdings) find(w *privatedatapb.Wanted) ([][]byte, error) {
	committed := w.Block < h.channel.Ledger().Height()
	if !committed {
		found, err := h.findWaiting(w)
		if len(found) > 0 || err != nil {
			return found, err
		}
		// It may have been committed, and so stopped waiting, while it was looked for.
		if w.Block >= h.channel.Ledger().Height() {
			return nil, nil
		}
	}
	txs, ok := h.blocks[w.Block]
	if !ok {
		sets, err := h.channel.Ledger().LivePrivateData(w.Block)
		if err != nil && !errors.Is(err, ledger.ErrNotFound) { // a block from before the snapshot that the ledger began with
			return nil, err
		}
		txs = make(map[uint64]*rwsetpb.TxPvtReadWriteSet, len(sets))
		for _, s := range sets {
			txs[s.Tx] = s.Set
		}
		if h.blocks == nil || len(h.blocks) >= maxBlocks {
			h.blocks = map[uint64]map[uint64]*rwsetpb.TxPvtReadWriteSet{}
		}
		h.blocks[w.Block] = txs
	}
	return find(txs[w.Transaction], w, func([]byte) bool { return true }), nil
}

// findWaiting wants the hash to match, if it is known: anybody may have brought what waits.
func (h *holdings) findWaiting(w *privatedatapb.Wanted) (found [][]byte, err error) {
	sets, ok := h.waiting[w.TransactionId]
	if !ok {
		if sets, err = h.channel.Ledger().Transient().Get(w.TransactionId); err != nil {
			return nil, err
		}
		if h.waiting == nil || len(h.waiting) >= maxBlocks {
			h.waiting = map[string][]*rwsetpb.TxPvtReadWriteSet{}
		}
		h.waiting[w.TransactionId] = sets
	}
	for _, set := range sets {
		found = append(found, find(set, w, func(raw []byte) bool {
			sum := sha256.Sum256(raw)
			return len(w.Hash) == 0 || bytes.Equal(sum[:], w.Hash)
		})...)
	}
	return found, nil
}

func find(set *rwsetpb.TxPvtReadWriteSet, w *privatedatapb.Wanted, good func(raw []byte) bool) (found [][]byte) {
	for _, ns := range set.GetNsPvtRwset() {
		for _, collection := range ns.CollectionPvtRwset {
			if ns.Namespace == w.Namespace && collection.CollectionName == w.Collection && good(collection.Rwset) {
				found = append(found, append([]byte{}, collection.Rwset...))
			}
		}
	}
	return found
}

// internal keeps what went wrong inside from the caller.
func (c *Courier) internal(what string, err error) error {
	c.config.Log.Error("a call of another peer failed", "in", what, "error", err)
	return status.Error(codes.Internal, "could not "+what)
}

func tooMany() error {
	return status.Error(codes.ResourceExhausted, "too many requests for private data at once; try again later")
}

// gate bounds calls at once, and those of one member to half of them, so that no member keeps the others out.
type gate struct {
	most int

	mu    sync.Mutex
	total int
	of    map[string]int
}

func newGate(most int) *gate { return &gate{most: most, of: map[string]int{}} }

func (g *gate) enter(mspID string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.most || g.of[mspID] >= (g.most+1)/2 {
		return false
	}
	g.total++
	g.of[mspID]++
	return true
}

func (g *gate) leave(mspID string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.of[mspID]--; g.of[mspID] == 0 {
		delete(g.of, mspID)
	}
}
