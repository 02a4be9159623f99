package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hansa-ledger/hansa/client"
)

// member is one member's user, connected to the member's own peer.
type member struct {
	*client.Client
	mspID    string
	contract *client.Contract
}

// profile is what this application needs of a connection profile: the file that a
// network gives to each member's applications.
type profile struct {
	Organizations map[string]struct {
		MSPID string   `json:"mspid"`
		Peers []string `json:"peers"`
	} `json:"organizations"`
	Peers map[string]struct {
		URL        string `json:"url"`
		TLSCACerts struct {
			PEM string `json:"pem"`
		} `json:"tlsCACerts"`
		Options struct {
			Hostname string `json:"ssl-target-name-override"`
		} `json:"grpcOptions"`
	} `json:"peers"`
}

func connect(c config, name string) (*member, error) {
	file := filepath.Join(c.data, "members", name, "connection.json")
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w (is -data the folder that `hansa up` made?)", name, err)
	}
	var p profile
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	org := p.Organizations[name]
	if len(org.Peers) == 0 {
		return nil, fmt.Errorf("%s names no peer of %s", file, name)
	}
	peer := p.Peers[org.Peers[0]]
	// Identities are laid out as Fabric's cryptogen does.
	users, err := filepath.Glob(filepath.Join(c.data, "crypto", "peerOrganizations", name+".*", "users", "User1@*", "msp"))
	if err != nil || len(users) == 0 {
		return nil, fmt.Errorf("there is no User1 of %s in %s", name, filepath.Join(c.data, "crypto"))
	}
	id, err := client.LoadIdentity(org.MSPID, users[0])
	if err != nil {
		return nil, err
	}
	conn, err := client.Dial(client.Config{
		Endpoint: strings.TrimPrefix(peer.URL, "grpcs://"), Identity: id, TLSRoots: []byte(peer.TLSCACerts.PEM), ServerName: peer.Options.Hostname,
	})
	if err != nil {
		return nil, err
	}
	return &member{conn, org.MSPID, conn.Channel(c.channel).Contract(c.contract)}, nil
}
