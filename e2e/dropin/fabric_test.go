package dropin_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/admin"
)

// An orderer and a peer of Fabric run, order and commit, and are stopped; ours are started in their place, with the same commands, settings
// and folders, and go on. It runs where HANSA_FABRIC_BIN and HANSA_FABRIC_CFG name the folders of Fabric's programs and sample configuration.
func TestSwapPrograms(t *testing.T) {
	programs := os.Getenv("HANSA_FABRIC_BIN")
	if programs == "" || os.Getenv("HANSA_FABRIC_CFG") == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	source, packages := nodePackages(t)
	w := stopped(t, "--members", "1")
	w.peerEnv = map[string]string{"TMPDIR": t.TempDir(), "NODE_PACKAGES": packages}
	core := filepath.Join(w.cfg, "core.yaml")
	raw, err := os.ReadFile(core)
	must(t, err)
	raw = regexp.MustCompile(`externalBuilders:\n( *)- `).ReplaceAll(raw,
		[]byte("externalBuilders:\n$1- name: node\n$1  path: "+writeBuilder(t, nodeBuilder)+"\n$1  propagateEnvironment: [NODE_PACKAGES]\n$1- "))
	must(t, os.WriteFile(core, raw, 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ordererData, peerData := filepath.Join(w.Dir, "orderer-production"), filepath.Join(w.Dir, "peer-production")

	ours := w.bin
	w.bin, w.health = programs, "/healthz"
	stopOrderer := w.startOrderer(ordererData)
	m := w.join(ctx, w.startPeer(peerData))
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "index.js", "asset.js"} {
		content, err := os.ReadFile(filepath.Join(source, name))
		must(t, err)
		files["src/"+name] = content
	}
	id, err := m.Install(ctx, pack(t, "node", "asset_1", files))
	must(t, err)
	definition := admin.Definition{Name: "asset", Version: "1", Sequence: 1}
	w.Await("an orderer that leads", func() error { return admin.Approve(ctx, m.channel, m.id, definition, id) })
	must(t, admin.Commit(ctx, m.channel, []string{m.id}, definition))
	create := func(m *member, key string) {
		t.Helper()
		_, err := m.channel.Contract("asset").Submit(ctx, client.Strings("CreateAsset", key, "blue", "5", "Ann", "300"))
		must(t, err)
	}
	for _, key := range []string{"a1", "a2", "a3"} {
		create(m, key)
	}
	must(t, admin.Approve(ctx, m.channel, m.id, admin.Definition{Name: "asset", Version: "2", Sequence: 2}, id))
	before, err := m.ChainInfo(ctx, w.plan.Channel)
	must(t, err)
	m.stop()
	stopOrderer()
	content := sum(t, peerData)

	w.bin, w.health = ours, ""
	stopOrderer = w.startOrderer(ordererData)
	m = w.member(w.startPeer(peerData))
	after, err := m.ChainInfo(ctx, w.plan.Channel)
	must(t, err)
	if !proto.Equal(before, after) {
		t.Errorf("%v after the swap, %v before", after, before)
	}
	// What was approved is private data; the contract's build came along.
	ready, err := admin.Readiness(ctx, m.channel, admin.Definition{Name: "asset", Version: "2", Sequence: 2})
	if err != nil || !ready[m.id] {
		t.Errorf("the approval is not there: %v %v", ready, err)
	}
	create(m, "a4")
	for _, key := range []string{"a1", "a4"} {
		if _, err := m.channel.Contract("asset").Evaluate(ctx, client.Strings("ReadAsset", key)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	must(t, admin.Commit(ctx, m.channel, []string{m.id}, admin.Definition{Name: "asset", Version: "2", Sequence: 2}))
	m.stop()
	stopOrderer()
	if content != sum(t, peerData) {
		t.Error("the files of Fabric's peer were changed")
	}
	w.startOrderer(ordererData)
	m = w.member(w.startPeer(peerData))
	create(m, "a5")
}
