import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import fabricNetwork from 'fabric-network';
import { allOf, outOf } from '../lib/contracts.mjs';
import { eventually, newID, rejects } from '../lib/expect.mjs';

// A profile that knows one peer: no channels, no orderers, no other members.
const profileOf = (net, member = net.member('org1')) => ({
    name: 'one peer', version: '1.0.0', client: { organization: 'own' },
    organizations: { own: { mspid: member.mspId, peers: ['first'] } },
    peers: { first: { url: `grpcs://${member.address}`, grpcOptions: { 'grpc-wait-for-ready-timeout': 1000 }, tlsCACerts: { pem: fs.readFileSync(member.tlsRoot, 'utf8') } } },
});
let network;

export default {
    area: 'Services',
    title: 'fabric-network with discovery',
    about: 'the older client finds peers, orderers and endorsement plans by asking one peer',
    setup: async (net) => {
        await net.deploy('basic', { name: 'legacy-two', policy: outOf(2, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') });
        await net.deploy('basic', { name: 'legacy-all', policy: allOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') });
        await net.deploy('basic-too', { name: 'legacy-called', policy: allOf('Org1MSP.peer', 'Org3MSP.peer') });
        const open = () => net.legacy('org1', {
            profile: profileOf(net),
            eventHandlerOptions: { strategy: fabricNetwork.DefaultEventHandlerStrategies.NETWORK_SCOPE_ALLFORTX, commitTimeout: 30 },
        });
        network = await eventually(open);
        await eventually(() => network.getContract('legacy-called').submitTransaction('Put', newID(), 'v').then(() => true), 30);
    },
    cases: [
        {
            name: 'members, peers and orderers are found',
            run: async (net) => {
                const channel = network.getChannel();
                assert.deepEqual(channel.getMspids().sort(), ['OrdererMSP', ...net.mspIds]);
                assert.deepEqual(channel.getEndorsers().map((e) => e.mspid).sort(), net.mspIds);
                assert.equal(channel.getCommitters().length, net.orderers.length);
            },
        },
        {
            name: 'transactions have the endorsements that the policy wants, without anybody naming them',
            run: async () => {
                for (const name of ['legacy-two', 'legacy-all']) {
                    const contract = network.getContract(name);
                    const key = newID();
                    await contract.submitTransaction('Put', key, 'v'); // rejects unless it is valid at every peer
                    assert.equal((await contract.evaluateTransaction('Get', key)).toString(), 'v');
                }
            },
        },
        {
            name: 'a transaction that calls another contract is planned for both',
            run: async () => {
                // Another object than those used before: the client asks once for each.
                const contract = network.getContract('legacy-two', 'basic');
                contract.addDiscoveryInterest({ name: 'legacy-called' });
                await contract.submitTransaction('Ask', 'legacy-called', JSON.stringify(['Put', newID(), 'v']), '');
            },
        },
        {
            name: 'a transaction that calls another contract, planned for one only, is invalid',
            misuse: true,
            run: async () => {
                const transaction = network.getContract('legacy-two').createTransaction('Ask');
                transaction.setEndorsingOrganizations('Org1MSP', 'Org2MSP');
                await rejects(transaction.submit('legacy-called', JSON.stringify(['Put', newID(), 'v']), ''), { message: /ENDORSEMENT_POLICY_FAILURE|10/ });
            },
        },
        {
            name: 'a contract that is not there',
            misuse: true,
            run: () => rejects(network.getContract('nowhere').submitTransaction('Put', 'k', 'v'), { message: /failed constructing descriptor for chaincodes/ }),
        },
        {
            name: 'a channel that is not there',
            misuse: true,
            run: (net) => rejects(net.legacy('org1', { profile: profileOf(net), channel: 'elsewhere' }), { message: /access denied/ }),
        },
        {
            name: 'identities that are unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of [net.refused.stranger, net.refused.unknownMember]) await rejects(net.legacy('org1', { profile: profileOf(net), identity }), { message: /access denied|expired/ });
            },
        },
        {
            name: 'a peer that is not there',
            misuse: true,
            run: async (net) => {
                const profile = profileOf(net, { ...net.member('org1'), address: '127.0.0.1:1' });
                await rejects(net.legacy('org1', { profile }), { message: /DiscoveryService|connect|ECONNREFUSED|discovery/i });
            },
        },
    ],
};
