package node

import (
	"crypto/tls"
	"testing"

	"google.golang.org/grpc/connectivity"

	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
)

// One address may be dialled with several roots, none of which cuts the others' connection.
func TestDialWithSeveralRoots(t *testing.T) {
	c := newConnections(tls.Certificate{})
	defer c.close()
	roots := [][]byte{identitytest.NewOrg(t, "AlphaMSP").PEM, identitytest.NewOrg(t, "BetaMSP").PEM}
	alpha, err := c.Dial("peer.example.com:7051", roots[:1])
	if err != nil {
		t.Fatal(err)
	}
	beta, err := c.Dial("peer.example.com:7051", roots[1:])
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Dial("peer.example.com:7051", roots[:1])
	if err != nil {
		t.Fatal(err)
	}
	if alpha == beta || again != alpha || alpha.GetState() == connectivity.Shutdown {
		t.Errorf("connections %p (%v), %p and %p", alpha, alpha.GetState(), beta, again)
	}
	if _, err := c.Dial("peer.example.com:7051", nil); err == nil {
		t.Error("dialled without roots")
	}
}
