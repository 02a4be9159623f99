// Package snapshotfile reads and writes the folder that a snapshot of a channel's ledger is: Hyperledger Fabric's own
// file format, byte for byte, so that peers of both kinds join a channel from each other's snapshots.
//
//	public_state.*           the public state, by namespace and key
//	private_state_hashes.*   the hashes of the private state
//	txids.*                  the identifiers of all transactions, which no later transaction may use
//	confighistory.*          the collections of contracts, as each block changed them
//	_snapshot_signable_metadata.json     channel, last block, and the hash of every file above
//	_snapshot_additional_metadata.json   the hash of the former, and the commit hash of the last block
//
// A .data file is a format byte and records, each behind its length; the .metadata file beside it says how many. A pair
// without records is left out.
//
// Writer makes a folder durable before Finish returns. Read and Copy take a folder for what it is, bytes of a
// stranger: only the files named above are touched, every hash is compared, lengths are checked against what is there
// before memory is taken for them, and what is wrong is said with the name of the file.
//
// It leaves out what the records mean to a ledger (package ledger), and when snapshots are made (package snapshots).
// Open this file for the names and the metadata, then write.go and read.go.
package snapshotfile

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// Names of the files.
const (
	PublicData         = "public_state.data"
	PublicMetadata     = "public_state.metadata"
	HashedData         = "private_state_hashes.data"
	HashedMetadata     = "private_state_hashes.metadata"
	TxIDData           = "txids.data"
	TxIDMetadata       = "txids.metadata"
	ConfigData         = "confighistory.data"
	ConfigMetadata     = "confighistory.metadata"
	SignableMetadata   = "_snapshot_signable_metadata.json"
	AdditionalMetadata = "_snapshot_additional_metadata.json"
)

// Bounds of what is read: each of the two metadata files in JSON, and one record. No value of a state is larger than a
// block, which is far below.
const (
	MaxMetadataBytes = 1 << 20
	MaxRecordBytes   = 1 << 30
)

// stateDBType is what Fabric writes for its built-in database; the records are the same for any.
const stateDBType = "SimpleKeyValueDB"

const format = 1

// Metadata says what a snapshot is of.
type Metadata struct {
	ChannelID string
	// LastBlock is the number of the newest block in the snapshot.
	LastBlock                    uint64
	LastBlockHash, PreviousHash  []byte
	LastCommitHash, SnapshotHash []byte // the commit hash is empty after a genesis block
	StateDBType                  string
	Files                        map[string][]byte // hash by name
}

type signable struct {
	ChannelName            string            `json:"channel_name"`
	LastBlockNumber        uint64            `json:"last_block_number"`
	LastBlockHashInHex     string            `json:"last_block_hash"`
	PreviousBlockHashInHex string            `json:"previous_block_hash"`
	FilesAndHashes         map[string]string `json:"snapshot_files_raw_hashes"`
	StateDBType            string            `json:"state_db_type"`
}

type additional struct {
	SnapshotHashInHex        string `json:"snapshot_hash"`
	LastBlockCommitHashInHex string `json:"last_block_commit_hash"`
}

// Record is one key of the state. Key is the key's hash in a hashed collection.
type Record struct {
	Key, Value, Metadata []byte
	Version              rwset.Version
}

// pairs are the data files with their metadata files.
func pairs() [][2]string {
	return [][2]string{{PublicData, PublicMetadata}, {HashedData, HashedMetadata}, {TxIDData, TxIDMetadata}, {ConfigData, ConfigMetadata}}
}

// readFile reads a small file whole.
func readFile(fs vfs.FS, path, name string, limit int64) ([]byte, error) {
	f, size, err := openRegular(fs, path, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s: it has %d bytes, at most %d are read", name, size, limit)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// openRegular opens what is a file and nothing else: a pipe or device would hold the reader up.
func openRegular(fs vfs.FS, path, name string) (vfs.File, int64, error) {
	info, err := fs.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("open %s: it is no regular file", name)
	}
	f, err := fs.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", name, err)
	}
	return f, info.Size(), nil
}

// ReadMetadata reads what a snapshot is of, and checks that the two files of metadata belong together. The other files
// are not looked at.
func ReadMetadata(fs vfs.FS, dir string) (*Metadata, error) {
	raw, err := readFile(fs, fs.PathJoin(dir, SignableMetadata), SignableMetadata, MaxMetadataBytes)
	if err != nil {
		return nil, err
	}
	more, err := readFile(fs, fs.PathJoin(dir, AdditionalMetadata), AdditionalMetadata, MaxMetadataBytes)
	if err != nil {
		return nil, err
	}
	return decodeMetadata(raw, more)
}

func decodeMetadata(raw, more []byte) (*Metadata, error) {
	var s signable
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", SignableMetadata, err)
	}
	var a additional
	if err := json.Unmarshal(more, &a); err != nil {
		return nil, fmt.Errorf("%s: %w", AdditionalMetadata, err)
	}
	m := &Metadata{ChannelID: s.ChannelName, LastBlock: s.LastBlockNumber, StateDBType: s.StateDBType, Files: map[string][]byte{}}
	for _, h := range []struct {
		file, field, text string
		into              *[]byte
		optional          bool
	}{
		{SignableMetadata, "last_block_hash", s.LastBlockHashInHex, &m.LastBlockHash, false},
		{SignableMetadata, "previous_block_hash", s.PreviousBlockHashInHex, &m.PreviousHash, s.LastBlockNumber == 0},
		{AdditionalMetadata, "snapshot_hash", a.SnapshotHashInHex, &m.SnapshotHash, false},
		{AdditionalMetadata, "last_block_commit_hash", a.LastBlockCommitHashInHex, &m.LastCommitHash, s.LastBlockNumber == 0},
	} {
		var err error
		if *h.into, err = decodeHash(h.text, h.optional); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", h.file, h.field, err)
		}
	}
	if sum := sum(raw); !bytes.Equal(sum, m.SnapshotHash) {
		return nil, mismatch(SignableMetadata, m.SnapshotHash, sum)
	}
	if s.LastBlockNumber == ^uint64(0) {
		return nil, fmt.Errorf("%s: last_block_number: no block can follow number %d", SignableMetadata, s.LastBlockNumber)
	}
	for name, text := range s.FilesAndHashes {
		if !slices.ContainsFunc(pairs(), func(p [2]string) bool { return p[0] == name || p[1] == name }) {
			return nil, fmt.Errorf("%s: snapshot_files_raw_hashes: %q is no file of a snapshot", SignableMetadata, name)
		}
		h, err := decodeHash(text, false)
		if err != nil {
			return nil, fmt.Errorf("%s: snapshot_files_raw_hashes: %s: %w", SignableMetadata, name, err)
		}
		m.Files[name] = h
	}
	for _, p := range pairs() {
		if (m.Files[p[0]] == nil) != (m.Files[p[1]] == nil) {
			return nil, fmt.Errorf("%s: snapshot_files_raw_hashes: of %s and %s one is missing", SignableMetadata, p[0], p[1])
		}
	}
	return m, nil
}

func decodeHash(text string, optional bool) ([]byte, error) {
	h, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if len(h) != 32 && (len(h) > 0 || !optional) {
		return nil, fmt.Errorf("it has %d bytes, a SHA-256 hash has 32", len(h))
	}
	return h, nil
}

func mismatch(name string, want, got []byte) error {
	return fmt.Errorf("hash mismatch for file [%s]. Expected hash = [%x], Actual hash = [%x]", name, want, got)
}

// encode gives the two files of metadata.
func (m *Metadata) encode() (signed, more []byte, err error) {
	if m.ChannelID == "" {
		return nil, nil, errors.New("the channel's name is empty")
	}
	s := signable{
		ChannelName: m.ChannelID, LastBlockNumber: m.LastBlock, LastBlockHashInHex: hex.EncodeToString(m.LastBlockHash),
		PreviousBlockHashInHex: hex.EncodeToString(m.PreviousHash), FilesAndHashes: map[string]string{}, StateDBType: stateDBType,
	}
	for name, h := range m.Files {
		s.FilesAndHashes[name] = hex.EncodeToString(h)
	}
	if signed, err = json.MarshalIndent(s, "", "    "); err != nil {
		return nil, nil, err
	}
	m.SnapshotHash, m.StateDBType = sum(signed), stateDBType
	more, err = json.MarshalIndent(additional{hex.EncodeToString(m.SnapshotHash), hex.EncodeToString(m.LastCommitHash)}, "", "    ")
	return signed, more, err
}
