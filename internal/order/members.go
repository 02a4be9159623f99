package order

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// Consenters have numbers in raft, which the notes in each block's metadata give in the order of the config. Everything
// here is a function of configs and notes, so that all nodes note the same.

// membership decodes who the consenters are and which of them this node is. A renewed certificate keeps its key.
func membership(b *channel.Bundle, own []byte) (*etcdraftpb.ConfigMetadata, int, error) {
	meta, err := b.RaftMetadata()
	if err != nil {
		return nil, 0, err
	}
	mine, err := publicKey(own)
	if err != nil {
		return nil, 0, fmt.Errorf("this node's TLS certificate: %w", err)
	}
	for i, consenter := range meta.Consenters {
		for _, cert := range [][]byte{consenter.ServerTlsCert, consenter.ClientTlsCert} {
			if key, err := publicKey(cert); err == nil && bytes.Equal(key, mine) {
				return meta, i, nil
			}
		}
	}
	return nil, 0, errNotConsenter
}

func publicKey(certPEM []byte) ([]byte, error) {
	p, _ := pem.Decode(certPEM)
	if p == nil {
		return nil, errors.New("no PEM block")
	}
	cert, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		return nil, err
	}
	return cert.RawSubjectPublicKeyInfo, nil
}

// firstNotes are the notes under a config: those of the newest block, or the first ones if that carries none.
func firstNotes(stored *etcdraftpb.BlockMetadata, meta *etcdraftpb.ConfigMetadata) (*etcdraftpb.BlockMetadata, error) {
	notes := proto.CloneOf(stored)
	if len(notes.ConsenterIds) == 0 {
		for i := range meta.Consenters {
			notes.ConsenterIds = append(notes.ConsenterIds, uint64(i+1))
		}
		notes.NextConsenterId = uint64(len(meta.Consenters) + 1)
	}
	if len(notes.ConsenterIds) != len(meta.Consenters) {
		return nil, fmt.Errorf("the config has %d consenters, and the newest block was made by %d", len(meta.Consenters), len(notes.ConsenterIds))
	}
	return notes, nil
}

// change is what a config does to the consenters: at most one is added, removed, or replaced (added and removed), which
// raft does not notice since the new one takes the number of the old.
type change struct {
	notes   *etcdraftpb.BlockMetadata // from the config's block on
	added   uint64                    // 0 if none
	removed uint64
	rotated uint64
}

// changeOf compares configs as Fabric does: a consenter is known by its client certificate.
func changeOf(notes *etcdraftpb.BlockMetadata, before, after *etcdraftpb.ConfigMetadata) (change, error) {
	ids := map[string]uint64{}
	for i, c := range before.Consenters {
		ids[string(c.ClientTlsCert)] = notes.ConsenterIds[i]
	}
	ch := change{notes: proto.CloneOf(notes)}
	ch.notes.ConsenterIds = make([]uint64, len(after.Consenters))
	added := -1
	for i, c := range after.Consenters {
		id, ok := ids[string(c.ClientTlsCert)]
		if ok {
			ch.notes.ConsenterIds[i] = id
			delete(ids, string(c.ClientTlsCert))
			continue
		}
		if added >= 0 {
			return change{}, errors.New("the config adds more than one consenter")
		}
		added = i
	}
	if len(ids) > 1 {
		return change{}, errors.New("the config removes more than one consenter")
	}
	for _, id := range ids {
		ch.removed = id
	}
	switch {
	case added >= 0 && ch.removed != 0:
		ch.rotated, ch.removed = ch.removed, 0
		ch.notes.ConsenterIds[added] = ch.rotated
	case added >= 0:
		ch.added = ch.notes.NextConsenterId
		ch.notes.ConsenterIds[added] = ch.added
		ch.notes.NextConsenterId++
	}
	return ch, nil
}

// losesQuorum says whether a change would stop the service although it need not, with only some consenters alive: Fabric's
// rule. A cluster too small to bear any fault may grow.
func (ch *change) losesQuorum(alive []uint64) bool {
	size := len(ch.notes.ConsenterIds)
	left := len(alive)
	switch gone := ch.removed + ch.rotated; {
	case ch.added != 0:
		return size > 2 && left < size/2+1
	case gone == 0:
		return false
	default:
		if slices.Contains(alive, gone) {
			left--
		}
		return (ch.removed != 0 || size > 2) && left < size/2+1
	}
}

// clusterMembers are the consenters as the connections between them need them.
func clusterMembers(notes *etcdraftpb.BlockMetadata, meta *etcdraftpb.ConfigMetadata) (map[uint64]cluster.Member, error) {
	members := map[uint64]cluster.Member{}
	for i, c := range meta.Consenters {
		server, err := publicKey(c.ServerTlsCert)
		if err != nil {
			return nil, fmt.Errorf("server TLS certificate of consenter %s:%d: %w", c.Host, c.Port, err)
		}
		client, err := publicKey(c.ClientTlsCert)
		if err != nil {
			return nil, fmt.Errorf("client TLS certificate of consenter %s:%d: %w", c.Host, c.Port, err)
		}
		id := notes.ConsenterIds[i]
		members[id] = cluster.Member{ID: id, Address: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), ServerKey: server, ClientKey: client}
	}
	return members, nil
}
