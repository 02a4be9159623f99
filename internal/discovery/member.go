package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// Member is a peer of a channel. It is not changed once it is handed out.
type Member struct {
	MSPID   string
	Address string
	Local   bool // this peer
	// Heard says that the peer stated what follows. An anchor peer of the
	// configuration that was not heard of is only an address.
	Heard     bool
	Height    uint64
	Contracts map[string]string // that it runs, with their versions
	// Failed says that the last call could not be delivered.
	Failed bool
	// Foreign says that the peer stated what it is, but not that it is of Hansa.
	Foreign bool

	pkiID    string
	identity *identity.Identity
	message  *discoverypb.Peer
	alive    stamp
	state    stamp
	last     time.Time // when it was last known to live
}

// stamp orders a peer's messages: by its start, then counted.
type stamp struct{ start, count uint64 }

func stampOf(t *gossippb.PeerTime) stamp { return stamp{t.GetIncNum(), t.GetSeqNum()} }

func (s stamp) after(other stamp) bool {
	return s.start > other.start || s.start == other.start && s.count > other.count
}

// Runs says whether the peer stated that it runs a contract, in whichever version.
func (m *Member) Runs(contract string) bool {
	_, ok := m.Contracts[contract]
	return ok
}

// Bounds of what a peer may state of itself.
const (
	maxContracts = 4096
	maxText      = 512
)

// statement is what a peer said of itself, decoded and not yet verified.
type statement struct {
	message   *discoverypb.Peer
	pkiID     []byte
	address   string
	marked    bool
	alive     stamp
	state     stamp
	height    uint64
	left      bool
	contracts map[string]string
	mac       []byte
}

// readStatement decodes the messages of one peer. StateInfo is required.
func readStatement(p *discoverypb.Peer) (*statement, error) {
	aliveMessage, stateMessage := &gossippb.GossipMessage{}, &gossippb.GossipMessage{}
	if err := proto.Unmarshal(p.GetMembershipInfo().GetPayload(), aliveMessage); err != nil {
		return nil, fmt.Errorf("decode membership info: %w", err)
	}
	if err := proto.Unmarshal(p.GetStateInfo().GetPayload(), stateMessage); err != nil {
		return nil, fmt.Errorf("decode state info: %w", err)
	}
	pkiID, err := PKIID(p.GetIdentity())
	if err != nil {
		return nil, err
	}
	alive, state := aliveMessage.GetAliveMsg(), stateMessage.GetStateInfo()
	s := &statement{message: p, pkiID: pkiID, address: alive.GetMembership().GetEndpoint(), marked: string(alive.GetMembership().GetMetadata()) == mark,
		alive: stampOf(alive.GetTimestamp()), state: stampOf(state.GetTimestamp()), mac: state.GetChannel_MAC(),
		height: state.GetProperties().GetLedgerHeight(), left: state.GetProperties().GetLeftChannel(), contracts: map[string]string{}}
	switch {
	case alive == nil || state == nil || state.Properties == nil:
		return nil, errors.New("a peer's membership or state is missing")
	case !bytes.Equal(alive.Membership.GetPkiId(), pkiID) || !bytes.Equal(state.PkiId, pkiID):
		return nil, errors.New("a peer's messages are of another identity")
	case len(state.Properties.Chaincodes) > maxContracts:
		return nil, fmt.Errorf("a peer states %d contracts; %d are the limit", len(state.Properties.Chaincodes), maxContracts)
	}
	host, port, err := net.SplitHostPort(s.address)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" || len(s.address) > maxText {
		return nil, fmt.Errorf("a peer's address %.100q is not host:port", s.address)
	}
	for _, c := range state.Properties.Chaincodes {
		if len(c.GetName()) > maxText || len(c.GetVersion()) > maxText {
			return nil, errors.New("a peer states a contract with an overlong name or version")
		}
		s.contracts[c.GetName()] = c.GetVersion()
	}
	return s, nil
}

// verify checks that the statement is of a peer of one of the channel's members.
func (s *statement) verify(b *channel.Bundle) (*identity.Identity, error) {
	id, err := b.MSPs().Deserialize(s.message.Identity)
	if err != nil {
		return nil, err
	}
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if !b.RunsPeers(id.MSPID()) {
		return nil, fmt.Errorf("%s has no peers on channel %s", id.MSPID(), b.ID())
	}
	if !bytes.Equal(s.mac, ChannelMAC(s.pkiID, b.ID())) {
		return nil, fmt.Errorf("the peer %s states its height of another channel than %s", s.address, b.ID())
	}
	for _, e := range []*gossippb.Envelope{s.message.MembershipInfo, s.message.StateInfo} {
		if err := id.Verify(e.GetPayload(), e.GetSignature()); err != nil {
			return nil, fmt.Errorf("what is said of the peer %s is not signed by it: %w", s.address, err)
		}
	}
	return id, nil
}
