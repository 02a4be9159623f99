package discovery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Access decides who is told.
type Access interface {
	// Discover says whether a signer may ask about a channel, or about this peer's
	// surroundings if channelID is "". peers says that the question is only for the
	// channel's peers, which other peers ask too.
	Discover(channelID string, peers bool, data, identity, signature []byte) error
}

// Service implements discoverypb.DiscoveryServer. Texts of refusals are those of
// Fabric's peers.
type Service struct {
	discoverypb.UnimplementedDiscoveryServer
	directory *Directory
	access    Access
	mutualTLS bool
	log       *slog.Logger
}

// NewService tells what a directory knows. Under mutual TLS every request must
// name the certificate of the connection that it comes by.
func NewService(d *Directory, access Access, mutualTLS bool) *Service {
	return &Service{directory: d, access: access, mutualTLS: mutualTLS, log: d.config.Log}
}

// maxQueries bounds one request.
const maxQueries = 64

// Discover answers each query of a request by its own; the request as a whole
// fails only if it says not, or falsely, who asks.
func (s *Service) Discover(ctx context.Context, signed *discoverypb.SignedRequest) (*discoverypb.Response, error) {
	request := &discoverypb.Request{}
	if err := proto.Unmarshal(signed.GetPayload(), request); err != nil {
		return nil, fmt.Errorf("failed parsing request: %w", err)
	}
	if err := s.checkCaller(ctx, request.GetAuthentication()); err != nil {
		return nil, err
	}
	if len(request.Queries) > maxQueries {
		return nil, fmt.Errorf("a request may hold %d queries, not %d", maxQueries, len(request.Queries))
	}
	response := &discoverypb.Response{Results: make([]*discoverypb.QueryResult, len(request.Queries))}
	for i, q := range request.Queries {
		result, err := s.answer(ctx, q, signed, request.Authentication.ClientIdentity)
		if err != nil {
			result = &discoverypb.QueryResult{Result: &discoverypb.QueryResult_Error{Error: &discoverypb.Error{Content: err.Error()}}}
		}
		response.Results[i] = result
	}
	return response, nil
}

func (s *Service) checkCaller(ctx context.Context, auth *discoverypb.AuthInfo) error {
	switch {
	case auth == nil:
		return errors.New("access denied, no authentication info in request")
	case len(auth.ClientIdentity) == 0:
		return errors.New("access denied, client identity wasn't supplied")
	case !s.mutualTLS:
		return nil
	}
	hash := callerCertHash(ctx)
	if len(hash) == 0 {
		return errors.New("client didn't send a TLS certificate")
	}
	if !bytes.Equal(hash, auth.ClientTlsCertHash) {
		return errors.New("client claimed TLS hash doesn't match computed TLS hash from gRPC stream")
	}
	return nil
}

func callerCertHash(ctx context.Context) []byte {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	sum := sha256.Sum256(info.State.PeerCertificates[0].Raw)
	return sum[:]
}

var errDenied = errors.New("access denied")

func (s *Service) answer(ctx context.Context, q *discoverypb.Query, signed *discoverypb.SignedRequest, identity []byte) (*discoverypb.QueryResult, error) {
	id := q.GetChannel()
	var ch Channel
	if id != "" {
		var ok bool
		if ch, ok = s.directory.config.Channel(id); !ok {
			return nil, errDenied // who may not see the channel is not told either that it exists
		}
	}
	_, peers := q.GetQuery().(*discoverypb.Query_PeerQuery)
	if err := s.access.Discover(id, peers, signed.Payload, identity, signed.Signature); err != nil {
		s.log.Warn("a discovery query is refused", "channel", id, "error", err)
		return nil, errDenied
	}
	if id == "" {
		if _, ok := q.GetQuery().(*discoverypb.Query_LocalPeers); ok {
			return peersResult(s.directory.everyone()), nil
		}
		return nil, errUnknownQuery
	}
	switch query := q.GetQuery().(type) {
	case *discoverypb.Query_PeerQuery:
		if err := s.directory.announced(ctx, ch, id); err != nil {
			s.log.Warn("a peer that asks shows itself wrongly", "channel", id, "error", err)
		}
		return s.peers(ch, id, query.PeerQuery.GetFilter())
	case *discoverypb.Query_ConfigQuery:
		result, err := configOf(ch.Bundle())
		if err != nil {
			s.log.Error("cannot tell a channel's configuration", "channel", id, "error", err)
			return nil, fmt.Errorf("failed fetching config for channel %s", id)
		}
		return &discoverypb.QueryResult{Result: &discoverypb.QueryResult_ConfigResult{ConfigResult: result}}, nil
	case *discoverypb.Query_CcQuery:
		return s.endorsers(ch, id, query.CcQuery.GetInterests())
	}
	return nil, errUnknownQuery
}

var errUnknownQuery = errors.New("unknown or missing request type")

func (s *Service) peers(ch Channel, id string, filter *peerpb.ChaincodeInterest) (*discoverypb.QueryResult, error) {
	members := s.directory.Members(id)
	if len(filter.GetChaincodes()) > 0 {
		able, err := abilities(ch, filter)
		if err != nil {
			return nil, err
		}
		members = able.of(members)
	}
	return peersResult(members), nil
}

func peersResult(members []*Member) *discoverypb.QueryResult {
	byOrg := map[string]*discoverypb.Peers{}
	for _, m := range members {
		if m.message == nil {
			continue // an anchor peer never heard of
		}
		if byOrg[m.MSPID] == nil {
			byOrg[m.MSPID] = &discoverypb.Peers{}
		}
		byOrg[m.MSPID].Peers = append(byOrg[m.MSPID].Peers, m.message)
	}
	return &discoverypb.QueryResult{Result: &discoverypb.QueryResult_Members{Members: &discoverypb.PeerMembershipResult{PeersByOrg: byOrg}}}
}

// everyone lists the peers of all channels, without their state.
func (d *Directory) everyone() []*Member {
	var all []*Member
	listed := map[string]bool{}
	for _, id := range d.config.Channels() {
		for _, m := range d.Members(id) {
			if m.message != nil && !listed[m.pkiID] {
				listed[m.pkiID] = true
				m.message = &discoverypb.Peer{Identity: m.message.Identity, MembershipInfo: m.message.MembershipInfo}
				all = append(all, m)
			}
		}
	}
	return all
}

func (s *Service) endorsers(ch Channel, id string, interests []*peerpb.ChaincodeInterest) (*discoverypb.QueryResult, error) {
	if len(interests) == 0 {
		return nil, errors.New("chaincode query must have at least one chaincode interest")
	}
	for _, interest := range interests {
		if len(interest.GetChaincodes()) == 0 {
			return nil, errors.New("chaincode interest must contain at least one chaincode")
		}
		for _, c := range interest.Chaincodes {
			if c.GetName() == "" {
				return nil, errors.New("chaincode name in interest cannot be empty")
			}
		}
	}
	members := s.directory.Members(id)
	result := &discoverypb.ChaincodeQueryResult{}
	for _, interest := range interests {
		descriptor, err := describe(ch, members, interest)
		if err != nil {
			s.log.Warn("an interest cannot be endorsed", "channel", id, "interest", interest, "error", err)
			return nil, fmt.Errorf("failed constructing descriptor for %v", interest)
		}
		result.Content = append(result.Content, descriptor)
	}
	return &discoverypb.QueryResult{Result: &discoverypb.QueryResult_CcQueryRes{CcQueryRes: result}}, nil
}

// configOf is what clients need of a configuration: the members' MSPs and the orderers.
func configOf(b *channel.Bundle) (*discoverypb.ConfigResult, error) {
	result := &discoverypb.ConfigResult{Msps: map[string]*msppb.FabricMSPConfig{}, Orderers: map[string]*discoverypb.Endpoints{}}
	root := b.Config().GetChannelGroup()
	for _, group := range []*commonpb.ConfigGroup{root.GetGroups()["Orderer"], root.GetGroups()["Application"]} {
		for name, org := range group.GetGroups() {
			outer, inner := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}
			if err := proto.Unmarshal(org.GetValues()["MSP"].GetValue(), outer); err != nil {
				return nil, fmt.Errorf("MSP of %s: %w", name, err)
			}
			if err := proto.Unmarshal(outer.Config, inner); err != nil {
				return nil, fmt.Errorf("MSP of %s: %w", name, err)
			}
			result.Msps[inner.Name] = inner
		}
	}
	for _, org := range b.OrdererOrgs() {
		result.Orderers[org.MSPID] = &discoverypb.Endpoints{}
	}
	for _, e := range b.OrdererEndpoints() {
		host, text, err := net.SplitHostPort(e.Address)
		port, wrong := strconv.ParseUint(text, 10, 16)
		if err != nil || wrong != nil {
			continue // clients could not use it either
		}
		endpoint := &discoverypb.Endpoint{Host: host, Port: uint32(port)}
		if e.MSPID != "" {
			result.Orderers[e.MSPID].Endpoint = append(result.Orderers[e.MSPID].Endpoint, endpoint)
			continue
		}
		for _, all := range result.Orderers { // channel-wide addresses are anyone's
			all.Endpoint = append(all.Endpoint, endpoint)
		}
	}
	return result, nil
}
