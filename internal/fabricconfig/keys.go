package fabricconfig

import "strings"

// names are the keys of one kind of file, in lower case: those that stand for
// themselves, and those that may have anything below them.
type names struct {
	exact map[string]string // to the way in which it is written
	below []string
}

func keysOf(kind string) *names {
	list := coreKeys
	if kind == Orderer {
		list = ordererKeys
	}
	n := &names{exact: map[string]string{}}
	for _, key := range strings.Fields(list) {
		lower := strings.ToLower(key)
		if prefix, ok := strings.CutSuffix(lower, "*"); ok {
			n.below = append(n.below, prefix)
			continue
		}
		n.exact[lower] = key
	}
	return n
}

func (n *names) has(lower string) bool {
	if _, ok := n.exact[lower]; ok {
		return true
	}
	for _, prefix := range n.below {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	return false
}

// The names of the settings of Fabric 2.5 and 3.x, and some that older files
// still have.

// coreKeys are those of core.yaml.
const coreKeys = `
chaincode.builder
chaincode.executetimeout
chaincode.externalBuilders
chaincode.golang
chaincode.golang.*
chaincode.id
chaincode.id.name
chaincode.id.path
chaincode.installTimeout
chaincode.java
chaincode.java.*
chaincode.keepalive
chaincode.logging.format
chaincode.logging.level
chaincode.logging.shim
chaincode.mode
chaincode.node
chaincode.node.*
chaincode.pull
chaincode.runtimeParams.maxSizeGetMultipleKeys
chaincode.runtimeParams.maxSizeWriteBatch
chaincode.runtimeParams.useGetMultipleKeys
chaincode.runtimeParams.useWriteBatch
chaincode.startuptimeout
chaincode.system
chaincode.system.*
ledger.blockchain
ledger.history.enableHistoryDatabase
ledger.pvtdataStore.collElgProcDbBatchesInterval
ledger.pvtdataStore.collElgProcMaxDbBatchSize
ledger.pvtdataStore.deprioritizedDataReconcilerInterval
ledger.pvtdataStore.purgedKeyAuditLogging
ledger.pvtdataStore.purgeInterval
ledger.snapshots.rootDir
ledger.state.couchDBConfig.cacheSize
ledger.state.couchDBConfig.couchDBAddress
ledger.state.couchDBConfig.createGlobalChangesDB
ledger.state.couchDBConfig.internalQueryLimit
ledger.state.couchDBConfig.maxBatchUpdateSize
ledger.state.couchDBConfig.maxRetries
ledger.state.couchDBConfig.maxRetriesOnStartup
ledger.state.couchDBConfig.password
ledger.state.couchDBConfig.requestTimeout
ledger.state.couchDBConfig.username
ledger.state.stateDatabase
ledger.state.totalQueryLimit
logging.*
logging.level
logging_level
metrics.provider
metrics.statsd.address
metrics.statsd.network
metrics.statsd.prefix
metrics.statsd.writeInterval
operations.listenAddress
operations.tls.cert.file
operations.tls.clientAuthRequired
operations.tls.clientRootCAs.files
operations.tls.enabled
operations.tls.key.file
orderer.address
orderer.client.connTimeout
orderer.tls.*
peer.address
peer.addressAutoDetect
peer.authentication.timewindow
peer.BCCSP
peer.BCCSP.*
peer.BCCSP.Default
peer.chaincodeAddress
peer.chaincodeListenAddress
peer.client.connTimeout
peer.connectiontimeout
peer.deliveryclient.addressOverrides
peer.deliveryclient.blockCensorshipTimeoutKey
peer.deliveryclient.blockGossipEnabled
peer.deliveryclient.connTimeout
peer.deliveryclient.minimalReconnectInterval
peer.deliveryclient.policy
peer.deliveryclient.reConnectBackoffThreshold
peer.deliveryclient.reconnectTotalTimeThreshold
peer.discovery.authCacheEnabled
peer.discovery.authCacheMaxSize
peer.discovery.authCachePurgeRetentionRatio
peer.discovery.enabled
peer.discovery.orgMembersAllowedAccess
peer.fileSystemPath
peer.gateway.broadcastTimeout
peer.gateway.dialTimeout
peer.gateway.enabled
peer.gateway.endorsementTimeout
peer.gossip.aliveExpirationTimeout
peer.gossip.aliveTimeInterval
peer.gossip.bootstrap
peer.gossip.connTimeout
peer.gossip.dialTimeout
peer.gossip.digestWaitTime
peer.gossip.election.leaderAliveThreshold
peer.gossip.election.leaderElectionDuration
peer.gossip.election.membershipSampleInterval
peer.gossip.election.startupGracePeriod
peer.gossip.endpoint
peer.gossip.externalEndpoint
peer.gossip.maxBlockCountToStore
peer.gossip.maxConnectionAttempts
peer.gossip.maxPropagationBurstLatency
peer.gossip.maxPropagationBurstSize
peer.gossip.membershipTrackerInterval
peer.gossip.msgExpirationFactor
peer.gossip.nonBlockingCommitMode
peer.gossip.orgLeader
peer.gossip.propagateIterations
peer.gossip.propagatePeerNum
peer.gossip.publishCertPeriod
peer.gossip.publishStateInfoInterval
peer.gossip.pullInterval
peer.gossip.pullPeerNum
peer.gossip.pvtData.btlPullMargin
peer.gossip.pvtData.implicitCollectionDisseminationPolicy.maxPeerCount
peer.gossip.pvtData.implicitCollectionDisseminationPolicy.requiredPeerCount
peer.gossip.pvtData.pullRetryThreshold
peer.gossip.pvtData.pushAckTimeout
peer.gossip.pvtData.reconcileBatchSize
peer.gossip.pvtData.reconcileSleepInterval
peer.gossip.pvtData.reconciliationEnabled
peer.gossip.pvtData.skipPullingInvalidTransactionsDuringCommit
peer.gossip.pvtData.transientstoreMaxBlockRetention
peer.gossip.reconnectInterval
peer.gossip.recvBuffSize
peer.gossip.requestStateInfoInterval
peer.gossip.requestWaitTime
peer.gossip.responseWaitTime
peer.gossip.sendBuffSize
peer.gossip.skipBlockVerification
peer.gossip.state.batchSize
peer.gossip.state.blockBufferSize
peer.gossip.state.channelSize
peer.gossip.state.checkInterval
peer.gossip.state.enabled
peer.gossip.state.maxRetries
peer.gossip.state.responseTimeout
peer.gossip.stateInfoRetentionInterval
peer.gossip.useLeaderElection
peer.handlers
peer.handlers.*
peer.id
peer.keepalive.client.interval
peer.keepalive.client.timeout
peer.keepalive.deliveryClient.interval
peer.keepalive.deliveryClient.timeout
peer.keepalive.interval
peer.keepalive.minInterval
peer.keepalive.timeout
peer.limits.concurrency.deliverService
peer.limits.concurrency.endorserService
peer.limits.concurrency.gatewayService
peer.listenAddress
peer.localMspId
peer.localMspType
peer.maxRecvMsgSize
peer.maxSendMsgSize
peer.mspConfigPath
peer.networkId
peer.profile.enabled
peer.profile.listenAddress
peer.tls.cert.file
peer.tls.clientAuthRequired
peer.tls.clientCert.file
peer.tls.clientKey.file
peer.tls.clientRootCAs.files
peer.tls.enabled
peer.tls.key.file
peer.tls.rootcert.file
peer.tls.serverhostoverride
peer.validatorPoolSize
vm.docker.attachStdout
vm.docker.hostConfig
vm.docker.hostConfig.*
vm.docker.tls.ca.file
vm.docker.tls.cert.file
vm.docker.tls.enabled
vm.docker.tls.key.file
vm.endpoint
`

// ordererKeys are those of orderer.yaml.
const ordererKeys = `
Admin.ListenAddress
Admin.TLS.Certificate
Admin.TLS.ClientAuthRequired
Admin.TLS.ClientRootCAs
Admin.TLS.Enabled
Admin.TLS.PrivateKey
Admin.TLS.RootCAs
Admin.TLS.TLSHandshakeTimeShift
ChannelParticipation.Enabled
ChannelParticipation.MaxRequestBodySize
Consensus
Consensus.*
Debug.BroadcastTraceDir
Debug.DeliverTraceDir
FileLedger.Location
FileLedger.Prefix
General.Authentication.NoExpirationChecks
General.Authentication.TimeWindow
General.Backoff.BaseDelay
General.Backoff.MaxDelay
General.Backoff.Multiplier
General.BCCSP
General.BCCSP.*
General.BCCSP.Default
General.BootstrapFile
General.BootstrapMethod
General.Cluster.CertExpirationWarningThreshold
General.Cluster.ClientCertificate
General.Cluster.ClientPrivateKey
General.Cluster.DialTimeout
General.Cluster.ListenAddress
General.Cluster.ListenPort
General.Cluster.ReplicationBackgroundRefreshInterval
General.Cluster.ReplicationBufferSize
General.Cluster.ReplicationMaxRetries
General.Cluster.ReplicationPolicy
General.Cluster.ReplicationPullTimeout
General.Cluster.ReplicationRetryTimeout
General.Cluster.RootCAs
General.Cluster.RPCTimeout
General.Cluster.SendBufferSize
General.Cluster.ServerCertificate
General.Cluster.ServerPrivateKey
General.Cluster.TLSHandshakeTimeShift
General.ConnectionTimeout
General.GenesisFile
General.GenesisMethod
General.GenesisProfile
General.Keepalive.ServerInterval
General.Keepalive.ServerMinInterval
General.Keepalive.ServerTimeout
General.ListenAddress
General.ListenPort
General.LocalMSPDir
General.LocalMSPID
General.LogFormat
General.LogLevel
General.MaxRecvMsgSize
General.MaxSendMsgSize
General.Profile.Address
General.Profile.Enabled
General.SystemChannel
General.Throttling.InactivityTimeout
General.Throttling.Rate
General.TLS.Certificate
General.TLS.ClientAuthRequired
General.TLS.ClientRootCAs
General.TLS.Enabled
General.TLS.PrivateKey
General.TLS.RootCAs
General.TLS.TLSHandshakeTimeShift
Kafka.*
Metrics.Provider
Metrics.Statsd.Address
Metrics.Statsd.Network
Metrics.Statsd.Prefix
Metrics.Statsd.WriteInterval
Operations.ListenAddress
Operations.TLS.Certificate
Operations.TLS.ClientAuthRequired
Operations.TLS.ClientRootCAs
Operations.TLS.Enabled
Operations.TLS.PrivateKey
Operations.TLS.RootCAs
Operations.TLS.TLSHandshakeTimeShift
`
