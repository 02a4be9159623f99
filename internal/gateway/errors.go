package gateway

import (
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// detailType is the type URL under which the SDKs look for error details; our
// message is registered under another name.
const detailType = "type.googleapis.com/gateway.ErrorDetail"

// maxDetails bounds the details of one error: they travel in gRPC trailers,
// which clients limit.
const maxDetails = 32

// maxDetailText bounds the text of one detail.
const maxDetailText = 4096

// fail makes a gRPC error with one detail for each endpoint that failed.
func fail(code codes.Code, message string, details ...*gatewaypb.ErrorDetail) error {
	s := &status.Status{Code: int32(code), Message: message}
	for _, d := range details[:min(len(details), maxDetails)] {
		if value, err := proto.Marshal(d); err == nil {
			s.Details = append(s.Details, &anypb.Any{TypeUrl: detailType, Value: value})
		}
	}
	return grpcstatus.ErrorProto(s)
}

func detail(address, mspID, message string) *gatewaypb.ErrorDetail {
	if len(message) > maxDetailText {
		message = strings.ToValidUTF8(message[:maxDetailText], "") + "..."
	}
	return &gatewaypb.ErrorDetail{Address: address, MspId: mspID, Message: message}
}

// verdict says what an endorser's answer means.
type verdict struct {
	code    codes.Code // OK for an endorsement
	message string
	// retry says that another peer may do better.
	retry bool
	// unreachable says that the call did not arrive.
	unreachable bool
}

// streamTerminated ends the message of a peer whose contract process died.
const streamTerminated = "chaincode stream terminated"

func judge(response *peerpb.ProposalResponse, err error) verdict {
	if err != nil {
		if response == nil {
			return verdict{codes.Unavailable, err.Error(), true, true}
		}
		// The peer refused the proposal itself: a fault of the client, the same at every peer.
		return verdict{code: codes.FailedPrecondition, message: err.Error()}
	}
	r := response.GetResponse()
	if r.GetStatus() >= 200 && r.GetStatus() < 400 {
		return verdict{}
	}
	if response.Payload == nil && r.GetStatus() == 500 {
		return verdict{codes.Aborted, r.GetMessage(), true, strings.HasSuffix(r.GetMessage(), streamTerminated)}
	}
	return verdict{code: codes.Unknown, message: fmt.Sprintf("chaincode response %d, %s", r.GetStatus(), r.GetMessage())}
}
