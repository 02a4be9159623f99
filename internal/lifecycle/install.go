package lifecycle

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
)

func (c *call) install(in *lifecyclepb.InstallChaincodeArgs) (proto.Message, error) {
	var prepare func(*contractpackage.Package) error
	if c.cfg.Prepare != nil {
		prepare = func(p *contractpackage.Package) error { return c.cfg.Prepare(c.ctx, p) }
	}
	pkg, err := c.cfg.Packages.Install(in.ChaincodeInstallPackage, prepare)
	if err != nil {
		return nil, err
	}
	if c.cfg.Installed != nil {
		c.cfg.Installed()
	}
	return &lifecyclepb.InstallChaincodeResult{PackageId: pkg.ID, Label: pkg.Label}, nil
}

func (c *call) getPackage(in *lifecyclepb.GetInstalledChaincodePackageArgs) (proto.Message, error) {
	raw, err := c.cfg.Packages.Load(in.PackageId)
	if err != nil {
		return nil, fmt.Errorf("could not load cc install package: %w", err)
	}
	return &lifecyclepb.GetInstalledChaincodePackageResult{ChaincodeInstallPackage: raw}, nil
}

// reference is a definition on a channel that runs an installed package.
type reference struct{ channel, name, version string }

// references finds what runs each of the installed packages.
func (c *call) references() (map[string][]reference, error) {
	found := map[string][]reference{}
	if c.cfg.Snapshots == nil {
		return found, nil
	}
	err := c.cfg.Snapshots(func(channelID string, s simulation.Snapshot) error {
		contracts, err := c.cfg.Catalog.List(channelID, s)
		for _, d := range contracts {
			if d.PackageID != "" {
				found[d.PackageID] = append(found[d.PackageID], reference{channelID, d.Name, d.Endorsement.Version})
			}
		}
		return err
	})
	return found, err
}

func (c *call) queryInstalled(in *lifecyclepb.QueryInstalledChaincodeArgs) (proto.Message, error) {
	if !c.cfg.Packages.Has(in.PackageId) {
		return nil, fmt.Errorf("could not find chaincode with package id '%s'", in.PackageId)
	}
	references, err := c.references()
	if err != nil {
		return nil, err
	}
	label, _, _ := contractpackage.SplitID(in.PackageId)
	result := &lifecyclepb.QueryInstalledChaincodeResult{PackageId: in.PackageId, Label: label, References: map[string]*lifecyclepb.QueryInstalledChaincodeResult_References{}}
	for _, r := range references[in.PackageId] {
		at := result.References[r.channel]
		if at == nil {
			at = &lifecyclepb.QueryInstalledChaincodeResult_References{}
			result.References[r.channel] = at
		}
		at.Chaincodes = append(at.Chaincodes, &lifecyclepb.QueryInstalledChaincodeResult_Chaincode{Name: r.name, Version: r.version})
	}
	return result, nil
}

func (c *call) listInstalled(*lifecyclepb.QueryInstalledChaincodesArgs) (proto.Message, error) {
	references, err := c.references()
	if err != nil {
		return nil, err
	}
	result := &lifecyclepb.QueryInstalledChaincodesResult{}
	for _, id := range slices.Sorted(slices.Values(c.cfg.Packages.List())) {
		label, _, _ := contractpackage.SplitID(id)
		one := &lifecyclepb.QueryInstalledChaincodesResult_InstalledChaincode{PackageId: id, Label: label, References: map[string]*lifecyclepb.QueryInstalledChaincodesResult_References{}}
		for _, r := range references[id] {
			at := one.References[r.channel]
			if at == nil {
				at = &lifecyclepb.QueryInstalledChaincodesResult_References{}
				one.References[r.channel] = at
			}
			at.Chaincodes = append(at.Chaincodes, &lifecyclepb.QueryInstalledChaincodesResult_Chaincode{Name: r.name, Version: r.version})
		}
		result.InstalledChaincodes = append(result.InstalledChaincodes, one)
	}
	return result, nil
}
