package hansa_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/hansa-ledger/hansa/client"
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
