package channel_test

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func readProto[M proto.Message](t testing.TB, m M, name string) M {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		t.Fatalf("decode %s: %v", name, err)
	}
	return m
}

func verifier() *identity.Verifier { return identity.NewVerifier(identity.Config{}) }

func genesis(t testing.TB) *channel.Bundle {
	t.Helper()
	b, err := channel.FromBlock(readProto(t, &commonpb.Block{}, "genesis.block"), verifier())
	if err != nil {
		t.Fatal(err)
	}
	return b
}
