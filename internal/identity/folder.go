package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// folderConfig is the config.yaml of an MSP folder; Fabric defines its keys.
type folderConfig struct {
	OrganizationalUnitIdentifiers []folderUnit `yaml:"OrganizationalUnitIdentifiers"`
	NodeOUs                       *struct {
		Enable              bool        `yaml:"Enable"`
		ClientOUIdentifier  *folderUnit `yaml:"ClientOUIdentifier"`
		PeerOUIdentifier    *folderUnit `yaml:"PeerOUIdentifier"`
		AdminOUIdentifier   *folderUnit `yaml:"AdminOUIdentifier"`
		OrdererOUIdentifier *folderUnit `yaml:"OrdererOUIdentifier"`
	} `yaml:"NodeOUs"`
}

type folderUnit struct {
	Certificate                  string `yaml:"Certificate"` // file of a CA, relative to the folder
	OrganizationalUnitIdentifier string `yaml:"OrganizationalUnitIdentifier"`
}

// ConfigFromDir reads the verifying half of an MSP folder (cacerts, intermediatecerts, admincerts, crls, tlscacerts,
// tlsintermediatecerts, config.yaml) as a configuration for NewMSP or a channel. Keys are not touched: see LoadSigner.
func ConfigFromDir(dir, mspID string) (*msppb.MSPConfig, error) {
	conf := &msppb.FabricMSPConfig{
		Name:         mspID,
		CryptoConfig: &msppb.FabricCryptoConfig{SignatureHashFamily: "SHA2", IdentityIdentifierHashFunction: "SHA256"},
	}
	for _, part := range []struct {
		folder string
		into   *[][]byte
	}{
		{"cacerts", &conf.RootCerts}, {"intermediatecerts", &conf.IntermediateCerts}, {"admincerts", &conf.Admins},
		{"crls", &conf.RevocationList}, {"tlscacerts", &conf.TlsRootCerts}, {"tlsintermediatecerts", &conf.TlsIntermediateCerts},
	} {
		pems, err := pemFiles(filepath.Join(dir, part.folder))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read MSP folder of %s: %w", mspID, err)
		}
		*part.into = pems
	}
	if len(conf.RootCerts) == 0 {
		return nil, fmt.Errorf("no ca certificate found in directory %s: an MSP folder needs at least one root certificate there", filepath.Join(dir, "cacerts"))
	}
	if len(conf.TlsRootCerts) == 0 {
		conf.TlsIntermediateCerts = nil // without roots they certify nothing
	}
	if err := readUnits(dir, conf); err != nil {
		return nil, err
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(conf)
	if err != nil {
		return nil, fmt.Errorf("encode MSP of folder %s: %w", dir, err)
	}
	return &msppb.MSPConfig{Type: 0, Config: raw}, nil
}

func readUnits(dir string, conf *msppb.FabricMSPConfig) error {
	file := filepath.Join(dir, "config.yaml")
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("failed loading configuration file at [%s]: %w", file, err)
	}
	var c folderConfig
	if err := yaml.Unmarshal(raw, &c); err != nil {
		return fmt.Errorf("failed unmarshalling configuration file at [%s]: %w", file, err)
	}
	for _, u := range c.OrganizationalUnitIdentifiers {
		cert, err := os.ReadFile(filepath.Join(dir, u.Certificate))
		if err != nil {
			return fmt.Errorf("failed loading OrganizationalUnit certificate: %w", err)
		}
		conf.OrganizationalUnitIdentifiers = append(conf.OrganizationalUnitIdentifiers,
			&msppb.FabricOUIdentifier{Certificate: cert, OrganizationalUnitIdentifier: u.OrganizationalUnitIdentifier})
	}
	if c.NodeOUs == nil || !c.NodeOUs.Enable {
		return nil
	}
	conf.FabricNodeOus = &msppb.FabricNodeOUs{Enable: true}
	for _, one := range []struct {
		from *folderUnit
		to   **msppb.FabricOUIdentifier
	}{
		{c.NodeOUs.ClientOUIdentifier, &conf.FabricNodeOus.ClientOuIdentifier},
		{c.NodeOUs.PeerOUIdentifier, &conf.FabricNodeOus.PeerOuIdentifier},
		{c.NodeOUs.AdminOUIdentifier, &conf.FabricNodeOus.AdminOuIdentifier},
		{c.NodeOUs.OrdererOUIdentifier, &conf.FabricNodeOus.OrdererOuIdentifier},
	} {
		if one.from == nil || one.from.OrganizationalUnitIdentifier == "" {
			continue
		}
		u := &msppb.FabricOUIdentifier{OrganizationalUnitIdentifier: one.from.OrganizationalUnitIdentifier}
		if one.from.Certificate != "" {
			// Fabric goes on without the certificate when it cannot be read, which would drop a restriction silently.
			cert, err := os.ReadFile(filepath.Join(dir, one.from.Certificate))
			if err != nil {
				return fmt.Errorf("certificate of node OU %s: %w", u.OrganizationalUnitIdentifier, err)
			}
			u.Certificate = cert
		}
		*one.to = u
	}
	return nil
}
