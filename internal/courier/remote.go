package courier

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
)

const (
	// maxAnswer bounds the write sets in an answer; a single larger one is given alone.
	maxAnswer = 32 << 20
	// maxMessage bounds messages, as between peers in general.
	maxMessage = 100 << 20
	// maxWanted bounds the write sets that are asked for at once.
	maxWanted = 1000
)

// sender heads the requests of this peer.
func (c *Courier) sender(channelID string) *privatedatapb.Sender {
	return &privatedatapb.Sender{ChannelId: channelID, Identity: c.config.Signer.Serialize(), TlsCertificateHash: c.tlsHash}
}

// signedBytes are what the signature of a request is over: nothing else that a peer signs begins like this.
func signedBytes(method string, request []byte) []byte {
	return append(append(append(make([]byte, 0, len(method)+1+len(request)), method...), 0), request...)
}

func sign(signer envelope.Signer, method string, request proto.Message) (*privatedatapb.SignedRequest, error) {
	raw, err := proto.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	signature, err := signer.Sign(signedBytes(method, raw))
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	return &privatedatapb.SignedRequest{Request: raw, Signature: signature}, nil
}

// push brings write sets of a transaction to a peer and tells which of them it keeps.
func (c *Courier) push(ctx context.Context, data *endorse.PrivateData, p Peer, sets []*privatedatapb.WriteSet) ([]bool, error) {
	if p.Link != nil {
		return c.pushByGossip(ctx, data, p, sets)
	}
	request, err := sign(c.config.Signer, privatedatapb.PrivateData_Push_FullMethodName,
		&privatedatapb.PushRequest{Sender: c.sender(data.ChannelID), TransactionId: data.TxID, Height: data.EndorsedAt, WriteSets: sets})
	if err != nil {
		return nil, err
	}
	response, err := privatedatapb.NewPrivateDataClient(p.Conn).Push(ctx, request)
	c.note(p, err)
	if err != nil {
		return nil, err
	}
	if len(response.Kept) != len(sets) {
		return nil, fmt.Errorf("%d write sets were sent, and the answer is about %d", len(sets), len(response.Kept))
	}
	return response.Kept, nil
}

// pull asks a peer for write sets; what it does not give is nil.
func (c *Courier) pull(ctx context.Context, channelID string, p Peer, wanted []Wanted) ([][]byte, error) {
	if p.Link != nil {
		return c.pullByGossip(ctx, channelID, p, wanted)
	}
	got := make([][]byte, len(wanted))
	// The answer may have room for a part only, so it is asked again for the rest, as long as there comes any.
	for more := true; more; {
		more = false
		request := &privatedatapb.PullRequest{Sender: c.sender(channelID)}
		var places []int
		for i, w := range wanted {
			if got[i] == nil && len(places) < maxWanted {
				places = append(places, i)
				request.Wanted = append(request.Wanted, &privatedatapb.Wanted{Block: w.Block, Transaction: w.Tx, TransactionId: w.TxID,
					Namespace: w.Namespace, Collection: w.Collection, Hash: w.Hash})
			}
		}
		if len(places) == 0 {
			break
		}
		signed, err := sign(c.config.Signer, privatedatapb.PrivateData_Pull_FullMethodName, request)
		if err != nil {
			return nil, err
		}
		response, err := privatedatapb.NewPrivateDataClient(p.Conn).Pull(ctx, signed, grpc.MaxCallRecvMsgSize(maxMessage))
		c.note(p, err)
		if err != nil {
			return got, err
		}
		size := 0
		for _, a := range response.Answers {
			if int(a.Wanted) >= len(places) {
				return got, errors.New("the answer names something that was not asked for")
			}
			if got[places[a.Wanted]] == nil {
				got[places[a.Wanted]] = append([]byte{}, a.Rwset...)
				size += len(a.Rwset)
			}
		}
		more = size > 0 && len(response.Answers) < len(places) && size*2 >= maxAnswer
	}
	return got, nil
}

// unreachable says whether a call did not come to the peer or back, for no fault of the request.
func unreachable(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Unimplemented:
		return true
	}
	return false
}
