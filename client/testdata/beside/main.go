// A program that uses the client beside messages under Hyperledger's names, as a
// program does that imports Hyperledger's own modules too.
package main

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/hansa-ledger/hansa/client"
)

// names are messages of each package.
var names = map[string]string{
	"common": "Envelope Block Payload Header ChannelHeader SignatureHeader Config ConfigUpdate Policy Metadata",
	"msp":    "SerializedIdentity MSPPrincipal MSPRole FabricMSPConfig MSPConfig", "orderer": "BroadcastResponse DeliverResponse SeekInfo SeekPosition",
	"etcdraft": "ConfigMetadata", "protos": "SignedProposal Proposal ProposalResponse Transaction ChaincodeAction Endorsement",
	"gateway": "EndorseRequest EndorseResponse SubmitRequest ErrorDetail CommitStatusRequest", "discovery": "SignedRequest Request Response",
	"gossip": "Envelope GossipMessage", "rwset": "TxReadWriteSet", "kvrwset": "KVRWSet KVRead", "queryresult": "KV", "lifecycle": "InstallChaincodeArgs", "smartbft": "ConfigMetadata",
}

func init() {
	for pkg, messages := range names {
		file := &descriptorpb.FileDescriptorProto{Name: proto.String(pkg + "/" + pkg + ".proto"), Package: proto.String(pkg), Syntax: proto.String("proto3")}
		for _, m := range strings.Fields(messages) {
			file.MessageType = append(file.MessageType, &descriptorpb.DescriptorProto{Name: proto.String(m)})
		}
		d, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
		if err == nil {
			err = protoregistry.GlobalFiles.RegisterFile(d)
		}
		for i := 0; err == nil && i < d.Messages().Len(); i++ {
			err = protoregistry.GlobalTypes.RegisterMessage(dynamicpb.NewMessageType(d.Messages().Get(i)))
		}
		if err != nil {
			panic(err)
		}
	}
}

func main() {
	if _, err := client.Dial(client.Config{}); err == nil {
		panic("a client without an identity")
	}
	fmt.Println(len(names), "packages of the same names")
}
