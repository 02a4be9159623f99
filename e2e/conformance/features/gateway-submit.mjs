import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let basic;
const endorsed = () => basic.newProposal('Put', { arguments: [newID(), 'v'] }).endorse();
const submit = (net, envelope, more = {}) => wire.unary(net.stub('gateway', 'org1'), 'submit', wire.make(wire.gateway.SubmitRequest, { channelId: net.channel, preparedTransaction: envelope, ...more }));

export default {
    area: 'Gateway',
    title: 'Gateway: submit',
    about: '`gateway.Gateway/Submit`: the orderer takes the signed transaction, or the client learns why not',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'basic');
    },
    cases: [
        {
            name: 'submitTransaction waits for the commit and gives the result',
            run: async () => {
                const key = newID();
                assert.equal(text(await basic.submitTransaction('Add', key, '5')), '5');
                assert.equal(text(await basic.evaluateTransaction('Get', key)), '5');
            },
        },
        {
            name: 'submitAsync gives the result first and the commit later',
            run: async () => {
                const commit = await basic.submitAsync('Add', { arguments: [newID(), '7'] });
                assert.equal(text(commit.getResult()), '7');
                const status = await commit.getStatus();
                assert.deepEqual([status.successful, status.code, status.transactionId], [true, 0, commit.getTransactionId()]);
            },
        },
        {
            name: 'an envelope signed by hand, by the raw call',
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org2'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                await submit(net, await wire.transaction(proposed, responses), { transactionId: proposed.txId });
                assert.equal(await net.verdict('org1', proposed.txId), 'VALID');
            },
        },
        {
            name: 'a hundred at once are all recorded',
            run: async () => {
                const prefix = newID('many');
                await Promise.all(Array.from({ length: 100 }, (_, i) => basic.submitTransaction('Put', `${prefix}${i}`, 'v')));
                assert.equal(JSON.parse(text(await basic.evaluateTransaction('Range', prefix, `${prefix}~`))).length, 100);
            },
        },
        {
            name: 'a request without a transaction, and one without a signature',
            misuse: true,
            run: async (net) => {
                await rejects(submit(net, undefined), { code: 'INVALID_ARGUMENT', message: /a prepared transaction is required/ });
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                await rejects(submit(net, await wire.transaction(proposed, responses, { sign: async () => Buffer.alloc(0) })), {
                    code: 'INVALID_ARGUMENT', message: /prepared transaction must be signed/,
                });
            },
        },
        {
            name: 'a signature that is not the creator’s is refused by the orderer',
            misuse: true,
            run: async (net) => {
                const transaction = await endorsed();
                const liar = net.gateway('org1', { signer: (digest) => net.user('org2').signDigest(digest) });
                await rejects(liar.newTransaction(transaction.getBytes()).submit(), { type: 'SubmitError', code: 'ABORTED', message: /received unsuccessful response from orderer: status=FORBIDDEN/ });
            },
        },
        {
            name: 'an envelope that is none',
            misuse: true,
            run: (net) => rejects(submit(net, wire.make(wire.common.Envelope, { payload: Buffer.from('nonsense'), signature: Buffer.from('x') })), {
                code: 'ABORTED', message: /received unsuccessful response from orderer: status=BAD_REQUEST/,
            }),
        },
        {
            name: 'a transaction for a channel that the orderer does not have',
            misuse: true,
            run: async (net) => {
                const identity = net.user('org1');
                const { message } = wire.header({ identity, type: wire.common.HeaderType.ENDORSER_TRANSACTION, channel: 'elsewhere' });
                const envelope = await wire.envelope(message, Buffer.alloc(0), identity.sign);
                await rejects(submit(net, envelope), { code: 'ABORTED', message: /received unsuccessful response from orderer: status=(BAD_REQUEST|NOT_FOUND)/ });
            },
        },
        {
            name: 'a submission to a channel that the peer does not have',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                await rejects(submit(net, await wire.transaction(proposed, responses), { channelId: 'elsewhere' }), { code: 'FAILED_PRECONDITION', message: /elsewhere/ });
            },
        },
        {
            name: 'the same transaction once more changes nothing',
            misuse: true,
            run: async () => {
                const transaction = await endorsed();
                assert.equal((await (await transaction.submit()).getStatus()).code, 0);
                const again = await (await transaction.submit()).getStatus();
                assert.equal(again.code, 0);
            },
        },
        {
            name: 'a transaction changed after it was signed is refused by the orderer',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'ten'] });
                const envelope = await wire.transaction(proposed, responses);
                const payload = Buffer.from(envelope.getPayload_asU8());
                payload.write('one', payload.lastIndexOf('ten'));
                envelope.setPayload(payload);
                await rejects(submit(net, envelope), { code: 'ABORTED', message: /status=FORBIDDEN/ });
            },
        },
    ],
};
