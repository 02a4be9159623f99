package gossip

import "github.com/hansa-ledger/hansa/internal/wire/gossippb"

// Handle takes a message as if it came on a link with a peer.
func (s *Service) Handle(mspID string, pkiID []byte, e *gossippb.Envelope) error {
	return s.handle(newLink(pkiID, nil, mspID), e)
}
