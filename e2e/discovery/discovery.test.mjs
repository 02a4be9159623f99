// The older fabric-network finds peers, orderers and endorsement plans by itself: it is told of one peer only.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import test, { after } from 'node:test';
import fabricNetwork from 'fabric-network';

const { DefaultEventHandlerStrategies, Gateway, Wallets } = fabricNetwork;
const setup = JSON.parse(process.env.HANSA_NETWORK);

// A profile without channels, orderers and other members' peers.
const profile = {
    name: 'discovery', version: '1.0.0', client: { organization: 'own' },
    organizations: { own: { mspid: setup.mspId, peers: ['first'] } },
    peers: { first: { url: `grpcs://${setup.address}`, tlsCACerts: { pem: fs.readFileSync(setup.tlsRoot, 'utf8') } } },
};

async function connect() {
    const wallet = await Wallets.newInMemoryWallet();
    await wallet.put('user', {
        type: 'X.509', mspId: setup.mspId,
        credentials: { certificate: fs.readFileSync(setup.certificate, 'utf8'), privateKey: fs.readFileSync(setup.key, 'utf8') },
    });
    const gateway = new Gateway();
    await gateway.connect(profile, {
        wallet, identity: 'user', discovery: { enabled: true, asLocalhost: false },
        eventHandlerOptions: { strategy: DefaultEventHandlerStrategies.NETWORK_SCOPE_ALLFORTX, commitTimeout: 30 },
    });
    after(() => gateway.disconnect());
    return gateway.getNetwork(setup.channel);
}

test('the channel is found', async () => {
    const channel = (await connect()).getChannel();
    assert.deepEqual(channel.getMspids().sort(), ['OrdererMSP', 'Org1MSP', 'Org2MSP', 'Org3MSP']);
    assert.deepEqual(channel.getEndorsers().map((e) => e.mspid).sort(), ['Org1MSP', 'Org2MSP', 'Org3MSP']);
    assert.equal(channel.getCommitters().length, 1);
});

// As Fabric's peers state it: the sequence of the definition stands for the version.
test('peers state what they run', async () => {
    const { peers_by_org: organizations } = await (await connect()).discoveryService.getDiscoveryResults(true);
    for (const name of ['Org1MSP', 'Org2MSP', 'Org3MSP']) {
        const [peer] = organizations[name].peers;
        assert.ok(peer.ledgerHeight.toNumber() > 10, `height ${peer.ledgerHeight}`);
        const runs = peer.chaincodes.map((c) => `${c.name} ${c.version}`).sort();
        assert.deepEqual(runs, ['_lifecycle 1', 'all 1', 'others 1', 'two 2']);
    }
});

// Nobody names endorsers: the plan comes from the peer.
for (const contract of ['all', 'two', 'others']) {
    test(`transactions of contract ${contract} have the endorsements that its policy wants`, async () => {
        const contractOf = (await connect()).getContract(contract);
        for (let i = 0; i < 3; i++) {
            const id = `${contract}-${process.pid}-${i}`;
            await contractOf.submitTransaction('CreateAsset', id, 'red', '5', 'Tom', '100'); // rejects unless it is valid
            assert.equal(JSON.parse((await contractOf.evaluateTransaction('ReadAsset', id)).toString()).Owner, 'Tom');
        }
    });
}

test('a transaction that touches another contract too is planned for both', async () => {
    const contract = (await connect()).getContract('two');
    contract.addDiscoveryInterest({ name: 'all' });
    await contract.submitTransaction('CreateAsset', `both-${process.pid}`, 'red', '5', 'Tom', '100');
});

test('a contract that is not there', async () => {
    const contract = (await connect()).getContract('nothing');
    await assert.rejects(contract.submitTransaction('CreateAsset', 'x'), /failed constructing descriptor for chaincodes/);
});
