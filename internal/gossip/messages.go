package gossip

import (
	"bytes"
	"errors"
	"math/rand/v2"

	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// peer is what was heard of one peer: verified messages, the newest of each kind.
type peer struct {
	identity []byte
	address  string
	alive    *gossippb.Envelope
	aliveAt  *gossippb.PeerTime
	// states are by channel.
	states map[string]state
}

type state struct {
	message *gossippb.Envelope
	at      *gossippb.PeerTime
}

func newer(a, b *gossippb.PeerTime) bool {
	return b == nil || a.GetIncNum() > b.IncNum || a.GetIncNum() == b.IncNum && a.GetSeqNum() > b.SeqNum
}

// beat is what this peer says regularly: that it lives and how far it is, and
// now and then questions, who else is there, how far they are, and what their
// certificates are.
func (s *Service) beat(l *link, ask bool) ([]*gossippb.Envelope, error) {
	var alive *gossippb.Envelope
	var states, questions []*gossippb.Envelope
	var failed error
	question := func(m *gossippb.GossipMessage) {
		e, err := unsigned(m)
		failed = errors.Join(failed, err)
		questions = append(questions, e)
	}
	for _, id := range s.shared(l) {
		all, err := s.config.Directory.Statements(id)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		alive = all[0].MembershipInfo
		states = append(states, all[0].StateInfo)
		if ask {
			question(&gossippb.GossipMessage{Tag: gossippb.GossipMessage_CHAN_OR_ORG, Content: &gossippb.GossipMessage_StateInfoPullReq{
				StateInfoPullReq: &gossippb.StateInfoPullRequest{Channel_MAC: discovery.ChannelMAC(s.pkiID, id)}}})
		}
	}
	if alive == nil {
		return nil, failed
	}
	if ask {
		question(&gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Nonce: rand.Uint64(), Content: &gossippb.GossipMessage_MemReq{
			MemReq: &gossippb.MembershipRequest{SelfInformation: alive}}})
		nonce := rand.Uint64()
		l.mu.Lock()
		l.nonce = nonce
		l.mu.Unlock()
		question(&gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Content: &gossippb.GossipMessage_Hello{
			Hello: &gossippb.GossipHello{Nonce: nonce, MsgType: gossippb.PullMsgType_IDENTITY_MSG}}})
	}
	// Fabric's peers take a state only from whom they know to live, and ask for
	// states once they know it: so states come after the questions too.
	messages := append([]*gossippb.Envelope{alive}, questions...)
	return append(messages, states...), failed
}

// shared are the channels that this peer has in common with the other side's member.
func (s *Service) shared(l *link) (ids []string) {
	for _, id := range s.config.Channels() {
		if bundle, ok := s.config.Bundle(id); ok && bundle.RunsPeers(l.mspID) {
			ids = append(ids, id)
		}
	}
	return ids
}

// handle takes one message. An error ends the link; what merely says nothing new,
// or is not understood here, is passed over.
func (s *Service) handle(l *link, e *gossippb.Envelope) error {
	m, err := decode(e)
	if err != nil {
		return err
	}
	switch c := m.Content.(type) {
	case *gossippb.GossipMessage_AliveMsg:
		s.hearAlive(e)
	case *gossippb.GossipMessage_MemReq:
		s.hearAlive(c.MemReq.GetSelfInformation())
		l.send(&gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Nonce: m.Nonce, Content: &gossippb.GossipMessage_MemRes{MemRes: s.membership(l)}})
	case *gossippb.GossipMessage_MemRes:
		for _, e := range c.MemRes.GetAlive() {
			s.hearAlive(e)
		}
	case *gossippb.GossipMessage_StateInfo:
		s.hearState(l, e)
	case *gossippb.GossipMessage_StateSnapshot:
		for _, e := range c.StateSnapshot.GetElements() {
			s.hearState(l, e)
		}
	case *gossippb.GossipMessage_StateInfoPullReq:
		if id, ok := s.channelOf(l, l.pkiID, c.StateInfoPullReq.GetChannel_MAC()); ok {
			l.send(&gossippb.GossipMessage{Tag: gossippb.GossipMessage_CHAN_OR_ORG, Content: &gossippb.GossipMessage_StateSnapshot{StateSnapshot: s.states(id)}})
		}
	case *gossippb.GossipMessage_DataDig:
		if c.DataDig.GetMsgType() == gossippb.PullMsgType_IDENTITY_MSG && l.asked(c.DataDig.GetNonce()) {
			if unknown := s.unknown(c.DataDig.GetDigests()); len(unknown) > 0 {
				l.send(&gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Content: &gossippb.GossipMessage_DataReq{
					DataReq: &gossippb.DataRequest{Nonce: c.DataDig.Nonce, Digests: unknown, MsgType: gossippb.PullMsgType_IDENTITY_MSG}}})
			}
		}
	case *gossippb.GossipMessage_DataUpdate:
		if c.DataUpdate.GetMsgType() == gossippb.PullMsgType_IDENTITY_MSG && l.asked(c.DataUpdate.GetNonce()) {
			s.hearIdentities(c.DataUpdate.GetData())
		}
	case *gossippb.GossipMessage_PrivateData, *gossippb.GossipMessage_PrivateReq:
		s.handlePrivate(l, m)
	case *gossippb.GossipMessage_Ack, *gossippb.GossipMessage_PrivateRes:
		l.answered(m)
	}
	return nil
}

// send queues a message that needs no signature.
func (l *link) send(m *gossippb.GossipMessage) {
	select {
	case l.queue <- m:
	default:
	}
}

// asked says whether an answer is to the last question for identities.
func (l *link) asked(nonce uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return nonce == l.nonce
}

// membership is who lives on the channels that the other side's member is part of.
func (s *Service) membership(l *link) *gossippb.MembershipResponse {
	response, named := &gossippb.MembershipResponse{}, map[string]bool{}
	for _, id := range s.shared(l) {
		all, err := s.config.Directory.Statements(id)
		if err != nil {
			s.config.Log.Error("this peer cannot say who lives", "channel", id, "error", err)
			continue
		}
		for _, p := range all {
			if !named[string(p.Identity)] {
				named[string(p.Identity)] = true
				response.Alive = append(response.Alive, p.MembershipInfo)
			}
		}
	}
	return response
}

// states are how far the peers of a channel are.
func (s *Service) states(channelID string) *gossippb.StateInfoSnapshot {
	snapshot := &gossippb.StateInfoSnapshot{}
	all, err := s.config.Directory.Statements(channelID)
	if err != nil {
		s.config.Log.Error("this peer cannot say how far it is", "channel", channelID, "error", err)
	}
	for _, p := range all {
		snapshot.Elements = append(snapshot.Elements, p.StateInfo)
	}
	return snapshot
}

// channelOf finds the channel that a peer's message is bound to, among those in common with the other side.
func (s *Service) channelOf(l *link, pkiID, mac []byte) (string, bool) {
	for _, id := range s.shared(l) {
		if bytes.Equal(discovery.ChannelMAC(pkiID, id), mac) {
			return id, true
		}
	}
	return "", false
}

// learn keeps a verified identity.
func (s *Service) learn(pkiID, serialized []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[string(pkiID)] != nil {
		return
	}
	if len(s.known) >= maxKnown {
		for id := range s.known { // any but one with a link: what is heard again is learned again
			if s.links[id] == nil {
				delete(s.known, id)
				break
			}
		}
	}
	s.known[string(pkiID)] = &peer{identity: serialized, states: map[string]state{}}
}

func (s *Service) unknown(digests [][]byte) (wanted [][]byte) {
	const most = 256 // at once
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range digests {
		if s.known[string(d)] == nil && !bytes.Equal(d, s.pkiID) && len(wanted) < most {
			wanted = append(wanted, d)
		}
	}
	return wanted
}

func (s *Service) hearIdentities(all []*gossippb.Envelope) {
	for _, e := range all {
		m, err := decode(e)
		if err != nil || m.GetPeerIdentity() == nil {
			continue
		}
		p := m.GetPeerIdentity()
		if _, err := s.identify(p.Cert, p.PkiId); err != nil {
			s.config.Log.Debug("a peer's certificate is not believed", "error", err)
			continue
		}
		s.learn(p.PkiId, p.Cert)
	}
}

// hearAlive takes a peer's sign of life.
func (s *Service) hearAlive(e *gossippb.Envelope) {
	m, err := decode(e)
	alive := m.GetAliveMsg()
	if err != nil || alive.GetMembership() == nil || bytes.Equal(alive.Membership.PkiId, s.pkiID) {
		return
	}
	s.hear(alive.Membership.PkiId, alive.Identity, e, func(p *peer) bool { return newer(alive.Timestamp, p.aliveAt) }, func(p *peer) {
		p.alive, p.aliveAt, p.address = e, alive.Timestamp, alive.Membership.Endpoint
	})
}

// hearState takes a peer's word of how far it is.
func (s *Service) hearState(l *link, e *gossippb.Envelope) {
	m, err := decode(e)
	info := m.GetStateInfo()
	if err != nil || info == nil || bytes.Equal(info.PkiId, s.pkiID) {
		return
	}
	id, ok := s.channelOf(l, info.PkiId, info.Channel_MAC)
	if !ok {
		return
	}
	s.hear(info.PkiId, nil, e, func(p *peer) bool { return newer(info.Timestamp, p.states[id].at) }, func(p *peer) { p.states[id] = state{e, info.Timestamp} })
}

// hear takes a message of a peer if it says something new and is signed by that peer, and tells the directory.
func (s *Service) hear(pkiID, serialized []byte, e *gossippb.Envelope, news func(*peer) bool, take func(*peer)) {
	s.mu.Lock()
	p := s.known[string(pkiID)]
	old := p != nil && !news(p)
	if p != nil {
		serialized = p.identity
	}
	s.mu.Unlock()
	if old || serialized == nil {
		return
	}
	id, err := s.identify(serialized, pkiID)
	if err == nil {
		err = id.Verify(e.GetPayload(), e.GetSignature())
	}
	if err != nil {
		s.config.Log.Debug("a peer is not believed", "error", err)
		return
	}
	s.learn(pkiID, serialized)

	var statements map[string]*discoverypb.Peer
	s.mu.Lock()
	if p = s.known[string(pkiID)]; p != nil && news(p) {
		take(p)
		statements = p.statements()
	}
	s.mu.Unlock()
	for channelID, statement := range statements {
		if err := s.config.Directory.Hear(channelID, statement); err != nil {
			s.config.Log.Debug("a peer is not believed", "channel", channelID, "error", err)
		}
	}
}

// statements are what a peer said of itself, by channel, as the directory takes it.
func (p *peer) statements() map[string]*discoverypb.Peer {
	if p.alive == nil {
		return nil
	}
	all := map[string]*discoverypb.Peer{}
	for id, state := range p.states {
		all[id] = &discoverypb.Peer{Identity: p.identity, MembershipInfo: p.alive, StateInfo: state.message}
	}
	return all
}
