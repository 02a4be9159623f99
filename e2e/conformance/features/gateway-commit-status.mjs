import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let basic;
const submitted = async () => basic.submitAsync('Put', { arguments: [newID(), 'v'] });

async function ask(net, fields, { identity = net.user('org1'), sign = identity.sign, seconds, raw } = {}) {
    const request = raw ?? wire.bytes(wire.make(wire.gateway.CommitStatusRequest, { channelId: net.channel, identity: identity.creator, ...fields }));
    const signed = wire.make(wire.gateway.SignedCommitStatusRequest, { request, signature: await sign(request) });
    return wire.unary(net.stub('gateway', 'org1'), 'commitStatus', signed, seconds);
}

export default {
    area: 'Gateway',
    title: 'Gateway: commit status',
    about: '`gateway.Gateway/CommitStatus`: waits for a transaction’s verdict',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'basic');
    },
    cases: [
        {
            name: 'code and block of a valid transaction',
            run: async () => {
                const commit = await submitted();
                const status = await commit.getStatus();
                assert.deepEqual([status.code, status.successful, status.transactionId], [0, true, commit.getTransactionId()]);
                assert.ok(status.blockNumber > 0n);
            },
        },
        {
            name: 'the verdict is told again at any time, by each member',
            run: async (net) => {
                const commit = await submitted();
                await commit.getStatus();
                for (const member of ['org1', 'org2', 'org3']) assert.equal(await net.verdict(member, commit.getTransactionId()), 'VALID');
            },
        },
        {
            name: 'the verdict of an invalid transaction, and its block',
            run: async () => {
                const key = newID();
                const late = await basic.newProposal('Add', { arguments: [key, '1'] }).endorse();
                await basic.submitTransaction('Add', key, '1');
                const status = await (await late.submit()).getStatus();
                assert.deepEqual([status.code, status.successful], [11, false]);
                assert.ok(status.blockNumber > 0n);
            },
        },
        {
            name: 'who asks before the commit waits for it',
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                const waiting = net.verdict('org1', proposed.txId);
                await net.broadcast(await wire.transaction(proposed, responses));
                assert.equal(await waiting, 'VALID');
            },
        },
        {
            name: 'a transaction that never comes is waited for until the deadline',
            misuse: true,
            run: async (net) => {
                const error = await rejects(ask(net, { transactionId: 'ab'.repeat(32) }, { seconds: 0.3 }));
                assert.ok([1, 4].includes(error.code), error.message); // CANCELLED or DEADLINE_EXCEEDED: whoever notices first
            },
        },
        {
            name: 'a request without channel, identity or transaction',
            misuse: true,
            run: async (net) => {
                await rejects(ask(net, { transactionId: 'ab', channelId: '' }), { code: 'INVALID_ARGUMENT', message: /no channel ID provided/ });
                await rejects(ask(net, { transactionId: 'ab', identity: Buffer.alloc(0) }), { code: 'INVALID_ARGUMENT', message: /no identity provided/ });
                await rejects(ask(net, { transactionId: '' }), { code: 'INVALID_ARGUMENT', message: /transaction ID should not be empty/ });
            },
        },
        {
            name: 'a request that cannot be read',
            misuse: true,
            run: (net) => rejects(ask(net, {}, { raw: Buffer.from('nonsense') }), { code: 'INVALID_ARGUMENT', message: /invalid status request/ }),
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) await rejects(ask(net, { transactionId: 'ab'.repeat(32) }, { identity }), { code: 'PERMISSION_DENIED' });
            },
        },
        {
            name: 'a signature that is another’s',
            misuse: true,
            run: async (net) => rejects(ask(net, { transactionId: 'ab'.repeat(32) }, { sign: net.user('org2').sign }), { code: 'PERMISSION_DENIED' }),
        },
        {
            name: 'a channel that the peer has not joined',
            misuse: true,
            run: (net) => rejects(ask(net, { transactionId: 'ab'.repeat(32), channelId: 'elsewhere' }), { code: 'PERMISSION_DENIED', message: /elsewhere/ }),
        },
    ],
};
