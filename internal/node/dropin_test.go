package node_test

import (
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/fabricconfig"
	"github.com/hansa-ledger/hansa/internal/node"
)

const corePart = `
peer:
  id: peer0
  listenAddress: 0.0.0.0:7051
  address: peer0.org1.example.com:7051
  localMspId: Org1MSP
  localMspType: bccsp
  mspConfigPath: msp
  fileSystemPath: production
  chaincodeListenAddress: 127.0.0.1:7052
  gateway: {enabled: true, endorsementTimeout: 20s, broadcastTimeout: 10s}
  gossip:
    bootstrap: 127.0.0.1:7051
    externalEndpoint:
    pvtData:
      pullRetryThreshold: 50s
      pushAckTimeout: 4s
      reconcileSleepInterval: 2m
      reconciliationEnabled: true
      implicitCollectionDisseminationPolicy: {requiredPeerCount: 1, maxPeerCount: 2}
  tls:
    enabled: true
    clientAuthRequired: false
    cert: {file: tls/server.crt}
    key: {file: tls/server.key}
    clientRootCAs: {files: [tls/ca.crt]}
  BCCSP: {Default: SW, SW: {Hash: SHA2}}
  discovery: {enabled: true}
  limits: {concurrency: {endorserService: 10, deliverService: 0, gatewayService: 12}}
chaincode:
  executetimeout: 40s
  startuptimeout: 3m
  installTimeout: 2m
  externalBuilders: [{name: ccaas_builder, path: /opt/ccaas_builder}]
operations: {listenAddress: 127.0.0.1:9443, tls: {enabled: false}}
metrics: {provider: prometheus}
`

const ordererPart = `
General:
  ListenAddress: 0.0.0.0
  ListenPort: 7050
  TLS: {Enabled: true, PrivateKey: tls/server.key, Certificate: tls/server.crt, RootCAs: [tls/ca.crt], ClientAuthRequired: false, ClientRootCAs: }
  Cluster: {ClientCertificate: tls/server.crt, ClientPrivateKey: tls/server.key, SendBufferSize: 100}
  LocalMSPDir: msp
  LocalMSPID: OrdererMSP
  BootstrapMethod: none
FileLedger: {Location: production}
Operations: {ListenAddress: 127.0.0.1:8443}
Admin: {ListenAddress: 127.0.0.1:9443, TLS: {Enabled: true, Certificate: tls/server.crt, PrivateKey: tls/server.key, ClientAuthRequired: true, ClientRootCAs: [tls/ca.crt]}}
`

// fabric is the environment of a Fabric node whose configuration is in dir.
func fabric(t *testing.T, file, content string, more ...string) (dir string, environ []string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, append([]string{"FABRIC_CFG_PATH=" + dir}, more...)
}

func loud(notices []fabricconfig.Notice) (keys []string) {
	for _, n := range notices {
		if n.Level > slog.LevelInfo {
			keys = append(keys, n.Key)
		}
	}
	return keys
}

func TestFabricPeer(t *testing.T) {
	dir, environ := fabric(t, "core.yaml", corePart, "FABRIC_LOGGING_SPEC=gossip=debug:WARNING",
		`CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG={"peername":"peer0","n":1}`)
	got, notices, err := node.FabricPeer(environ)
	if err != nil {
		t.Fatal(err)
	}
	want := node.PeerConfig{
		MSPID: "Org1MSP", MSPDir: filepath.Join(dir, "msp"), DataDir: filepath.Join(dir, "production", "hansa"),
		Listen: "0.0.0.0:7051", Address: "peer0.org1.example.com:7051",
		TLS:        node.TLSConfig{Cert: filepath.Join(dir, "tls/server.crt"), Key: filepath.Join(dir, "tls/server.key")},
		Operations: node.OperationsConfig{Listen: "127.0.0.1:9443"},
		Chaincode: node.ChaincodeConfig{Listen: "127.0.0.1:7052", ExecuteTimeout: 40 * time.Second, StartTimeout: 3 * time.Minute, BuildTimeout: 2 * time.Minute,
			Builder: map[string]string{"peername": "peer0", "n": "1"}},
		Gateway: node.GatewayConfig{EndorsementTimeout: 20 * time.Second, BroadcastTimeout: 10 * time.Second},
		PrivateData: node.PrivateDataConfig{PushTimeout: 4 * time.Second, PullTimeout: 50 * time.Second, ReconcileInterval: 2 * time.Minute,
			ImplicitRequired: 1, ImplicitMaximum: 2},
		Limits: node.PeerLimits{Endorser: 10, Gateway: 12, Deliver: math.MaxInt32},
		Log:    node.LogConfig{Level: slog.LevelWarn, Format: "text"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if keys := loud(notices); len(keys) > 0 {
		t.Errorf("warnings about %q", keys)
	}
	var named []string
	for _, n := range notices {
		named = append(named, n.Key)
	}
	if all := strings.Join(named, " "); !strings.Contains(all, "peer.id") || !strings.Contains(all, "peer.gossip.bootstrap") {
		t.Errorf("%s: want what has no meaning", all)
	}
}

func TestFabricOrderer(t *testing.T) {
	dir, environ := fabric(t, "orderer.yaml", ordererPart, "ORDERER_GENERAL_LISTENPORT=27050", "FABRIC_LOGGING_FORMAT=json")
	got, notices, err := node.FabricOrderer(environ)
	if err != nil {
		t.Fatal(err)
	}
	own := node.TLSConfig{Cert: filepath.Join(dir, "tls/server.crt"), Key: filepath.Join(dir, "tls/server.key")}
	admin := own
	admin.ClientRoots, admin.RequireClientCert = []string{filepath.Join(dir, "tls/ca.crt")}, true
	want := node.OrdererConfig{
		MSPID: "OrdererMSP", MSPDir: filepath.Join(dir, "msp"), DataDir: filepath.Join(dir, "production", "hansa"), Listen: "0.0.0.0:27050",
		TLS: own, Admin: node.AdminConfig{Listen: "127.0.0.1:9443", TLS: admin},
		Operations: node.OperationsConfig{Listen: "127.0.0.1:8443"}, Log: node.LogConfig{Format: "json"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if keys := loud(notices); len(keys) > 0 {
		t.Errorf("warnings about %q", keys)
	}
}

// What would leave a node open that Fabric protects is closed, and said.
func TestFabricSettingsThatAreNotFollowed(t *testing.T) {
	_, environ := fabric(t, "core.yaml", corePart,
		"CORE_PEER_CHAINCODELISTENADDRESS=0.0.0.0:7052", "CORE_OPERATIONS_TLS_ENABLED=true", "CORE_OPERATIONS_TLS_CERT_FILE=ops.crt", "CORE_OPERATIONS_TLS_KEY_FILE=/ops.key", "CORE_OPERATIONS_TLS_CLIENTROOTCAS_FILES=[a.crt]", "CORE_PEER_TLS_CLIENTAUTHREQUIRED=true",
		"CORE_PEER_GOSSIP_EXTERNALENDPOINT=outside:1", "CORE_METRICS_PROVIDER=statsd", "CORE_PEER_COLOUR=red",
		"CORE_CHAINCODE_EXTERNALBUILDERS=[{name: own, path: /opt/own}]", "CORE_PEER_GATEWAY_ENABLED=false")
	c, notices, err := node.FabricPeer(environ)
	if err != nil {
		t.Fatal(err)
	}
	if c.Chaincode.Listen != "" || c.Operations.TLS.Key != "/ops.key" || len(c.Operations.TLS.ClientRoots) != 1 || c.Address != "outside:1" || !c.TLS.RequireClientCert || len(c.TLS.ClientRoots) != 1 {
		t.Errorf("%+v", c)
	}
	keys := strings.Join(loud(notices), " ")
	for _, want := range []string{"peer.chaincodeListenAddress", "peer.tls.clientAuthRequired", "metrics.provider",
		"peer.colour", "chaincode.externalBuilders", "peer.gateway.enabled"} {
		if !strings.Contains(keys, want) {
			t.Errorf("no warning about %s: %s", want, keys)
		}
	}
	dir, environ := fabric(t, "orderer.yaml", ordererPart, "ORDERER_ADMIN_TLS_ENABLED=false", "ORDERER_ADMIN_LISTENADDRESS=0.0.0.0:9443", "ORDERER_GENERAL_CLUSTER_LISTENPORT=7055",
		"ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE=other.crt", "ORDERER_GENERAL_BOOTSTRAPMETHOD=file", "ORDERER_CA=x")
	if err := os.MkdirAll(filepath.Join(dir, "production", "chains"), 0o700); err != nil {
		t.Fatal(err)
	}
	o, notices, err := node.FabricOrderer(environ)
	if err != nil || o.Admin.Listen != "" {
		t.Errorf("%v %+v, want no admin port", err, o.Admin)
	}
	if _, environ := fabric(t, "orderer.yaml", ordererPart, "ORDERER_ADMIN_TLS_ENABLED=false"); true {
		o, notices, err := node.FabricOrderer(environ)
		if want := (node.AdminConfig{Listen: "127.0.0.1:9443", Plain: true}); err != nil || !reflect.DeepEqual(o.Admin, want) || len(loud(notices)) == 0 {
			t.Errorf("%v %+v, want the port on this machine, and a warning", err, o.Admin)
		}
	}
	keys = strings.Join(loud(notices), " ")
	for _, want := range []string{"Admin.TLS.Enabled", "General.Cluster.ListenPort", "General.Cluster.ClientCertificate", "General.BootstrapMethod", "ca"} {
		if !strings.Contains(keys, want) {
			t.Errorf("no warning about %s: %s", want, keys)
		}
	}
}

func TestFabricSettingsThatCannotBe(t *testing.T) {
	for variable, want := range map[string]string{
		"CORE_PEER_TLS_ENABLED=false":                   "over TLS only",
		"CORE_PEER_TLS_ENABLED=maybe":                   "true or false",
		"CORE_PEER_BCCSP_DEFAULT=PKCS11":                "only SW",
		"CORE_OPERATIONS_TLS_ENABLED=true":              "the certificate or the key is missing",
		"CORE_PEER_LOCALMSPTYPE=idemix":                 "only bccsp",
		"CORE_CHAINCODE_EXECUTETIMEOUT=30":              "with its unit",
		"CORE_PEER_ADDRESS=peer0":                       "not host:port",
		"CORE_PEER_CHAINCODELISTENADDRESS=7052":         "127.0.0.1:7052",
		"CORE_PEER_LIMITS_CONCURRENCY_DELIVERSERVICE=x": "whole number",
		"CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG=x":       "no JSON object",
		"FABRIC_LOGGING_SPEC=loud":                      `"loud" is no level`,
	} {
		_, environ := fabric(t, "core.yaml", corePart, variable)
		if _, _, err := node.FabricPeer(environ); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", variable, err, want)
		}
	}
	for variable, want := range map[string]string{
		"ORDERER_GENERAL_TLS_ENABLED=false":           "over TLS only",
		"ORDERER_GENERAL_TLS_CLIENTAUTHREQUIRED=true": "General.TLS.ClientRootCAs",
		"ORDERER_ADMIN_TLS_CLIENTAUTHREQUIRED=false":  "needs client certificates",
		"ORDERER_GENERAL_LISTENPORT=http":             "whole number",
		"ORDERER_GENERAL_BCCSP_DEFAULT=PKCS11":        "only SW",
	} {
		_, environ := fabric(t, "orderer.yaml", ordererPart, variable)
		if _, _, err := node.FabricOrderer(environ); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", variable, err, want)
		}
	}
}
