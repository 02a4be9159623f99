package hansa_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	_ "github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	_ "github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	_ "github.com/hansa-ledger/hansa/internal/wire/gossippb"
	_ "github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	_ "github.com/hansa-ledger/hansa/internal/wire/smartbftpb"
)

// A program may link Hansa's client beside Hyperledger's modules: a protobuf
// name that both register would stop it at its start. Ours are all under hansa.
func TestRegisteredNamesAreOurOwn(t *testing.T) {
	count := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(f.Path(), "google/") || strings.HasPrefix(f.Path(), "grpc/") { // the libraries' own
			return true
		}
		if !strings.HasPrefix(string(f.Package()), "hansa.") || !strings.HasPrefix(f.Path(), "hansa/") {
			t.Errorf("%s registers package %s", f.Path(), f.Package())
		}
		count++
		return true
	})
	if count < 10 {
		t.Errorf("only %d files are registered: this test does not see them", count)
	}
}

// A second module registers Fabric's names in this very program, and what it
// encodes is what ours decode.
func TestFabricsNamesAreFree(t *testing.T) {
	bytes, str := descriptorpb.FieldDescriptorProto_TYPE_BYTES, "proto3"
	field := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: &bytes, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), JsonName: &name}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("common/common.proto"), Package: proto.String("common"), Syntax: &str,
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Envelope"), Field: []*descriptorpb.FieldDescriptorProto{field("payload", 1), field("signature", 2)}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
	theirs := dynamicpb.NewMessageType(file.Messages().Get(0))
	if err := protoregistry.GlobalTypes.RegisterMessage(theirs); err != nil {
		t.Fatal(err)
	}
	m := theirs.New()
	m.Set(file.Messages().Get(0).Fields().ByNumber(1), protoreflect.ValueOfBytes([]byte("payload")))
	raw, err := proto.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	var ours commonpb.Envelope
	if err := proto.Unmarshal(raw, &ours); err != nil || string(ours.Payload) != "payload" {
		t.Errorf("%v, %v", &ours, err)
	}
}

// On the wire the services have Fabric's names, which its clients call.
func TestServicesHaveFabricsNames(t *testing.T) {
	for want, service := range map[string]grpc.ServiceDesc{
		"gateway.Gateway":         gatewaypb.Gateway_ServiceDesc,
		"orderer.AtomicBroadcast": ordererpb.AtomicBroadcast_ServiceDesc,
		"protos.Endorser":         peerpb.Endorser_ServiceDesc,
		"protos.Deliver":          peerpb.Deliver_ServiceDesc,
		"protos.Chaincode":        peerpb.Chaincode_ServiceDesc,
		"protos.ChaincodeSupport": peerpb.ChaincodeSupport_ServiceDesc,
	} {
		if service.ServiceName != want {
			t.Errorf("a service is called %s, Fabric calls it %s", service.ServiceName, want)
		}
	}
}
