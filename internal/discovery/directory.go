package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// Directory knows the peers of the channels that this peer has joined. It is
// safe for concurrent use.
type Directory struct {
	config Config
	pkiID  []byte
	start  uint64
	woken  chan struct{}
	// version counts changes of what Members answers.
	version atomic.Uint64

	mu       sync.Mutex // guards all below
	count    uint64     // numbers this peer's messages
	alive    *gossippb.Envelope
	aliveAt  time.Time
	channels map[string]*view
}

// view is what is known of one channel. Directory.mu guards it.
type view struct {
	bundle  *channel.Bundle    // that the members were verified against
	members map[string]*Member // by PKI-ID, this peer excepted; silent ones stay a while, so that their old messages cannot revive them
	failed  map[string]bool    // by address
	// This peer's own state as signed last.
	state     *gossippb.Envelope
	stateAt   time.Time
	height    uint64
	contracts map[string]string
}

const (
	// refresh is how old this peer's own messages may be when they are shown.
	refresh = time.Second
	// forget is how many times Expiry a silent peer is remembered.
	forget = 20
	// maxMembers bounds the peers known of one member on one channel.
	maxMembers = 256
	// maxAsked bounds the peers asked in one round, and maxAsking those at once.
	maxAsked, maxAsking = 32, 8
	// announcement is the gRPC metadata key under which a peer that asks shows what it
	// says of itself. Fabric's peers ignore it.
	announcement = "hansa-peer-bin"
)

// NewDirectory makes a directory; Run keeps it up to date.
func NewDirectory(c Config) (*Directory, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	pkiID, err := PKIID(c.Signer.Serialize())
	if err != nil {
		return nil, err
	}
	return &Directory{config: c, pkiID: pkiID, start: uint64(c.Now().UnixNano()), woken: make(chan struct{}, 1), channels: map[string]*view{}}, nil
}

// Run asks the channels' peers from time to time until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	for {
		for _, id := range d.config.Channels() {
			d.ask(ctx, id)
		}
		// Not all peers at the same moment.
		wait := time.NewTimer(d.config.Interval*4/5 + rand.N(d.config.Interval*2/5+1))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		case <-d.woken:
			wait.Stop()
		}
	}
}

// Changed makes Run ask now: this peer joined a channel, its configuration or the contracts that
// this peer runs changed, so others should know.
func (d *Directory) Changed() {
	d.version.Add(1)
	select {
	case d.woken <- struct{}{}:
	default:
	}
}

// Version changes whenever the answer of Members may have, but for heights.
func (d *Directory) Version() uint64 { return d.version.Load() }

// Members lists the peers of a channel that may be called, by MSP id, best
// first: this peer, those heard of with the highest ledgers, anchor peers never heard
// of, and those that could not be reached.
func (d *Directory) Members(channelID string) []*Member {
	ch, ok := d.config.Channel(channelID)
	if !ok {
		return nil
	}
	bundle := ch.Bundle()
	self, err := d.self(channelID, ch)
	if err != nil {
		d.config.Log.Error("this peer cannot say what it runs", "channel", channelID, "error", err)
		self = &Member{MSPID: d.config.MSPID, Address: d.config.Address, Local: true, Heard: true, Height: ch.Height()}
	}
	members := []*Member{self}
	// An address is what a peer says of itself: one that names another member's must not take that one's place.
	type place struct{ mspID, address string }
	listed := map[place]bool{}
	d.mu.Lock()
	v := d.view(channelID, bundle)
	now := d.config.Now()
	for _, m := range v.members {
		at := place{m.MSPID, m.Address}
		if now.Sub(m.last) < d.config.Expiry && m.Address != d.config.Address && !listed[at] {
			listed[at] = true
			c := *m
			c.Failed = v.failed[m.Address]
			members = append(members, &c)
		}
	}
	for address, mspID := range anchors(bundle) {
		if address != d.config.Address && !listed[place{mspID, address}] {
			members = append(members, &Member{MSPID: mspID, Address: address, Failed: v.failed[address]})
		}
	}
	d.mu.Unlock()
	slices.SortFunc(members, func(a, b *Member) int {
		return cmp.Or(strings.Compare(a.MSPID, b.MSPID), first(a.Local, b.Local), first(!a.Failed, !b.Failed), first(a.Heard, b.Heard),
			cmp.Compare(b.Height, a.Height), strings.Compare(a.Address, b.Address))
	})
	return members
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// Fail reports that a call to a peer could not be delivered. It comes last until it is heard again.
func (d *Directory) Fail(channelID, address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v := d.channels[channelID]; v != nil && len(v.failed) < maxMembers {
		v.failed[address] = true
		d.version.Add(1)
	}
}

// anchors are the configuration's anchor peers: MSP id by address.
func anchors(b *channel.Bundle) map[string]string {
	found := map[string]string{}
	for _, org := range b.ApplicationOrgs() {
		for _, a := range org.AnchorPeers {
			found[a.String()] = org.MSPID
		}
	}
	return found
}

// view returns a channel's view. Under another configuration than before, members
// that are none any more are dropped. The caller holds mu.
func (d *Directory) view(channelID string, bundle *channel.Bundle) *view {
	v := d.channels[channelID]
	if v == nil {
		v = &view{bundle: bundle, members: map[string]*Member{}, failed: map[string]bool{}}
		d.channels[channelID] = v
	}
	if v.bundle != bundle {
		v.bundle = bundle
		maps.DeleteFunc(v.members, func(_ string, m *Member) bool {
			s, err := readStatement(m.message)
			if err == nil {
				m.identity, err = s.verify(bundle)
			}
			return err != nil
		})
		d.version.Add(1)
	}
	return v
}

// self is what this peer says of itself on a channel, signed again if it is out of date.
func (d *Directory) self(channelID string, ch Channel) (*Member, error) {
	contracts, err := ch.Contracts()
	if err != nil {
		return nil, err
	}
	runs := map[string]string{lifecycleNamespace: lifecycleVersion}
	for name, c := range contracts {
		if c.Runs {
			runs[name] = c.Version
		}
	}
	height, bundle := ch.Height(), ch.Bundle()
	identity, err := bundle.MSPs().Deserialize(d.config.Signer.Serialize())
	if err != nil {
		return nil, fmt.Errorf("this peer is of no member of channel %s: %w", channelID, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.config.Now()
	if d.alive == nil || now.Sub(d.aliveAt) >= refresh {
		if d.alive, err = Seal(d.config.Signer, &gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Content: &gossippb.GossipMessage_AliveMsg{AliveMsg: &gossippb.AliveMessage{
			Membership: &gossippb.Member{Endpoint: d.config.Address, Metadata: []byte(mark), PkiId: d.pkiID}, Timestamp: d.next(), Identity: d.config.Signer.Serialize()}}}); err != nil {
			return nil, err
		}
		d.aliveAt = now
	}
	v := d.view(channelID, bundle)
	if changed := !maps.Equal(v.contracts, runs); v.state == nil || changed || v.height != height && now.Sub(v.stateAt) >= refresh {
		properties := &gossippb.Properties{LedgerHeight: height}
		for _, name := range slices.Sorted(maps.Keys(runs)) {
			properties.Chaincodes = append(properties.Chaincodes, &gossippb.Chaincode{Name: name, Version: runs[name]})
		}
		if v.state, err = Seal(d.config.Signer, &gossippb.GossipMessage{Tag: gossippb.GossipMessage_CHAN_OR_ORG, Content: &gossippb.GossipMessage_StateInfo{StateInfo: &gossippb.StateInfo{
			Timestamp: d.next(), PkiId: d.pkiID, Channel_MAC: ChannelMAC(d.pkiID, channelID), Properties: properties}}}); err != nil {
			return nil, err
		}
		v.stateAt, v.height, v.contracts = now, height, runs
	}
	return &Member{MSPID: d.config.MSPID, Address: d.config.Address, Local: true, Heard: true, Height: height, Contracts: runs, pkiID: string(d.pkiID),
		identity: identity, last: now, message: &discoverypb.Peer{Identity: d.config.Signer.Serialize(), MembershipInfo: d.alive, StateInfo: v.state}}, nil
}

// next numbers a message. The caller holds mu.
func (d *Directory) next() *gossippb.PeerTime {
	d.count++
	return &gossippb.PeerTime{IncNum: d.start, SeqNum: d.count}
}

// ask does one round of a channel: every anchor peer and every known one, or a
// random choice of them, is asked whom it knows.
func (d *Directory) ask(ctx context.Context, channelID string) {
	ch, ok := d.config.Channel(channelID)
	if !ok {
		return
	}
	bundle := ch.Bundle()
	self, err := d.self(channelID, ch)
	if err != nil {
		d.config.Log.Error("cannot ask for peers", "channel", channelID, "error", err)
		return
	}
	request, err := d.request(channelID)
	if err != nil {
		d.config.Log.Error("cannot ask for peers", "channel", channelID, "error", err)
		return
	}
	shown, err := proto.Marshal(self.message)
	if err != nil {
		d.config.Log.Error("cannot ask for peers", "channel", channelID, "error", err)
		return
	}
	ctx = metadata.AppendToOutgoingContext(ctx, announcement, string(shown))
	roots := map[string][][]byte{}
	for _, org := range bundle.ApplicationOrgs() {
		roots[org.MSPID] = slices.Concat(org.TLSRoots, org.TLSIntermediates)
	}
	group := errgroup.Group{}
	group.SetLimit(maxAsking)
	for address, mspID := range d.targets(channelID, bundle) {
		group.Go(func() error {
			d.askOne(ctx, ch, channelID, address, roots[mspID], request)
			return nil
		})
	}
	_ = group.Wait() // askOne reports its errors
	d.sweep(channelID)
}

// targets are the peers to ask: MSP id by address.
func (d *Directory) targets(channelID string, bundle *channel.Bundle) map[string]string {
	all := anchors(bundle)
	d.mu.Lock()
	for _, m := range d.view(channelID, bundle).members {
		if d.config.Now().Sub(m.last) < d.config.Expiry {
			all[m.Address] = m.MSPID
		}
	}
	d.mu.Unlock()
	delete(all, d.config.Address)
	for address := range all { // map order is random
		if len(all) <= maxAsked {
			break
		}
		delete(all, address)
	}
	return all
}

func (d *Directory) request(channelID string) (*discoverypb.SignedRequest, error) {
	payload, err := proto.Marshal(&discoverypb.Request{
		Authentication: &discoverypb.AuthInfo{ClientIdentity: d.config.Signer.Serialize(), ClientTlsCertHash: d.config.CertHash},
		Queries:        []*discoverypb.Query{{Channel: channelID, Query: &discoverypb.Query_PeerQuery{PeerQuery: &discoverypb.PeerMembershipQuery{}}}},
	})
	if err != nil {
		return nil, err
	}
	signature, err := d.config.Signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return &discoverypb.SignedRequest{Payload: payload, Signature: signature}, nil
}

func (d *Directory) askOne(ctx context.Context, ch Channel, channelID, address string, roots [][]byte, request *discoverypb.SignedRequest) {
	ctx, cancel := call(ctx)
	defer cancel()
	response, err := d.query(ctx, address, roots, request)
	d.reached(channelID, address, err == nil)
	if err != nil {
		d.config.Log.Debug("a peer does not answer", "channel", channelID, "address", address, "error", err)
		return
	}
	for _, result := range response.GetResults() {
		if refused := result.GetError(); refused != nil {
			// Fabric's peers answer only those whom the channel's Writers policy admits.
			d.config.Log.Debug("a peer does not say whom it knows", "channel", channelID, "address", address, "reason", refused.Content)
		}
		for _, peers := range result.GetMembers().GetPeersByOrg() {
			for _, p := range peers.GetPeers() {
				if err := d.learn(ch, channelID, p); err != nil {
					d.config.Log.Debug("a peer is not believed", "channel", channelID, "told by", address, "error", err)
				}
			}
		}
	}
}

func (d *Directory) query(ctx context.Context, address string, roots [][]byte, request *discoverypb.SignedRequest) (*discoverypb.Response, error) {
	conn, err := d.config.Dial.Dial(address, roots)
	if err != nil {
		return nil, err
	}
	return discoverypb.NewDiscoveryClient(conn).Discover(ctx, request, grpc.MaxCallRecvMsgSize(16<<20))
}

// reached notes whether a call to a peer was delivered.
func (d *Directory) reached(channelID, address string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.channels[channelID]
	if v == nil || v.failed[address] == !ok {
		return
	}
	if ok {
		delete(v.failed, address)
	} else if len(v.failed) < maxMembers {
		v.failed[address] = true
	}
	d.version.Add(1)
}

// Statements are what the channel's live peers say of themselves, this one first.
func (d *Directory) Statements(channelID string) ([]*discoverypb.Peer, error) {
	ch, ok := d.config.Channel(channelID)
	if !ok {
		return nil, fmt.Errorf("this peer has not joined channel %s", channelID)
	}
	self, err := d.self(channelID, ch)
	if err != nil {
		return nil, err
	}
	all := []*discoverypb.Peer{self.message}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.config.Now()
	for _, m := range d.view(channelID, ch.Bundle()).members {
		if now.Sub(m.last) < d.config.Expiry {
			all = append(all, m.message)
		}
	}
	return all, nil
}

// Strangers are the channel's anchor peers, MSP id by address, that are not known to be of Hansa.
func (d *Directory) Strangers(channelID string) map[string]string {
	ch, ok := d.config.Channel(channelID)
	if !ok {
		return nil
	}
	bundle := ch.Bundle()
	found := anchors(bundle)
	delete(found, d.config.Address)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.view(channelID, bundle).members {
		if !m.Foreign && found[m.Address] == m.MSPID {
			delete(found, m.Address)
		}
	}
	return found
}

// Hear takes note of what a peer says of itself, whoever passed it on.
func (d *Directory) Hear(channelID string, p *discoverypb.Peer) error {
	ch, ok := d.config.Channel(channelID)
	if !ok {
		return fmt.Errorf("this peer has not joined channel %s", channelID)
	}
	return d.learn(ch, channelID, p)
}

func (d *Directory) learn(ch Channel, channelID string, p *discoverypb.Peer) error {
	s, err := readStatement(p)
	if err != nil {
		return err
	}
	if string(s.pkiID) == string(d.pkiID) {
		return nil
	}
	bundle := ch.Bundle()
	d.mu.Lock()
	known := d.view(channelID, bundle).members[string(s.pkiID)]
	d.mu.Unlock()
	if known != nil && !s.alive.after(known.alive) && !s.state.after(known.state) {
		return nil // nothing new, so nothing to verify
	}
	id, err := s.verify(bundle)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view(channelID, bundle)
	known = v.members[string(s.pkiID)]
	m := &Member{MSPID: id.MSPID(), Heard: true, pkiID: string(s.pkiID), identity: id, message: &discoverypb.Peer{Identity: p.Identity}}
	if known != nil {
		*m = *known
		m.message = &discoverypb.Peer{Identity: p.Identity, MembershipInfo: known.message.MembershipInfo, StateInfo: known.message.StateInfo}
	} else if v.count(m.MSPID) >= maxMembers {
		return fmt.Errorf("more than %d peers of %s", maxMembers, m.MSPID)
	}
	if known == nil || s.alive.after(known.alive) {
		m.Address, m.Foreign, m.alive, m.last = s.address, !s.marked, s.alive, d.config.Now()
		m.message.MembershipInfo = bare(p.MembershipInfo)
	}
	if known == nil || s.state.after(known.state) {
		m.Height, m.Contracts, m.state = s.height, s.contracts, s.state
		m.message.StateInfo = bare(p.StateInfo)
		if s.left {
			m.last = d.config.Now().Add(-d.config.Expiry)
		}
	}
	v.members[m.pkiID] = m
	if known == nil || known.Address != m.Address || known.Height != m.Height || !maps.Equal(known.Contracts, m.Contracts) {
		d.version.Add(1)
	}
	return nil
}

// bare leaves out a secret part, which is for the member's own peers only.
func bare(e *gossippb.Envelope) *gossippb.Envelope {
	return &gossippb.Envelope{Payload: e.GetPayload(), Signature: e.GetSignature()}
}

func (v *view) count(mspID string) (n int) {
	for _, m := range v.members {
		if m.MSPID == mspID {
			n++
		}
	}
	return n
}

// sweep forgets peers that were silent for long.
func (d *Directory) sweep(channelID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, now := d.channels[channelID], d.config.Now()
	if v == nil {
		return
	}
	silent := false
	maps.DeleteFunc(v.members, func(_ string, m *Member) bool {
		silence := now.Sub(m.last)
		silent = silent || silence >= d.config.Expiry && silence < 2*d.config.Expiry
		return silence >= forget*d.config.Expiry
	})
	listed := anchors(v.bundle)
	for _, m := range v.members {
		listed[m.Address] = m.MSPID
	}
	maps.DeleteFunc(v.failed, func(address string, _ bool) bool { _, ok := listed[address]; return !ok })
	if silent {
		d.version.Add(1)
	}
}

// announced takes note of what the caller of ctx shows of itself, if anything.
func (d *Directory) announced(ctx context.Context, ch Channel, channelID string) error {
	values := metadata.ValueFromIncomingContext(ctx, announcement)
	if len(values) == 0 {
		return nil
	}
	p := &discoverypb.Peer{}
	if len(values) > 1 {
		return errors.New("a peer shows itself more than once")
	}
	if err := proto.Unmarshal([]byte(values[0]), p); err != nil {
		return fmt.Errorf("decode what a peer shows: %w", err)
	}
	return d.learn(ch, channelID, p)
}
