package provision

import "context"

// What tests look at without running a network.

// Make writes the files of a new network.
func (n *Network) Make(ctx context.Context) error { return n.make(ctx) }

// Addresses are all that the nodes will listen on.
func (n *Network) Addresses() []string { return n.addresses() }

// Kind tells a Go contract from a Node one.
var Kind = kindOf

// Build makes a contract ready to run.
var Build = build

// PackageService packages a contract that runs as a service.
func PackageService(source, label, address string) (id string, raw []byte, err error) {
	p, err := packageService(source, label, address)
	if err != nil {
		return "", nil, err
	}
	return p.ID, p.Raw, nil
}
