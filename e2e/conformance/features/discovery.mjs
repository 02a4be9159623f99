import assert from 'node:assert/strict';
import { allOf, anyOf, outOf } from '../lib/contracts.mjs';
import { eventually, rejects } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

const { discovery, make, peer } = wire;

// discover asks a member's peer as the `discover` command does; the answers are QueryResults.
async function discover(net, queries, { member = 'org1', identity = net.user('org1'), sign = identity.sign, authentication, payload } = {}) {
    authentication ??= make(discovery.AuthInfo, { clientIdentity: identity.creator });
    payload ??= wire.bytes(make(discovery.Request, { authentication, queries }));
    const request = make(discovery.SignedRequest, { payload, signature: await sign(payload) });
    return (await wire.unary(net.stub('discovery', member), 'discover', request)).getResultsList();
}
const peersOf = (channel, filter) => make(discovery.Query, { channel, peerQuery: make(discovery.PeerMembershipQuery, { filter }) });
const config = (channel) => make(discovery.Query, { channel, configQuery: new discovery.ConfigQuery() });
const interest = (...names) => make(peer.ChaincodeInterest, { chaincodes: names.map((n) => (typeof n === 'string' ? make(peer.ChaincodeCall, { name: n }) : n)) });
const endorsers = (channel, ...interests) => make(discovery.Query, { channel, ccQuery: make(discovery.ChaincodeQuery, { interests }) });

function failed(result, pattern) {
    assert.ok(result.hasError(), 'there is no error');
    assert.match(result.getError().getContent(), pattern);
}
// plan is a descriptor in short: each group's members, and the layouts as counts of members.
function plan(descriptor) {
    const groups = new Map();
    for (const [name, peers] of descriptor.getEndorsersByGroupsMap().entries()) {
        const ids = peers.getPeersList().map((p) => wire.msp.SerializedIdentity.deserializeBinary(p.getIdentity_asU8()).getMspid());
        groups.set(name, [...new Set(ids)]);
    }
    const layouts = descriptor.getLayoutsList().map((l) => [...l.getQuantitiesByGroupMap().entries()].flatMap(([g, n]) => Array(n).fill(groups.get(g).join())).sort());
    return layouts.map((l) => l.join('+')).sort();
}
const planOf = async (net, ...names) => {
    const [result] = await discover(net, [endorsers(net.channel, interest(...names))]);
    assert.ok(!result.hasError(), result.getError()?.getContent());
    const [descriptor] = result.getCcQueryRes().getContentList();
    return { chaincode: descriptor.getChaincode(), layouts: plan(descriptor) };
};

export default {
    area: 'Services',
    title: 'Discovery',
    about: '`discovery.Discovery/Discover`, as the `discover` command calls it: peers, config, endorsers and their layouts',
    gaps: ['a certificate that has expired is still answered, as by Fabric; no other service takes one.'],
    setup: async (net) => {
        await Promise.all([
            net.deploy('basic', { name: 'found-any', policy: anyOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') }),
            net.deploy('basic', { name: 'found-all', policy: allOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') }),
            net.deploy('basic', { name: 'found-two', policy: outOf(2, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') }),
            net.deploy('basic', { name: 'found-nested', policy: allOf('Org3MSP.peer', anyOf('Org1MSP.peer', 'Org2MSP.peer')) }),
            net.deploy('basic', { name: 'found-nobody', policy: allOf('Org1MSP.peer', 'Org9MSP.peer') }),
        ]);
        // Peers tell each other in their own time what they run.
        await eventually(async () => (await planOf(net, 'found-all')).layouts.length === 1, 30);
    },
    cases: [
        {
            name: 'the channel’s peers, by member, with address, height and contracts',
            run: (net) => eventually(async () => {
                const [result] = await discover(net, [peersOf(net.channel)]);
                const members = result.getMembers().getPeersByOrgMap();
                for (const { mspId, address } of net.setup.members) {
                    const [one] = members.get(mspId).getPeersList();
                    const { gossip } = await import('@hyperledger/fabric-protos');
                    const alive = gossip.GossipMessage.deserializeBinary(one.getMembershipInfo().getPayload_asU8()).getAliveMsg();
                    assert.equal(alive.getMembership().getEndpoint(), address);
                    const state = gossip.GossipMessage.deserializeBinary(one.getStateInfo().getPayload_asU8()).getStateInfo().getProperties();
                    assert.ok(state.getLedgerHeight() > 0);
                    assert.ok(state.getChaincodesList().some((c) => c.getName() === 'found-any'));
                    assert.equal(wire.msp.SerializedIdentity.deserializeBinary(one.getIdentity_asU8()).getMspid(), mspId);
                }
                return true;
            }),
        },
        {
            name: 'the channel’s configuration: members’ certificates, orderers’ addresses',
            run: async (net) => {
                const [result] = await discover(net, [config(net.channel)]);
                const { msps, orderers } = { msps: result.getConfigResult().getMspsMap(), orderers: result.getConfigResult().getOrderersMap() };
                assert.deepEqual([...msps.keys()].sort(), ['OrdererMSP', 'Org1MSP', 'Org2MSP', 'Org3MSP']);
                assert.ok(msps.get('Org1MSP').getRootCertsList().length === 1 && msps.get('Org1MSP').getTlsRootCertsList().length === 1);
                const [endpoint] = orderers.get('OrdererMSP').getEndpointList();
                assert.equal(`${endpoint.getHost()}:${endpoint.getPort()}`, net.orderers[0].address);
            },
        },
        {
            name: 'layouts of a contract: any one, all, two of three, nested',
            run: async (net) => {
                assert.deepEqual(await planOf(net, 'found-any'), { chaincode: 'found-any', layouts: ['Org1MSP', 'Org2MSP', 'Org3MSP'] });
                assert.deepEqual((await planOf(net, 'found-all')).layouts, ['Org1MSP+Org2MSP+Org3MSP']);
                assert.deepEqual((await planOf(net, 'found-two')).layouts, ['Org1MSP+Org2MSP', 'Org1MSP+Org3MSP', 'Org2MSP+Org3MSP']);
                assert.deepEqual((await planOf(net, 'found-nested')).layouts, ['Org1MSP+Org3MSP', 'Org2MSP+Org3MSP']);
            },
        },
        {
            name: 'a transaction that touches two contracts wants what both want',
            run: async (net) => {
                assert.deepEqual((await planOf(net, 'found-any', 'found-all')).layouts, ['Org1MSP+Org2MSP+Org3MSP']);
                assert.deepEqual((await planOf(net, 'found-nested', 'found-any')).layouts, ['Org1MSP+Org3MSP', 'Org2MSP+Org3MSP']);
            },
        },
        {
            name: 'several questions in one request, answered in their order',
            run: async (net) => {
                const results = await discover(net, [config(net.channel), peersOf(net.channel), endorsers(net.channel, interest('found-any'), interest('found-all'))]);
                assert.deepEqual(results.map((r) => [r.hasConfigResult(), r.hasMembers(), r.hasCcQueryRes()]), [[true, false, false], [false, true, false], [false, false, true]]);
                assert.equal(results[2].getCcQueryRes().getContentList().length, 2);
            },
        },
        {
            name: 'every peer tells the same plans',
            run: async (net) => {
                for (const member of ['org2', 'org3']) {
                    await eventually(async () => {
                        const [result] = await discover(net, [endorsers(net.channel, interest('found-two'))], { member });
                        return plan(result.getCcQueryRes().getContentList()[0]).length === 3;
                    });
                }
            },
        },
        {
            name: 'peers without a channel are told to administrators of the member',
            run: async (net) => {
                const [result] = await discover(net, [make(discovery.Query, { localPeers: new discovery.LocalPeerQuery() })], { identity: net.user('org1', 'Admin') });
                assert.ok(result.hasMembers(), result.getError()?.getContent());
                assert.equal(result.getMembers().getPeersByOrgMap().get('Org1MSP').getPeersList().length, 1);
            },
        },
        {
            name: '… and to nobody else',
            misuse: true,
            run: async (net) => {
                for (const identity of [net.user('org1'), net.user('org2', 'Admin')]) {
                    const [result] = await discover(net, [make(discovery.Query, { localPeers: new discovery.LocalPeerQuery() })], { identity });
                    failed(result, /access denied/);
                }
            },
        },
        {
            name: 'a contract that is not there, alone or beside another; no contract at all',
            misuse: true,
            run: async (net) => {
                const results = await discover(net, [
                    endorsers(net.channel, interest('nowhere')), endorsers(net.channel, interest('found-any', 'nowhere')),
                    endorsers(net.channel), endorsers(net.channel, interest()), endorsers(net.channel, interest('')),
                ]);
                failed(results[0], /failed constructing descriptor for.*nowhere/);
                failed(results[1], /failed constructing descriptor for.*nowhere/);
                failed(results[2], /chaincode query must have at least one chaincode interest/);
                failed(results[3], /chaincode interest must contain at least one chaincode/);
                failed(results[4], /chaincode name in interest cannot be empty/);
            },
        },
        {
            name: 'a policy that nobody can fulfil',
            misuse: true,
            run: async (net) => failed((await discover(net, [endorsers(net.channel, interest('found-nobody'))]))[0], /failed constructing descriptor/),
        },
        {
            name: 'a collection that the contract does not have',
            misuse: true,
            run: async (net) => {
                const call = make(peer.ChaincodeCall, { name: 'found-any', collectionNames: ['secrets'] });
                failed((await discover(net, [endorsers(net.channel, interest(call))]))[0], /failed constructing descriptor/);
            },
        },
        {
            name: 'a channel that is not there, and no channel',
            misuse: true,
            run: async (net) => {
                for (const query of [config('elsewhere'), peersOf('elsewhere'), endorsers('elsewhere', interest('found-any'))]) failed((await discover(net, [query]))[0], /access denied/);
                failed((await discover(net, [config('')], { identity: net.user('org1', 'Admin') }))[0], /unknown or missing request type/);
            },
        },
        {
            name: 'a question of no kind',
            misuse: true,
            run: async (net) => failed((await discover(net, [make(discovery.Query, { channel: net.channel })]))[0], /unknown or missing request type/),
        },
        {
            name: 'identities that are unknown, or of an unknown member; another’s signature',
            misuse: true,
            run: async (net) => {
                for (const identity of [net.refused.stranger, net.refused.unknownMember]) failed((await discover(net, [config(net.channel)], { identity }))[0], /access denied/);
                failed((await discover(net, [config(net.channel)], { sign: net.user('org2').sign }))[0], /access denied/);
            },
        },
        {
            name: 'a request without authentication, without an identity, and one that cannot be read',
            misuse: true,
            run: async (net) => {
                await rejects(discover(net, [], { payload: wire.bytes(make(discovery.Request, { queries: [config(net.channel)] })) }), { message: /access denied, no authentication info in request/ });
                await rejects(discover(net, [config(net.channel)], { authentication: new discovery.AuthInfo() }), { message: /access denied, client identity wasn't supplied/ });
                await rejects(discover(net, [], { payload: Buffer.from('nonsense') }), { message: /failed parsing request/ });
            },
        },
    ],
};
