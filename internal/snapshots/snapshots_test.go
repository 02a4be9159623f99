package snapshots_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/snapshots"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

const vectors = "../../testdata/vectors"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is a channel with the golden ledger on it, as far as it was committed.
type peer struct {
	*snapshots.Channel
	t      testing.TB
	dir    string
	ledger *ledger.Ledger
}

func newPeer(t testing.TB, height uint64) *peer {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, dir: filepath.Join(t.TempDir(), "snapshots"), ledger: l}
	p.commit(height, false)
	p.open()
	t.Cleanup(func() {
		p.Close()
		l.Close()
	})
	return p
}

func (p *peer) open() {
	p.t.Helper()
	c, err := snapshots.Open(snapshots.Config{Dir: p.dir, ChannelID: "devledger", Ledger: p.ledger})
	if err != nil {
		p.t.Fatal(err)
	}
	p.Channel = c
}

// commit goes on to a height, and tells of the blocks as the commit pipeline does.
func (p *peer) commit(height uint64, tell bool) {
	p.t.Helper()
	for n := p.ledger.Height(); n < height; n++ {
		raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", n)))
		if err != nil {
			p.t.Fatal(err)
		}
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			p.t.Fatal(err)
		}
		if err := p.ledger.Commit(&ledger.Commit{Block: block.Parse(b)}); err != nil {
			p.t.Fatal(err)
		}
		if tell {
			p.Committed(n + 1)
		}
	}
}

// done checks which snapshots there are.
func (p *peer) done(want ...string) {
	p.t.Helper()
	var names []string
	entries, err := os.ReadDir(filepath.Join(p.dir, "completed", "devledger"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		p.t.Errorf("snapshots %v, want %v", names, want)
	}
}

func (p *peer) waiting(want ...uint64) {
	p.t.Helper()
	if got := p.Pending(); !slices.Equal(got, want) {
		p.t.Errorf("pending %v, want %v", got, want)
	}
}

func (p *peer) refuse(err error, want string) {
	p.t.Helper()
	if err == nil || err.Error() != want {
		p.t.Errorf("%v, want %q", err, want)
	}
}

func TestSnapshots(t *testing.T) {
	p := newPeer(t, 10)
	for _, n := range []uint64{114, 20, 13, 30} {
		if err := p.Submit(n); err != nil {
			t.Fatal(err)
		}
	}
	p.waiting(13, 20, 30, 114)
	p.refuse(p.Submit(20), "duplicate snapshot request for block number 20")
	p.refuse(p.Submit(8), "requested snapshot for block number 8 cannot be less than the last committed block number 9")
	p.refuse(p.Cancel(21), "no snapshot request exists for block number 21")
	if err := p.Cancel(30); err != nil {
		t.Fatal(err)
	}
	if err := p.Submit(0); err != nil {
		t.Fatal(err)
	}
	p.commit(115, true)
	p.Wait()
	p.waiting()
	p.done("114", "13", "20", "9")
	p.refuse(p.Submit(0), "snapshot already generated for block number 114")
	for name, n := range map[string]uint64{"9": 9, "13": 13, "20": 20, "114": 114} {
		m, err := snapshotfile.Read(context.Background(), vfs.Default, filepath.Join(p.dir, "completed", "devledger", name), snapshotfile.Visitor{
			Public: func(string, *snapshotfile.Record) error { return nil }, Hashed: func(string, string, *snapshotfile.Record) error { return nil },
			TxID: func(string) error { return nil }, Config: func(_, _ []byte) error { return nil },
		})
		if err != nil || m.LastBlock != n {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for _, name := range []string{snapshotfile.SignableMetadata, snapshotfile.AdditionalMetadata, snapshotfile.PublicData} {
		got, err := os.ReadFile(filepath.Join(snapshots.Completed(p.dir, "devledger", 114), name))
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(vectors, "snapshot-Alpha", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}

func TestRestart(t *testing.T) {
	p := newPeer(t, 10)
	for _, n := range []uint64{12, 14, 40} {
		if err := p.Submit(n); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	p.refuse(p.Submit(50), ledger.ErrClosed.Error())
	p.refuse(p.Cancel(40), ledger.ErrClosed.Error())
	// The peer dies between the commit of block 14 and the snapshots.
	p.commit(15, false)
	if err := os.MkdirAll(filepath.Join(p.dir, "temp", "devledger", "12"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.open()
	p.Wait()
	p.waiting(40)
	p.done("14")
	if _, err := os.Stat(filepath.Join(p.dir, "temp", "devledger", "12")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was half written is still there: %v", err)
	}
	// Once more, between the last rename and the end of the request.
	p.Close()
	if err := os.WriteFile(filepath.Join(p.dir, "requests", "devledger.json"), []byte("[40,14,40]"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.open()
	p.Wait()
	p.waiting(40)
	p.Close()
	if err := os.WriteFile(filepath.Join(p.dir, "requests", "devledger.json"), []byte("[40"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := snapshots.Open(snapshots.Config{Dir: p.dir, ChannelID: "devledger", Ledger: p.ledger}); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Error(err)
	}
}

// TestNoSpace has the folder of finished snapshots in the way of a file: the request fails and leaves nothing.
func TestNoSpace(t *testing.T) {
	p := newPeer(t, 5)
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "completed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Submit(0); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	p.waiting()
	if entries, err := os.ReadDir(filepath.Join(p.dir, "temp", "devledger")); err == nil && len(entries) > 0 {
		t.Error(entries)
	}
}

func TestBound(t *testing.T) {
	p := newPeer(t, 2)
	for n := range uint64(snapshots.MaxPending) {
		if err := p.Submit(1000 + n); err != nil {
			t.Fatal(err)
		}
	}
	p.refuse(p.Submit(999), "1024 snapshot requests are pending already; cancel some")
}

// access allows one signature.
type access struct{ asked []string }

func (a *access) CheckSigned(channelID, resource string, _, _, signature []byte) error {
	a.asked = append(a.asked, channelID+resource)
	if string(signature) != "good" {
		return errors.New("not you")
	}
	return nil
}

func TestService(t *testing.T) {
	p := newPeer(t, 5)
	a := &access{}
	now := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &snapshots.Service{Access: a, Now: func() time.Time { return now }, Channel: func(id string) (*snapshots.Channel, bool) { return p.Channel, id == "devledger" }}
	ctx := context.Background()
	signed := func(m proto.Message, signature string) *peerpb.SignedSnapshotRequest {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return &peerpb.SignedSnapshotRequest{Request: raw, Signature: []byte(signature)}
	}
	header := &commonpb.SignatureHeader{Creator: []byte("me")}
	request := &peerpb.SnapshotRequest{SignatureHeader: header, ChannelId: "devledger", BlockNumber: 8}
	if _, err := s.Generate(ctx, signed(request, "good")); err != nil {
		t.Fatal(err)
	}
	query := &peerpb.SnapshotQuery{SignatureHeader: header, ChannelId: "devledger"}
	if r, err := s.QueryPendings(ctx, signed(query, "good")); err != nil || !slices.Equal(r.BlockNumbers, []uint64{8}) {
		t.Error(r, err)
	}
	if _, err := s.Cancel(ctx, signed(request, "good")); err != nil {
		t.Fatal(err)
	}
	if want := []string{"snapshot/submitrequest", "snapshot/listpending", "snapshot/cancelrequest"}; !slices.Equal(a.asked, want) {
		t.Errorf("checked %v", a.asked)
	}
	found, err := filepath.Glob(filepath.Join(vectors, "crypto-config/peerOrganizations/alpha.dev/peers/*/msp/signcerts/*.pem"))
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	cert, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	expired, err := proto.Marshal(&msppb.SerializedIdentity{Mspid: "AlphaMSP", IdBytes: cert})
	if err != nil {
		t.Fatal(err)
	}
	for want, r := range map[string]*peerpb.SignedSnapshotRequest{
		"failed to unmarshal snapshot request": {Request: []byte("x")},
		"missing signature header":             signed(&peerpb.SnapshotRequest{ChannelId: "devledger"}, "good"),
		"client identity expired":              signed(&peerpb.SnapshotRequest{SignatureHeader: &commonpb.SignatureHeader{Creator: expired}, ChannelId: "devledger"}, "good"),
		"not you":                              signed(&peerpb.SnapshotRequest{SignatureHeader: header, ChannelId: "devledger"}, "bad"),
		"missing channel ID":                   signed(&peerpb.SnapshotRequest{SignatureHeader: header}, "good"),
		"cannot find ledger for channel other": signed(&peerpb.SnapshotRequest{SignatureHeader: header, ChannelId: "other"}, "good"),
	} {
		for name, call := range map[string]func() error{
			"Generate":      func() error { _, err := s.Generate(ctx, r); return err },
			"Cancel":        func() error { _, err := s.Cancel(ctx, r); return err },
			"QueryPendings": func() error { _, err := s.QueryPendings(ctx, r); return err },
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
	p.waiting()
}
