// The contract in contracts/records as the features use it: with one collection for each kind.

import { allOf, anyOf } from './contracts.mjs';
import { eventually, text } from './expect.mjs';

const both = anyOf('Org1MSP.member', 'Org2MSP.member');

// Any member endorses. Of the collections 'shared' is the plain one, and each other differs in what its name says.
const definition = {
    policy: anyOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer'),
    collections: [
        { name: 'shared', policy: both, maxPeerCount: 1 },
        { name: 'guarded', policy: both, maxPeerCount: 1, memberOnlyRead: true, memberOnlyWrite: true },
        { name: 'strict', policy: both, requiredPeerCount: 1, maxPeerCount: 1 },
        { name: 'lonely', policy: anyOf('Org1MSP.member'), requiredPeerCount: 1, maxPeerCount: 1 },
        { name: 'quiet', policy: both, maxPeerCount: 0 },
        { name: 'brief', policy: both, maxPeerCount: 1, blockToLive: 2 },
        { name: 'agreed', policy: both, maxPeerCount: 1, endorsementPolicy: allOf('Org1MSP.peer', 'Org2MSP.peer') },
    ],
};

// records is the contract through a member's gateway; options as of net.contract.
export async function records(net, member = 'org1', options) {
    await net.deploy('records', definition);
    return net.contract(member, 'records', options);
}

// put writes a private value, endorsed by the members that are named, or whom the gateway chooses.
export const put = (contract, collection, key, value, ...endorsingOrganizations) => contract.submit('PutPrivate', {
    arguments: [collection, key], transientData: { value }, ...(endorsingOrganizations.length ? { endorsingOrganizations } : {}),
});

// get is a private value as the gateway's own peer has it.
export const get = async (contract, collection, key) => text(await contract.evaluateTransaction('GetPrivate', collection, key));

// reads waits until that peer has a value.
export const reads = (contract, collection, key, want) => eventually(async () => await get(contract, collection, key) === want);

// notHere is what a peer says that has only the hash.
export const notHere = /private data matching public hash version is not available/;
