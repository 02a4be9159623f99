package channel

import "github.com/hansa-ledger/hansa/internal/wire/peerpb"

// Policies that resources fall under unless the channel says otherwise.
const (
	appReaders = "/" + rootKey + "/" + applicationKey + "/" + readersPolicy
	appWriters = "/" + rootKey + "/" + applicationKey + "/" + writersPolicy
)

// ACL gives the policy that a call of a channel resource must satisfy: the
// channel's own choice (the ACLs value), else Fabric's default. False means that
// the resource is not known, or is one of the peer alone (see LocalACL), whose
// rule a channel cannot change.
func (b *Bundle) ACL(resource string) (policyPath string, ok bool) {
	if _, local := LocalACL(resource); local {
		return "", false
	}
	if b.application != nil {
		if path, ok := b.application.acls[resource]; ok {
			return path, true
		}
	}
	switch resource {
	case "_lifecycle/CommitChaincodeDefinition",
		"_lifecycle/QueryChaincodeDefinition",
		"_lifecycle/QueryChaincodeDefinitions",
		"_lifecycle/CheckCommitReadiness",
		"peer/Propose",
		"peer/ChaincodeToChaincode":
		return appWriters, true
	case "lscc/ChaincodeExists",
		"lscc/GetDeploymentSpec",
		"lscc/GetChaincodeData",
		"lscc/GetInstantiatedChaincodes",
		"lscc/GetCollectionsConfig",
		"qscc/GetChainInfo",
		"qscc/GetBlockByNumber",
		"qscc/GetBlockByHash",
		"qscc/GetTransactionByID",
		"qscc/GetBlockByTxID",
		"cscc/GetConfigBlock",
		"cscc/GetChannelConfig",
		"event/Block",
		"event/FilteredBlock",
		"gateway/CommitStatus",
		"gateway/ChaincodeEvents":
		return appReaders, true
	}
	return "", false
}

// LocalRole is whom of its own organization a peer lets call a resource that
// belongs to no channel.
type LocalRole string

// The roles of local resources.
const (
	LocalAdmins  LocalRole = "Admins"
	LocalMembers LocalRole = "Members"
)

// LocalACL gives the role, in the peer's own MSP, that a call of a peer-local
// resource needs. False means that the resource is a channel's.
func LocalACL(resource string) (role LocalRole, ok bool) {
	switch resource {
	case "cscc/GetChannels":
		return LocalMembers, true
	case "_lifecycle/InstallChaincode",
		"_lifecycle/QueryInstalledChaincode",
		"_lifecycle/GetInstalledChaincodePackage",
		"_lifecycle/QueryInstalledChaincodes",
		"_lifecycle/ApproveChaincodeDefinitionForMyOrg",
		"_lifecycle/QueryApprovedChaincodeDefinition",
		"_lifecycle/QueryApprovedChaincodeDefinitions",
		"snapshot/submitrequest",
		"snapshot/cancelrequest",
		"snapshot/listpending",
		"lscc/Install",
		"lscc/GetInstalledChaincodes",
		"cscc/JoinChain",
		"cscc/JoinChainBySnapshot",
		"cscc/JoinBySnapshotStatus":
		return LocalAdmins, true
	}
	return "", false
}

// absoluteACLs reads the ACLs value. A name without a leading slash is a policy of
// the Application group; an empty one leaves the default in force.
func absoluteACLs(acls map[string]*peerpb.APIResource) map[string]string {
	paths := make(map[string]string, len(acls))
	for resource, acl := range acls {
		switch ref := acl.GetPolicyRef(); {
		case ref == "":
		case ref[0] == '/':
			paths[resource] = ref
		default:
			paths[resource] = "/" + rootKey + "/" + applicationKey + "/" + ref
		}
	}
	return paths
}
