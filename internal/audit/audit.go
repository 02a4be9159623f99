// Package audit checks a ledger from outside: it takes the blocks, decides on every transaction again from the genesis block
// on, and compares what comes out with what was stored.
//
//   - Verify checks the ledger of a node that is not running: every hash, orderers' signature, validation code and commit
//     hash, then that the state is what the blocks make of it and that private values match their public hashes.
//   - Replay prints the outcome of each block, of such a ledger or of a folder of block files, and compares it with a
//     list of what is expected or with what the blocks say themselves.
//
// What it guarantees: the verdicts are those of the peer itself, since it is the same code on the same kind of ledger, a
// fresh one in a temporary folder. The ledger checked is not changed but for what opening it repairs after a crash.
//
// It leaves out what blocks cannot tell: whether the genesis block is the right one (compare its hash), or the snapshot that
// the ledger began with, and private data that was purged or has expired.
//
// Open this file first; source.go is where blocks come from, state.go compares states.
package audit

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Options of Verify and Replay.
type Options struct {
	// Expect is a JSON file with the expected outcome: {"blocks": [{"number", "commit_hash", "txs": [{"validation_code"}]}]}. Without
	// it, blocks are compared with the codes and commit hash in their own metadata. Only Replay uses it.
	Expect string
	// Dir is a folder for the ledger that is made, which then stays. Replay goes on with the ledger that is there, as a peer does
	// that was killed: of its blocks it prints and compares what they have come to before. Only Replay uses it.
	Dir string
	// TempDir is where the fresh ledger is made, which needs about as much space as the one checked; empty for the
	// system's folder. It is removed at the end.
	TempDir string
}

// Difference says where a ledger is not what it should be.
type Difference struct {
	Block uint64
	What  string
}

func (d *Difference) Error() string { return fmt.Sprintf("block %d: %s", d.Block, d.What) }

// outcome is the line that is printed for a block.
type outcome struct {
	Number     uint64   `json:"number"`
	Codes      []uint32 `json:"codes"`
	CommitHash string   `json:"commit_hash"`
}

// summary is the last line.
type summary struct {
	Blocks       int    `json:"matched_blocks"`
	Transactions int    `json:"matched_transactions"`
	Keys         int    `json:"matched_keys,omitempty"`
	Private      int    `json:"matched_private_values,omitempty"`
	CommitHash   string `json:"commit_hash"`
}

// Replay prints one JSON object for every block of dir, a node's ledger or a folder of files named NUMBER.block, and at
// last how many blocks and transactions matched. It ends with a *Difference at the first block that does not.
func Replay(ctx context.Context, dir string, w io.Writer, o Options) error {
	expected, err := readExpected(o.Expect)
	if err != nil {
		return err
	}
	source, err := openSource(dir)
	if err != nil {
		return err
	}
	defer source.Close()
	lines := json.NewEncoder(w)
	sum, err := run(ctx, source, o, func(f *fresh, b *commonpb.Block, got outcome) error {
		if err := lines.Encode(got); err != nil {
			return err
		}
		return expected.compare(b, got)
	}, nil)
	if sum.Blocks > 0 {
		err = errors.Join(err, lines.Encode(sum))
	}
	return err
}

// Verify checks the ledger in dir, printing a line of JSON at the end if all is well. It ends with a *Difference at what is
// not.
func Verify(ctx context.Context, dir string, w io.Writer, o Options) error {
	source, err := openLedger(dir)
	if err != nil {
		return err
	}
	defer source.Close()
	var keys, private int
	sum, err := run(ctx, source, o, func(_ *fresh, b *commonpb.Block, got outcome) error {
		return (expectations{}).compare(b, got)
	}, func(f *fresh) (err error) {
		keys, private, err = compareStates(source.ledger, f.ledger)
		return err
	})
	if err != nil {
		return err
	}
	sum.Keys, sum.Private = keys, private
	return json.NewEncoder(w).Encode(sum)
}

// fresh is the ledger that is made again.
type fresh struct {
	ledger    *ledger.Ledger
	validator *validate.Validator
	verifier  *identity.Verifier
	bundle    *channel.Bundle
	tip       []byte // hash of the last header
	resumed   uint64 // height at which it was found
}

// run makes the ledger again block by block, from the genesis block or the snapshot that it began with. check is called after
// each, and end, if there is one, at last.
func run(ctx context.Context, from source, o Options, check func(*fresh, *commonpb.Block, outcome) error, end func(*fresh) error) (sum summary, err error) {
	if from.Height() == 0 {
		return sum, errors.New("there are no blocks")
	}
	dir := o.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp(o.TempDir, "hansa-audit-"); err != nil {
			return sum, fmt.Errorf("make a folder for the ledger that is made again: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	f := &fresh{validator: validate.New(validate.Config{}), verifier: identity.NewVerifier(identity.Config{})}
	if err := f.open(ctx, from, dir); err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, f.ledger.Close()) }()
	if f.resumed > from.Height() {
		return sum, fmt.Errorf("the ledger in %s has %d blocks, more than the %d to replay", dir, f.resumed, from.Height())
	}
	for n := from.First(); n < from.Height(); n++ {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		b, err := from.Block(n)
		if err != nil {
			return sum, fmt.Errorf("read block %d: %w", n, err)
		}
		var got outcome
		if n < f.resumed {
			got, err = f.earlier(b)
		} else {
			got, err = f.add(b, n)
		}
		if err != nil {
			return sum, err
		}
		if err := check(f, b, got); err != nil {
			return sum, err
		}
		sum.Blocks, sum.Transactions, sum.CommitHash = sum.Blocks+1, sum.Transactions+len(got.Codes), got.CommitHash
	}
	if end != nil {
		return sum, end(f)
	}
	return sum, nil
}

// open begins the ledger that is made again.
func (f *fresh) open(ctx context.Context, from source, dir string) (err error) {
	s, ok := from.(*stored)
	if !ok || from.First() == 0 {
		if f.ledger, err = ledger.Open(ledger.Config{Dir: dir}); err != nil {
			return err
		}
		return f.resume()
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: what began with a snapshot cannot be gone on with", dir)
	}
	files, _ := s.ledger.Bootstrapped()
	m, err := snapshotfile.ReadMetadata(vfs.Default, files)
	if err != nil {
		return err
	}
	config := ledger.Config{Dir: filepath.Join(dir, "ledger"), ChannelID: m.ChannelID}
	f.ledger, err = ledger.Bootstrap(ctx, config, files, filepath.Join(dir, "staging"), func(s *ledger.Snapshot) error {
		v, err := s.Get("", rwset.ConfigKey)
		switch {
		case err != nil:
			return err
		case v == nil:
			return errors.New("the snapshot holds no channel configuration")
		}
		envelope := &commonpb.ConfigEnvelope{}
		if err := proto.Unmarshal(v.Value, envelope); err != nil {
			return fmt.Errorf("decode the channel configuration in the snapshot: %w", err)
		}
		f.bundle, err = channel.NewBundle(m.ChannelID, envelope.Config, f.verifier)
		return err
	})
	f.tip = m.LastBlockHash
	return err
}

// resume takes up a ledger that was made before.
func (f *fresh) resume() error {
	f.resumed = f.ledger.Height()
	if f.resumed == 0 {
		return nil
	}
	f.tip = f.ledger.Info().CurrentBlockHash
	s := f.ledger.NewSnapshot()
	v, err := s.Get("", rwset.ConfigKey)
	err = errors.Join(err, s.Close()) // the ledger waits for it before it closes
	if err == nil && v == nil {
		err = errors.New("the ledger to go on with holds no channel configuration")
	}
	if err != nil {
		return errors.Join(err, f.ledger.Close())
	}
	if f.bundle, err = f.configured(v.Value); err != nil {
		return errors.Join(err, f.ledger.Close())
	}
	return nil
}

func (f *fresh) configured(value []byte) (*channel.Bundle, error) {
	envelope := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(value, envelope); err != nil {
		return nil, fmt.Errorf("decode the channel configuration of the ledger: %w", err)
	}
	genesis, err := f.ledger.Block(f.ledger.First())
	if err != nil {
		return nil, err
	}
	return channel.NewBundle(block.Parse(genesis).Txs[0].ChannelID(), envelope.Config, f.verifier)
}

// earlier is what a block came to when the ledger that was found was made.
func (f *fresh) earlier(replayed *commonpb.Block) (outcome, error) {
	number := replayed.GetHeader().GetNumber()
	b, err := f.ledger.Block(number)
	if err != nil {
		return outcome{}, err
	}
	if replayed.Header == nil || !bytes.Equal(block.HeaderHash(b.Header), block.HeaderHash(replayed.Header)) {
		return outcome{}, &Difference{number, "the ledger to go on with holds another block"}
	}
	got := outcome{Number: number, CommitHash: hex.EncodeToString(block.CommitHash(b))}
	for _, code := range block.Filter(b) {
		got.Codes = append(got.Codes, uint32(code))
	}
	return got, nil
}

// add decides on a block as a peer does and commits it. The block given stays as it is.
func (f *fresh) add(stored *commonpb.Block, number uint64) (outcome, error) {
	b := &commonpb.Block{Header: stored.Header, Data: stored.Data, Metadata: &commonpb.BlockMetadata{Metadata: append([][]byte(nil), stored.GetMetadata().GetMetadata()...)}}
	result, err := f.decide(block.Parse(b), number)
	if bad := (*validate.BadBlock)(nil); errors.As(err, &bad) {
		return outcome{}, &Difference{number, bad.Reason}
	}
	if err != nil {
		return outcome{}, fmt.Errorf("block %d: %w", number, err)
	}
	got := outcome{Number: number, Codes: make([]uint32, len(result.Codes))}
	for i, code := range result.Codes {
		got.Codes[i] = uint32(code)
	}
	block.SetFilter(b, result.Codes)
	if number > 0 {
		hash := rwset.CommitHash(result.Codes, result.Updates.CommitBytes(), f.ledger.LastCommitHash())
		block.SetCommitHash(b, hash)
		got.CommitHash = hex.EncodeToString(hash)
	}
	parsed := block.Parse(b)
	if err := f.ledger.Commit(&ledger.Commit{Block: parsed, Updates: result.Updates, Sets: result.Sets}); err != nil {
		return outcome{}, err
	}
	if f.tip = block.HeaderHash(b.Header); result.NextBundle != nil {
		f.bundle = result.NextBundle
	}
	return got, nil
}

func (f *fresh) decide(b *block.Parsed, number uint64) (*validate.Result, error) {
	if number == 0 {
		if hash := block.DataHash(b.GetData().GetData()); b.GetHeader().GetNumber() != 0 || !bytes.Equal(hash, b.GetHeader().GetDataHash()) {
			return nil, &validate.BadBlock{Reason: fmt.Sprintf("it is number %d and its data hashes to %x", b.GetHeader().GetNumber(), hash)}
		}
		bundle, err := channel.FromBlock(b.Block, f.verifier)
		if err != nil {
			return nil, err
		}
		f.bundle = bundle
		return validate.Genesis(b)
	}
	if err := validate.Accept(f.bundle, b.Block, number, f.tip); err != nil {
		return nil, err
	}
	snapshot := f.ledger.NewSnapshot()
	defer snapshot.Close()
	return f.validator.Decide(f.bundle, f.validator.Prepare(f.bundle, b), struct {
		*ledger.Snapshot
		*ledger.Ledger
	}{snapshot, f.ledger})
}

// expectations say what should come out of each block; empty, the blocks say so themselves.
type expectations map[uint64]expectedBlock

type expectedBlock struct {
	Number     uint64 `json:"number"`
	CommitHash string `json:"commit_hash"`
	Txs        []struct {
		Code uint32 `json:"validation_code"`
	} `json:"txs"`
}

func readExpected(path string) (expectations, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read what is expected: %w", err)
	}
	var file struct {
		Blocks []expectedBlock `json:"blocks"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("decode what is expected from %s: %w", path, err)
	}
	if len(file.Blocks) == 0 {
		return nil, fmt.Errorf("%s names no blocks", path)
	}
	all := make(expectations, len(file.Blocks))
	for _, b := range file.Blocks {
		all[b.Number] = b
	}
	return all, nil
}

func (e expectations) compare(b *commonpb.Block, got outcome) error {
	want := outcome{Number: got.Number}
	if len(e) == 0 {
		for _, code := range block.Filter(b) {
			want.Codes = append(want.Codes, uint32(code))
		}
		want.CommitHash = hex.EncodeToString(block.CommitHash(b))
	} else {
		expected, ok := e[got.Number]
		if !ok {
			return &Difference{got.Number, "it is not among the blocks that are expected"}
		}
		for _, tx := range expected.Txs {
			want.Codes = append(want.Codes, tx.Code)
		}
		want.CommitHash = expected.CommitHash
	}
	if len(got.Codes) != len(want.Codes) {
		return &Difference{got.Number, fmt.Sprintf("it has %d transactions, and codes of %d are stored or expected", len(got.Codes), len(want.Codes))}
	}
	for i, code := range got.Codes {
		if code != want.Codes[i] {
			return &Difference{got.Number, fmt.Sprintf("transaction %d is %s, stored or expected is %s", i, name(code), name(want.Codes[i]))}
		}
	}
	if got.CommitHash != want.CommitHash {
		return &Difference{got.Number, fmt.Sprintf("the commit hash is %q, stored or expected is %q", got.CommitHash, want.CommitHash)}
	}
	return nil
}

func name(code uint32) string { return peerpb.TxValidationCode(code).String() }
