import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { checkpointers } from '@hyperledger/fabric-gateway';
import { anyOf } from '../lib/contracts.mjs';
import { newID, next, rejects, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let network;
let contract;
// announce raises an event and gives its transaction's status.
async function announce(payload = newID('event'), name = 'Announced') {
    const status = await (await contract.submitAsync('PutAndAnnounce', { arguments: [newID(), name, payload] })).getStatus();
    assert.equal(status.code, 0);
    return { ...status, payload };
}
const watch = async (options, name = 'events') => {
    const stream = await network.getChaincodeEvents(name, options);
    const iterator = stream[Symbol.asyncIterator]();
    return { next: () => next(iterator), close: () => stream.close() };
};
async function temporarily(use) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'hansa-checkpoint-'));
    try {
        await use(path.join(folder, 'checkpoint.json'));
    } finally {
        fs.rmSync(folder, { recursive: true });
    }
}

// raw opens ChaincodeEvents by hand.
async function raw(net, fields, { identity = net.user('org1'), sign = identity.sign, request } = {}) {
    request ??= wire.bytes(wire.make(wire.gateway.ChaincodeEventsRequest, { channelId: net.channel, chaincodeId: 'events', identity: identity.creator, ...fields }));
    const signed = wire.make(wire.gateway.SignedChaincodeEventsRequest, { request, signature: await sign(request) });
    return new wire.Answers(net.stub('gateway', 'org1').chaincodeEvents(signed));
}

export default {
    area: 'Gateway',
    title: 'Chaincode events',
    about: '`getChaincodeEvents`: live, replayed from a block, after a transaction, on from a checkpoint',
    setup: async (net) => {
        await net.deploy('basic', { name: 'events', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        network = net.gateway('org1').getNetwork(net.channel);
        contract = network.getContract('events');
        await announce();
    },
    cases: [
        {
            name: 'live events come in their order, with name, payload, transaction and block',
            run: async () => {
                const events = await watch();
                for (const payload of ['one', 'two', 'three']) {
                    const { transactionId, blockNumber } = await announce(payload);
                    const event = await events.next();
                    assert.deepEqual([text(event.payload), event.eventName, event.chaincodeName, event.transactionId, event.blockNumber],
                        [payload, 'Announced', 'events', transactionId, blockNumber]);
                }
                events.close();
            },
        },
        {
            name: 'a replay from a block gives the same events',
            run: async () => {
                const sent = [await announce(), await announce(), await announce()];
                const events = await watch({ startBlock: sent[0].blockNumber });
                for (const { payload, transactionId } of sent) {
                    const event = await events.next();
                    assert.deepEqual([text(event.payload), event.transactionId], [payload, transactionId]);
                }
                events.close();
            },
        },
        {
            name: 'a replay goes over into live events without a gap',
            run: async () => {
                const sent = [await announce()];
                const events = await watch({ startBlock: sent[0].blockNumber });
                await events.next();
                for (let i = 0; i < 3; i++) {
                    const { payload } = await announce();
                    assert.equal(text((await events.next()).payload), payload);
                }
                events.close();
            },
        },
        {
            name: 'on from a checkpoint in memory: after the event that was dealt with',
            run: async () => {
                const sent = [await announce(), await announce()];
                const checkpoint = checkpointers.inMemory();
                const first = await watch({ startBlock: sent[0].blockNumber, checkpoint });
                await checkpoint.checkpointChaincodeEvent(await first.next());
                first.close();
                const rest = await watch({ startBlock: 0n, checkpoint });
                assert.equal(text((await rest.next()).payload), sent[1].payload);
                rest.close();
            },
        },
        {
            name: 'on from a checkpoint in a file, by another process so to speak',
            run: async () => temporarily(async (file) => {
                const sent = [await announce(), await announce(), await announce()];
                const checkpoint = await checkpointers.file(file);
                const first = await watch({ startBlock: sent[0].blockNumber, checkpoint });
                for (let i = 0; i < 2; i++) await checkpoint.checkpointChaincodeEvent(await first.next());
                first.close();
                const rest = await watch({ checkpoint: await checkpointers.file(file) });
                assert.equal(text((await rest.next()).payload), sent[2].payload);
                rest.close();
            }),
        },
        {
            name: 'several transactions of one block: on after any of them',
            run: async (net) => {
                const sent = await Promise.all(Array.from({ length: 20 }, () => announce()));
                const first = sent.reduce((a, b) => (a.blockNumber < b.blockNumber ? a : b)).blockNumber;
                const all = await watch({ startBlock: first });
                const seen = [];
                for (let i = 0; i < 20; i++) seen.push(await all.next());
                all.close();
                assert.deepEqual(seen.map((e) => text(e.payload)).sort(), sent.map((s) => s.payload).sort());
                for (const i of [0, 9, 18]) {
                    const rest = await raw(net, {
                        startPosition: wire.position(Number(seen[i].blockNumber)), afterTransactionId: seen[i].transactionId,
                    });
                    const [event] = (await rest.next()).getEventsList();
                    assert.equal(event.getTxId(), seen[i + 1].transactionId);
                    rest.close();
                }
            },
        },
        {
            name: 'of several events in one transaction the last one counts',
            run: async () => {
                const events = await watch();
                await contract.submitTransaction('AnnounceTwice', 'Twice', 'first', 'second');
                await contract.submitTransaction('Announce', 'After', 'it');
                assert.deepEqual([text((await events.next()).payload), (await events.next()).eventName], ['second', 'After']);
                events.close();
            },
        },
        {
            name: 'other contracts’ events do not come',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'events-other', policy: anyOf('Org1MSP.peer') });
                const events = await watch();
                await network.getContract('events-other').submitTransaction('Announce', 'Other', 'x');
                const { payload } = await announce();
                assert.equal(text((await events.next()).payload), payload);
                events.close();
            },
        },
        {
            name: 'invalid transactions raise no events',
            misuse: true,
            run: async () => {
                const key = newID();
                const events = await watch();
                const late = await contract.newProposal('PutAndAnnounce', { arguments: [key, 'Late', 'late'], endorsingOrganizations: ['Org1MSP'] }).endorse();
                const tampered = await contract.newProposal('Add', { arguments: [key, '1'] }).endorse();
                await (await late.submit()).getStatus();
                assert.equal((await (await tampered.submit()).getStatus()).code, 11);
                const { payload } = await announce();
                assert.equal(text((await events.next()).payload), 'late');
                assert.equal(text((await events.next()).payload), payload);
                events.close();
            },
        },
        {
            name: 'evaluations raise no events',
            misuse: true,
            run: async () => {
                const events = await watch();
                await contract.evaluateTransaction('Announce', 'Never', 'x');
                const { payload } = await announce();
                assert.equal(text((await events.next()).payload), payload);
                events.close();
            },
        },
        {
            name: 'an event without a name is refused by the shim',
            misuse: true,
            run: () => rejects(contract.submitTransaction('Announce', '', 'x'), { type: 'EndorseError', code: 'ABORTED', message: /Event name must be a non-empty string/ }),
        },
        {
            name: 'a contract that is not there has no events, and is no error',
            misuse: true,
            run: async (net) => {
                const events = await raw(net, { chaincodeId: 'nowhere', startPosition: wire.position(0) });
                await announce();
                await events.silent();
                events.close();
            },
        },
        {
            name: 'a start that is no position',
            misuse: true,
            run: async (net) => rejects((await raw(net, { startPosition: wire.position('oldest') })).next(), { code: 'INVALID_ARGUMENT', message: /invalid start position type/ }),
        },
        {
            name: 'a request that cannot be read',
            misuse: true,
            run: async (net) => rejects((await raw(net, {}, { request: Buffer.from('nonsense') })).next(), { code: 'INVALID_ARGUMENT', message: /invalid chaincode events request/ }),
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member; another’s signature; another channel',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) await rejects((await raw(net, {}, { identity })).next(), { code: 'PERMISSION_DENIED' });
                await rejects((await raw(net, {}, { sign: net.user('org2').sign })).next(), { code: 'PERMISSION_DENIED' });
                await rejects((await raw(net, { channelId: 'elsewhere' })).next(), { code: 'PERMISSION_DENIED' });
            },
        },
    ],
};
