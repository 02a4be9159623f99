package node

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hansa-ledger/hansa/internal/builder"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/fabricconfig"
)

// dropinDir is the folder for our data within the one that a Fabric node has, so
// that neither takes the other's files for its own.
const dropinDir = "hansa"

// coreDefaults and ordererDefaults are what a node goes by in a container that has no file of Fabric's.
const (
	coreDefaults = `
peer:
  listenAddress: 0.0.0.0:7051
  fileSystemPath: /var/hyperledger/production
  mspConfigPath: msp
  tls: {cert: {file: tls/server.crt}, key: {file: tls/server.key}}
chaincode:
  externalBuilders: [{name: ccaas_builder, path: /opt/hyperledger/ccaas_builder}]
operations: {listenAddress: "127.0.0.1:9443"}
`
	ordererDefaults = `
General:
  ListenAddress: 127.0.0.1
  ListenPort: 7050
  TLS: {PrivateKey: tls/server.key, Certificate: tls/server.crt}
  LocalMSPDir: msp
FileLedger: {Location: /var/hyperledger/production/orderer}
Consensus: {WALDir: /var/hyperledger/production/orderer/etcdraft/wal, SnapDir: /var/hyperledger/production/orderer/etcdraft/snapshot}
Operations: {ListenAddress: "127.0.0.1:8443"}
Admin: {ListenAddress: "127.0.0.1:9443"}
`
)

// FabricPeer is the configuration of a peer from Fabric's core.yaml and CORE_*
// variables, with what should be said about settings that are not followed.
func FabricPeer(environ []string) (PeerConfig, []fabricconfig.Notice, error) {
	s, err := fabricconfig.Load(fabricconfig.Core, environ, coreDefaults)
	if err != nil {
		return PeerConfig{}, nil, err
	}
	c := PeerConfig{
		MSPID:   s.String("peer.localMspId"),
		MSPDir:  s.Path("peer.mspConfigPath"),
		Listen:  s.String("peer.listenAddress"),
		Address: publicAddress(s),
		TLS: fabricTLS(s, tlsKeys{enabled: "peer.tls.enabled", cert: "peer.tls.cert.file", key: "peer.tls.key.file",
			clientAuth: "peer.tls.clientAuthRequired", clientRoots: "peer.tls.clientRootCAs.files"}),
		TimeWindow: s.Duration("peer.authentication.timewindow"),
		Operations: operationsPort(s, "operations.listenAddress", tlsKeys{enabled: "operations.tls.enabled", cert: "operations.tls.cert.file",
			key: "operations.tls.key.file", clientAuth: "operations.tls.clientAuthRequired", clientRoots: "operations.tls.clientRootCAs.files"}),
		Chaincode: ChaincodeConfig{
			ExecuteTimeout:   s.Duration("chaincode.executetimeout"),
			StartTimeout:     s.Duration("chaincode.startuptimeout"),
			BuildTimeout:     s.Duration("chaincode.installTimeout"),
			Builder:          serviceValues(s, environ),
			ExternalBuilders: builders(s),
		},
		Gateway: GatewayConfig{
			EndorsementTimeout: s.Duration("peer.gateway.endorsementTimeout"),
			BroadcastTimeout:   s.Duration("peer.gateway.broadcastTimeout"),
		},
		PrivateData: PrivateDataConfig{
			PushTimeout:       s.Duration("peer.gossip.pvtData.pushAckTimeout"),
			PullTimeout:       s.Duration("peer.gossip.pvtData.pullRetryThreshold"),
			ReconcileInterval: s.Duration("peer.gossip.pvtData.reconcileSleepInterval"),
			ImplicitRequired:  s.Int("peer.gossip.pvtData.implicitCollectionDisseminationPolicy.requiredPeerCount"),
			ImplicitMaximum:   s.Int("peer.gossip.pvtData.implicitCollectionDisseminationPolicy.maxPeerCount"),
		},
		Limits: PeerLimits{
			Endorser: concurrency(s, "peer.limits.concurrency.endorserService"),
			Gateway:  concurrency(s, "peer.limits.concurrency.gatewayService"),
			Deliver:  concurrency(s, "peer.limits.concurrency.deliverService"),
		},
	}
	c.DataDir, c.FabricData = dataFolder(s, "peer.fileSystemPath", ledgersDir)
	c.Chaincode.Listen, c.Chaincode.Address = contractAddresses(s, c.Address, len(c.Chaincode.ExternalBuilders) > 0)
	if c.TLS.RequireClientCert {
		s.Note(slog.LevelWarn, "peer.tls.clientAuthRequired",
			"clients, and peers of other members, need certificates of peer.tls.clientRootCAs; the channels' authorities are not added to them")
	}
	keysInFolder(s, "peer.BCCSP")
	if kind := s.String("peer.localMspType"); kind != "" && kind != "bccsp" {
		s.Fail("peer.localMspType", "only bccsp, X.509 certificates, is supported")
	}
	switchedOff(s, "peer.gateway.enabled", "the Gateway is served all the same")
	switchedOff(s, "peer.discovery.enabled", "discovery is served all the same")
	switchedOff(s, "peer.gossip.pvtData.reconciliationEnabled", "missing private data is fetched later all the same")
	for _, key := range []string{"peer.handlers.endorsers.escc.library", "peer.handlers.validators.vscc.library"} {
		if s.Has(key) {
			s.Note(slog.LevelWarn, key, "plugins are not loaded: endorsement and validation are Fabric's own")
		}
	}
	if s.String("chaincode.mode") == "dev" {
		s.Note(slog.LevelWarn, "chaincode.mode", "there is no development mode: install the contract as a service")
	}
	if s.Has("peer.deliveryclient.addressOverrides") {
		s.Note(slog.LevelWarn, "peer.deliveryclient.addressOverrides", "orderers are reached at the addresses that the channels' configurations name")
	}
	if s.Has("ledger.snapshots.rootDir") {
		s.Note(slog.LevelInfo, "ledger.snapshots.rootDir", "snapshots are written to "+filepath.Join(c.DataDir, "snapshots"))
	}
	statsd(s, "metrics.provider")
	if c.Log, err = fabricLog(s, environ); err != nil {
		return c, nil, err
	}
	return c, s.Notices(), s.Err()
}

// FabricOrderer is the same from orderer.yaml and ORDERER_* variables.
func FabricOrderer(environ []string) (OrdererConfig, []fabricconfig.Notice, error) {
	s, err := fabricconfig.Load(fabricconfig.Orderer, environ, ordererDefaults)
	if err != nil {
		return OrdererConfig{}, nil, err
	}
	c := OrdererConfig{
		MSPID:  s.String("General.LocalMSPID"),
		MSPDir: s.Path("General.LocalMSPDir"),
		Listen: net.JoinHostPort(cmp.Or(s.String("General.ListenAddress"), "127.0.0.1"), strconv.Itoa(cmp.Or(s.Int("General.ListenPort"), 7050))),
		TLS: fabricTLS(s, tlsKeys{enabled: "General.TLS.Enabled", cert: "General.TLS.Certificate", key: "General.TLS.PrivateKey",
			clientAuth: "General.TLS.ClientAuthRequired", clientRoots: "General.TLS.ClientRootCAs"}),
		Admin: fabricAdmin(s),
		Operations: operationsPort(s, "Operations.ListenAddress", tlsKeys{enabled: "Operations.TLS.Enabled", cert: "Operations.TLS.Certificate",
			key: "Operations.TLS.PrivateKey", clientAuth: "Operations.TLS.ClientAuthRequired", clientRoots: "Operations.TLS.ClientRootCAs"}),
	}
	if c.DataDir, c.FabricData.Ledger = dataFolder(s, "FileLedger.Location", "chains"); c.FabricData.Ledger != "" {
		c.FabricData.WAL, c.FabricData.Snapshots = s.Path("Consensus.WALDir"), s.Path("Consensus.SnapDir")
	}
	// Consenters know each other by the certificates in the channel's configuration.
	for _, key := range []string{"Client", "Server"} {
		cert, private := s.Path("General.Cluster."+key+"Certificate"), s.Path("General.Cluster."+key+"PrivateKey")
		if cert != "" && cert != c.TLS.Cert || private != "" && private != c.TLS.Key {
			s.Note(slog.LevelWarn, "General.Cluster."+key+"Certificate", "other consenters are shown General.TLS.Certificate: the channel's configuration must name it for this consenter")
		}
	}
	if s.Has("General.Cluster.ListenAddress") || s.Int("General.Cluster.ListenPort") != 0 {
		s.Note(slog.LevelWarn, "General.Cluster.ListenPort",
			"consenters are served at General.ListenPort only: the channel's configuration must name that port for this consenter")
	}
	if method := s.String("General.BootstrapMethod"); method != "" && method != "none" {
		s.Note(slog.LevelWarn, "General.BootstrapMethod", "there is no system channel: join channels by the channel participation API (osnadmin channel join)")
	}
	for _, key := range []string{"Consensus.WALDir", "Consensus.SnapDir"} {
		if s.Has(key) {
			s.Note(slog.LevelInfo, key, "consensus logs lie with the chains in "+c.DataDir)
		}
	}
	keysInFolder(s, "General.BCCSP")
	statsd(s, "Metrics.Provider")
	if c.Log, err = fabricLog(s, environ); err != nil {
		return c, nil, err
	}
	return c, s.Notices(), s.Err()
}

// fabricAdmin maps the channel participation API's port. Without mutual TLS it
// is this machine's only: whoever reaches it administrates the orderer.
func fabricAdmin(s *fabricconfig.Settings) AdminConfig {
	c := AdminConfig{Listen: s.String("Admin.ListenAddress"), TLS: TLSConfig{Cert: s.Path("Admin.TLS.Certificate"), Key: s.Path("Admin.TLS.PrivateKey"),
		ClientRoots: s.Paths("Admin.TLS.ClientRootCAs"), RequireClientCert: true}}
	required := !s.Has("Admin.TLS.ClientAuthRequired") || s.Bool("Admin.TLS.ClientAuthRequired")
	switch on := s.Bool("Admin.TLS.Enabled"); {
	case c.Listen == "":
		return AdminConfig{}
	case !on && loopback(c.Listen):
		s.Note(slog.LevelWarn, "Admin.TLS.Enabled", "the admin port has no TLS: every user of this machine may administrate")
		return AdminConfig{Listen: c.Listen, Plain: true}
	case !on:
		s.Note(slog.LevelWarn, "Admin.TLS.Enabled", "the admin port stays closed: without TLS it is opened on 127.0.0.1 only")
		return AdminConfig{}
	case !required:
		s.Fail("Admin.TLS.ClientAuthRequired", "true is wanted: the admin port needs client certificates")
	}
	return c
}

// tlsKeys name the settings of one server.
type tlsKeys struct{ enabled, cert, key, clientAuth, clientRoots string }

func fabricTLS(s *fabricconfig.Settings, keys tlsKeys) TLSConfig {
	c := TLSConfig{Cert: s.Path(keys.cert), Key: s.Path(keys.key), RequireClientCert: s.Bool(keys.clientAuth)}
	if !s.Bool(keys.enabled) {
		s.Fail(keys.enabled, "true is wanted: nodes are served over TLS only")
	}
	// Fabric reads the authorities of clients only where clients must have certificates.
	if roots := s.Paths(keys.clientRoots); c.RequireClientCert {
		c.ClientRoots = roots
		if len(roots) == 0 {
			s.Fail(keys.clientRoots, "the authorities of clients' certificates are missing")
		}
	}
	return c
}

// operationsPort maps the port for health checks and metrics; the settings below tls are named alike but for their case.
func operationsPort(s *fabricconfig.Settings, address string, keys tlsKeys) OperationsConfig {
	c := OperationsConfig{Listen: s.String(address)}
	if c.Listen == "" || !s.Bool(keys.enabled) {
		return c
	}
	c.TLS = TLSConfig{Cert: s.Path(keys.cert), Key: s.Path(keys.key), ClientRoots: s.Paths(keys.clientRoots), RequireClientCert: s.Bool(keys.clientAuth)}
	if c.TLS.Cert == "" || c.TLS.Key == "" {
		s.Fail(keys.enabled, "the certificate or the key is missing")
	}
	return c
}

// contractAddresses are where classic contracts register, and what those are told that builders run. Fabric protects the port by certificates that it
// makes for the contracts it starts; so do we. Without builders nobody has such a certificate: then the port is for this machine only.
func contractAddresses(s *fabricconfig.Settings, peer string, builders bool) (listen, address string) {
	const key, outside = "peer.chaincodeListenAddress", "peer.chaincodeAddress"
	listen, address = s.String(key), s.String(outside)
	if !builders {
		if listen == "" {
			return "", ""
		}
		if _, _, err := net.SplitHostPort(listen); err != nil {
			s.Fail(key, "an address such as 127.0.0.1:7052 is wanted")
			return "", ""
		}
		if !loopback(listen) {
			s.Note(slog.LevelWarn, key, "the port for classic contracts stays closed: without external builders it has no TLS, so it is opened on 127.0.0.1 only; contracts as a service do not need it")
			return "", ""
		}
		return listen, ""
	}
	ownHost, _, _ := net.SplitHostPort(peer)
	if listen == "" {
		listen = net.JoinHostPort(cmp.Or(ownHost, "127.0.0.1"), "7052")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		s.Fail(key, "an address such as 127.0.0.1:7052 is wanted")
		return "", ""
	}
	if address == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = cmp.Or(ownHost, "127.0.0.1")
		}
		return listen, net.JoinHostPort(host, port)
	}
	host, _, err = net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip != nil && ip.IsUnspecified() {
		s.Fail(outside, "an address at which contracts reach this peer is wanted, such as 127.0.0.1:7052")
		return "", ""
	}
	return listen, address
}

// publicAddress is how others reach the peer: what it tells other members, or else its
// own. As in Fabric the machine's address stands in for 0.0.0.0.
func publicAddress(s *fabricconfig.Settings) string {
	external, address := s.String("peer.gossip.externalEndpoint"), s.String("peer.address")
	detect := s.Bool("peer.addressAutoDetect")
	if external != "" {
		address, detect = external, false
	}
	if address == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		s.Fail("peer.address", fmt.Sprintf("%q is not host:port", address))
		return ""
	}
	if ip := net.ParseIP(host); detect || host == "" || ip != nil && ip.IsUnspecified() {
		if own := machineAddress(); own != "" {
			return net.JoinHostPort(own, port)
		}
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

func machineAddress() string {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// builders are those whose programs are there.
func builders(s *fabricconfig.Settings) (list []builder.Builder) {
	const key = "chaincode.externalBuilders"
	names := map[string]bool{}
	for _, entry := range s.Entries(key) {
		b := builder.Builder{}
		for name, value := range entry {
			switch strings.ToLower(name) {
			case "name":
				b.Name = fmt.Sprint(value)
			case "path":
				b.Path = fmt.Sprint(value)
			case "propagateenvironment", "environmentwhitelist": // the second is Fabric 2.0's
				variables, _ := value.([]any)
				for _, v := range variables {
					b.Environment = append(b.Environment, fmt.Sprint(v))
				}
			default:
				s.Note(slog.LevelWarn, key, "unknown setting of a builder: "+name)
			}
		}
		switch {
		case b.Name == "" || b.Path == "":
			s.Fail(key, "each builder needs a name and a path")
		case names[b.Name]:
			s.Fail(key, fmt.Sprintf("there are two builders named %s", b.Name))
		case b.Complete():
			list = append(list, b)
		case strings.Contains(b.Name, "ccaas") || strings.Contains(filepath.Base(b.Path), "ccaas"):
			s.Note(slog.LevelInfo, key, fmt.Sprintf("builder %s (%s) is not there; packages of contracts as a service are served without it", b.Name, b.Path))
		default:
			s.Note(slog.LevelWarn, key, fmt.Sprintf("builder %s has no programs bin/detect and bin/build in %s: it is left out", b.Name, b.Path))
		}
		names[b.Name] = true
	}
	return list
}

// serviceValues are for the templates of connection.json, where Fabric's own builder would fill them.
func serviceValues(s *fabricconfig.Settings, environ []string) map[string]string {
	const variable = "CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG"
	config, err := contractpackage.ParseConfig(environment(environ, variable))
	if err != nil {
		s.Fail("chaincode.externalBuilders", err.Error())
		return nil
	}
	var values map[string]string
	for name, value := range config {
		if values == nil {
			values = map[string]string{}
		}
		values[name] = fmt.Sprint(value)
	}
	return values
}

// dataFolder is our folder in Fabric's, and Fabric's where it holds ledgers, which are left as they are.
func dataFolder(s *fabricconfig.Settings, key, ledgers string) (own, fabric string) {
	dir := s.Path(key)
	if dir == "" {
		s.Fail(key, "a folder is wanted")
		return "", ""
	}
	own = filepath.Join(dir, dropinDir)
	if _, err := os.Stat(filepath.Join(dir, ledgers)); err == nil {
		fabric = dir
		s.Note(slog.LevelInfo, key, "the folder holds ledgers of Fabric: what is not in "+own+" yet is taken over into it, and Fabric's files are left as they are")
	}
	return own, fabric
}

// concurrency is a limit; Fabric's 0 is none.
func concurrency(s *fabricconfig.Settings, key string) int {
	n := s.Int(key)
	if n == 0 && s.Has(key) {
		return math.MaxInt32
	}
	return n
}

// keysInFolder makes sure that the node's key is a file of its MSP folder.
func keysInFolder(s *fabricconfig.Settings, bccsp string) {
	if provider := s.String(bccsp + ".Default"); provider != "" && !strings.EqualFold(provider, "SW") {
		s.Fail(bccsp+".Default", "only SW is supported, with the key as a file in the MSP folder's keystore")
	}
	if key := bccsp + ".SW.FileKeyStore.KeyStore"; s.Has(key) {
		s.Note(slog.LevelWarn, key, "the key is read from the MSP folder's keystore")
	}
}

func switchedOff(s *fabricconfig.Settings, key, text string) {
	if s.Has(key) && !s.Bool(key) {
		s.Note(slog.LevelWarn, key, text)
	}
}

func statsd(s *fabricconfig.Settings, key string) {
	if s.String(key) == "statsd" {
		s.Note(slog.LevelWarn, key, "nothing is sent to statsd; the operations port serves metrics for Prometheus")
	}
}

// fabricLog maps FABRIC_LOGGING_SPEC, such as "gossip=warning:info", and FABRIC_LOGGING_FORMAT.
func fabricLog(s *fabricconfig.Settings, environ []string) (LogConfig, error) {
	c := LogConfig{Format: "text"}
	if environment(environ, "FABRIC_LOGGING_FORMAT") == "json" {
		c.Format = "json"
	}
	for _, part := range strings.Split(environment(environ, "FABRIC_LOGGING_SPEC"), ":") {
		loggers, name, single := strings.Cut(part, "=")
		if !single {
			name = loggers
		}
		level, ok := fabricLevel(strings.TrimSpace(name))
		if !ok {
			return c, fmt.Errorf("FABRIC_LOGGING_SPEC: %q is no level; debug, info, warning, error, panic or fatal is wanted", name)
		}
		if single {
			s.Note(slog.LevelInfo, "FABRIC_LOGGING_SPEC", "single loggers have no levels here: "+part)
			continue
		}
		c.Level = level
	}
	return c, nil
}

func fabricLevel(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "debug", "payload":
		return slog.LevelDebug, true
	case "", "info", "notice":
		return slog.LevelInfo, true
	case "warning", "warn":
		return slog.LevelWarn, true
	case "error", "critical", "dpanic", "panic", "fatal":
		return slog.LevelError, true
	}
	return 0, false
}

func environment(environ []string, name string) (value string) {
	for _, entry := range environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}
