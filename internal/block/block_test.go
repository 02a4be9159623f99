package block_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// The golden ledger and its micro-vectors were made by real Fabric.
const vectors = "../../testdata/vectors"

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type micro struct {
	Header struct {
		Blocks []struct {
			Number   uint64
			Previous hexBytes `json:"previous_hash_hex"`
			DataHash hexBytes `json:"data_hash_hex"`
			DER      hexBytes `json:"header_der_hex"`
			Hash     hexBytes `json:"header_hash_hex"`
		}
	} `json:"block_header"`
	Signature struct {
		Block     uint64
		Value     hexBytes `json:"metadata_value_hex"`
		Header    hexBytes `json:"signature_header_hex"`
		Signed    hexBytes `json:"signed_bytes_hex"`
		Signature hexBytes `json:"signature_hex"`
		Signer    hexBytes `json:"signer_identity_hex"`
	} `json:"orderer_block_signature"`
	Commit struct {
		Blocks []struct {
			Block uint64
			Hash  hexBytes `json:"commit_hash"`
			Flags hexBytes `json:"flags_hex"`
		}
	} `json:"commit_hash"`
}

func loadMicro(t *testing.T) (m micro) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "micro.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func golden(t testing.TB, number uint64) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", number)))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func decode(t testing.TB, raw []byte) *commonpb.Block {
	t.Helper()
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeaders(t *testing.T) {
	for _, v := range loadMicro(t).Header.Blocks {
		b := decode(t, golden(t, v.Number))
		if b.Header.Number != v.Number || !bytes.Equal(b.Header.PreviousHash, v.Previous) {
			t.Fatalf("block %d is not the vector's", v.Number)
		}
		if got := block.DataHash(b.Data.Data); !bytes.Equal(got, v.DataHash) {
			t.Errorf("block %d: data hash %x, want %x", v.Number, got, []byte(v.DataHash))
		}
		if got := block.HeaderBytes(b.Header); !bytes.Equal(got, v.DER) {
			t.Errorf("block %d: header bytes %x, want %x", v.Number, got, []byte(v.DER))
		}
		if got := block.HeaderHash(b.Header); !bytes.Equal(got, v.Hash) {
			t.Errorf("block %d: hash %x, want %x", v.Number, got, []byte(v.Hash))
		}
		// A new block of the same data is the same block.
		if made := block.New(v.Number, v.Previous, b.Data.Data); !bytes.Equal(block.HeaderHash(made.Header), v.Hash) {
			t.Errorf("block %d: made anew it has another hash", v.Number)
		}
	}
}

// Numbers from the top bit up need a leading zero in DER; the largest is a positive number too.
func TestHeaderOfLargeNumbers(t *testing.T) {
	for number, want := range map[uint64]string{
		0x7f:                  "3007" + "02017f" + "0400" + "0400",
		0x80:                  "3008" + "02020080" + "0400" + "0400",
		0xffff_ffff_ffff_ffff: "300f" + "020900ffffffffffffffff" + "0400" + "0400",
	} {
		if got := hex.EncodeToString(block.HeaderBytes(&commonpb.BlockHeader{Number: number})); got != want {
			t.Errorf("%d: %s, want %s", number, got, want)
		}
	}
}

func TestOrdererSignature(t *testing.T) {
	v := loadMicro(t).Signature
	b := decode(t, golden(t, v.Block))
	m, err := block.Metadata(b, block.SlotSignatures)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.Value, v.Value) || !bytes.Equal(m.Signatures[0].Signature, v.Signature) {
		t.Error("the SIGNATURES slot differs from the vector")
	}
	signed := block.SignedBytes(m.Value, m.Signatures[0].SignatureHeader, b.Header)
	if !bytes.Equal(signed, v.Signed) {
		t.Error("other bytes are signed")
	}
	var id msppb.SerializedIdentity
	if err := proto.Unmarshal(v.Signer, &id); err != nil {
		t.Fatal(err)
	}
	pemBlock, _ := pem.Decode(id.IdBytes)
	cert, err := x509.ParseCertificate(pemBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(signed)
	if !ecdsa.VerifyASN1(cert.PublicKey.(*ecdsa.PublicKey), digest[:], v.Signature) {
		t.Error("the orderer's signature does not verify")
	}
}

func TestMetadataOfGoldenBlocks(t *testing.T) {
	for _, v := range loadMicro(t).Commit.Blocks {
		b := decode(t, golden(t, v.Block))
		if !bytes.Equal(block.CommitHash(b), v.Hash) || !bytes.Equal(block.Filter(b), v.Flags) {
			t.Errorf("block %d: filter %x and commit hash %x, want %x and %x", v.Block, block.Filter(b), block.CommitHash(b), []byte(v.Flags), []byte(v.Hash))
		}
		want := bytes.Clone(golden(t, v.Block))
		block.SetFilter(b, v.Flags)
		block.SetCommitHash(b, v.Hash)
		got, err := proto.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("block %d: setting the same metadata changed the bytes", v.Block)
		}
	}
	last := uint64(0)
	for number := range uint64(115) {
		b := decode(t, golden(t, number))
		if block.IsConfig(b) {
			last = number
			if _, id, err := block.ConfigEnvelope(b); err != nil || id != "devledger" {
				t.Errorf("config block %d is for channel %q, %v", number, id, err)
			}
		} else if _, _, err := block.ConfigEnvelope(b); !errors.Is(err, block.ErrNoConfig) {
			t.Errorf("block %d: %v, want ErrNoConfig", number, err)
		}
		if number == 0 {
			continue // configtxgen leaves the slot empty
		}
		if got, err := block.LastConfig(b); err != nil || got != last {
			t.Errorf("block %d: its last config is %d (%v), want %d", number, got, err, last)
		}
	}
	if last == 0 {
		t.Error("no config block after the first was found")
	}
}

func TestParse(t *testing.T) {
	for _, number := range []uint64{0, 3, 5, 114} { // some small enough for one core, some not
		b := decode(t, golden(t, number))
		p := block.Parse(b)
		if len(p.Txs) != len(b.Data.Data) {
			t.Fatalf("block %d: %d transactions of %d", number, len(p.Txs), len(b.Data.Data))
		}
		for i, tx := range p.Txs {
			if !bytes.Equal(tx.Raw, b.Data.Data[i]) {
				t.Errorf("block %d: transaction %d is out of place", number, i)
			}
		}
	}
	if n := len(block.Parse(&commonpb.Block{}).Txs); n != 0 {
		t.Errorf("a block without data has %d transactions", n)
	}
}

func TestMetadataThatIsNotThere(t *testing.T) {
	empty := &commonpb.Block{}
	if block.Filter(empty) != nil || block.CommitHash(empty) != nil || block.IsConfig(empty) {
		t.Error("an empty block has metadata")
	}
	block.SetFilter(empty, []byte{1})
	if got := len(empty.Metadata.Metadata); got != block.SlotFilter+1 {
		t.Errorf("%d slots", got)
	}
	if _, err := block.LastConfig(&commonpb.Block{Metadata: &commonpb.BlockMetadata{Metadata: [][]byte{{0xff}}}}); err == nil {
		t.Error("a broken slot is no error")
	}
}

// FuzzParse: any bytes that are a block can be read with every function.
func FuzzParse(f *testing.F) {
	f.Add([]byte(nil))
	for _, number := range []uint64{0, 1, 5, 114} {
		f.Add(golden(f, number))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := &commonpb.Block{}
		if proto.Unmarshal(raw, b) != nil {
			return
		}
		p := block.Parse(b)
		if len(p.Txs) != len(b.GetData().GetData()) {
			t.Error("transactions are missing")
		}
		block.HeaderHash(b.Header)
		block.LastConfig(b)
		block.CommitHash(b)
		if _, _, err := block.ConfigEnvelope(b); (err == nil) != block.IsConfig(b) {
			t.Error("IsConfig and ConfigEnvelope differ")
		}
		block.SetFilter(b, nil)
		block.SetCommitHash(b, []byte{1})
		if !bytes.Equal(block.CommitHash(b), []byte{1}) {
			t.Error("the commit hash is not what was set")
		}
	})
}
