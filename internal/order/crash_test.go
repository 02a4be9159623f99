package order_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// crashDir makes the test binary an orderer that orders the envelopes it has and prints each one's text when it was
// acknowledged, until it is killed.
const crashDir = "HANSA_ORDER_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := orderUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func orderUntilKilled(dir string) error {
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			panic(err)
		}
		return raw
	}
	signer := func(name, msp string) *identity.Signer {
		p, _ := pem.Decode(read(name + ".key"))
		key, err := x509.ParseECPrivateKey(p.Bytes)
		if err != nil {
			panic(err)
		}
		s, err := identity.NewSigner(msp, read(name+".pem"), key)
		if err != nil {
			panic(err)
		}
		return s
	}
	user := signer("user", "AlphaMSP")
	s, err := order.Open(order.Config{Dir: filepath.Join(dir, "data"), Certificate: read("tls.pem"), Signer: signer("orderer", "HarbourMSP"),
		Verifier: identity.NewVerifier(identity.Config{}), Log: slog.New(slog.DiscardHandler), LogBytes: 64 << 10})
	if err != nil {
		return err
	}
	go s.Run(context.Background())
	if _, ok := s.Channel(channelID); !ok {
		b := &commonpb.Block{}
		if err := proto.Unmarshal(read("genesis.block"), b); err != nil {
			return err
		}
		if _, err := s.Join(context.Background(), b); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	t := new(testing.T)
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := 0; ; i++ {
				text := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i)
				if err := s.Submit(context.Background(), message(t, user, channelID, text)); err != nil {
					panic(err)
				}
				fmt.Println(text)
			}
		})
	}
	group.Wait()
	return nil
}

// Whatever was acknowledged before a kill -9 is in the chain after it, once; also when the end of the block file, which
// is not fsynced, is lost as in a power cut.
func TestKill9(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	n := newNetwork(t)
	dir := t.TempDir()
	write := func(name string, raw []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, l := range map[string]*identitytest.Leaf{
		"user": n.users.Issue(t, "user", []string{"client"}), "orderer": n.orderers.Issue(t, "orderer", []string{"orderer"}),
	} {
		key, err := x509.MarshalECPrivateKey(l.Key.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", l.PEM)
		write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}))
	}
	write("tls.pem", n.server.PEM)
	genesis, _ := proto.Marshal(n.genesis)
	write("genesis.block", genesis)

	acknowledged := map[string]bool{}
	for round := range 6 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		after := 20 + rng.IntN(150)
		for i := 0; lines.Scan(); i++ {
			if strings.Contains(lines.Text(), "/") {
				acknowledged[lines.Text()] = true
			}
			if i == after {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if round%2 == 1 {
			loseEnd(t, filepath.Join(dir, "data", "channels", channelID), rng)
		}
	}
	if len(acknowledged) < 100 {
		t.Fatalf("only %d envelopes were acknowledged", len(acknowledged))
	}

	cfg := n.config(filepath.Join(dir, "data"))
	o := n.start(t, cfg)
	if r := o.broadcast(t, message(t, n.user, channelID, "last")); r.Status != commonpb.Status_SUCCESS {
		t.Fatal(r)
	}
	found := map[string]int{}
	blocks := o.pull(t, 0, func(b *commonpb.Block) bool {
		for _, text := range texts(t, b) {
			found[text]++
		}
		return found["last"] > 0
	})
	for _, b := range blocks {
		if b.Header.Number > 0 && len(b.Data.Data) == 0 {
			t.Errorf("block %d is empty", b.Header.Number)
		}
	}
	for text := range acknowledged {
		if found[text] != 1 {
			t.Errorf("%s was acknowledged and is %d times in the chain", text, found[text])
		}
	}
}

// loseEnd cuts off some of the newest block file that was written since it was last fsynced. The consensus log starts
// anew at every such fsync, and the block file lags behind it by no more than the four envelopes that are on their way.
func loseEnd(t *testing.T, dir string, rng *rand.Rand) {
	newest := func(pattern string) (string, int64) {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		info, err := os.Stat(names[len(names)-1])
		if err != nil {
			t.Fatal(err)
		}
		return names[len(names)-1], info.Size()
	}
	_, logged := newest("raft-1/*.wal")
	if logged < 16000 { // the newest block is at its beginning
		return // only just synced
	}
	name, size := newest("blocks/*[0-9]*")
	if err := os.Truncate(name, size-rng.Int64N(logged/4)); err != nil {
		t.Fatal(err)
	}
	t.Logf("cut %s at up to %d bytes", filepath.Base(name), logged/4)
}
