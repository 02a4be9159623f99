package provision

import (
	"os"
	"path/filepath"

	"github.com/hansa-ledger/hansa/internal/ca/msptree"
)

// Administrator is somebody who may decide on the channel for a member, and whose
// key is in the network's folder.
type Administrator struct {
	Name   string // of the member, as in the channel's configuration
	MSPID  string
	MSPDir string
}

// Administrators are those of the members, and of the ordering service last.
func (n *Network) Administrators() (all []Administrator) {
	add := func(name, mspID string, org msptree.Org) {
		dir := org.User(msptree.Admin).MSP()
		if _, err := os.Stat(filepath.Join(dir, "keystore")); err == nil {
			all = append(all, Administrator{name, mspID, dir})
		}
	}
	for _, m := range n.Members {
		add(m.Name, m.MSPID, n.org(m))
	}
	add(ordererOrg, ordererMSPID, n.orderers())
	return all
}

// OrdererTLSRoots is the PEM file of the CA that orderers have their TLS certificates from.
func (n *Network) OrdererTLSRoots() string { return n.orderers().TLSRoot() }
