// Broadcast: what an orderer takes, and how it refuses.

import assert from 'node:assert/strict';
import { eventually, newID, text } from '../lib/expect.mjs';
import { records } from '../lib/records.mjs';
import { fetch, submit } from '../lib/tools.mjs';
import { Answers, bytes, common, envelope, header, make, peer, transaction } from '../lib/wire.mjs';

const nameOf = (status) => Object.keys(common.Status).find((name) => common.Status[name] === status);

// endorsed is a transaction that was endorsed and can be ordered: { envelope, txId, key }. options as of wire.transaction.
async function endorsed(net, options) {
    const key = newID();
    const { proposed, responses } = await net.endorse(['org1'], { contract: 'records', args: ['Put', key, 'x'] });
    return { envelope: await transaction(proposed, responses, options), txId: proposed.txId, key };
}

// send puts envelopes on one stream and gives all answers until the orderer ends it, or as many as envelopes.
async function send(net, ...envelopes) {
    const answers = new Answers(net.stub('broadcast').broadcast());
    const all = [];
    try {
        for (const e of envelopes) answers.send(e);
        for (let answer; all.length < envelopes.length && (answer = await answers.next());) {
            all.push({ status: nameOf(answer.getStatus()), info: answer.getInfo() });
        }
    } finally {
        answers.close();
    }
    return all;
}

async function refuses(net, one, status, info) {
    const [answer] = await send(net, one);
    assert.equal(answer.status, status, answer.info);
    assert.match(answer.info, info);
}

// verdicts lists how often a transaction stands in the ledger, with each verdict in order.
async function verdicts(net, txId, from) {
    const { blocks } = await fetch(net, 'org1', { kind: 'deliverFiltered', start: from, stop: 'newest' });
    return blocks.flatMap((b) => b.getFilteredTransactionsList()).filter((tx) => tx.getTxid() === txId)
        .map((tx) => Object.keys(peer.TxValidationCode).find((name) => peer.TxValidationCode[name] === tx.getTxValidationCode()));
}

const denied = /implicit policy evaluation failed.*permission denied/;

export default {
    area: 'Services',
    title: 'Broadcast',
    about: 'Envelopes to an orderer: answers in order, duplicates, and refusals with Fabric\'s statuses',
    setup: (net) => records(net),
    cases: [{
        name: 'several envelopes on one stream are answered one by one',
        run: async (net) => {
            const all = await Promise.all([1, 2, 3].map(() => endorsed(net)));
            const answers = await send(net, ...all.map(({ envelope: e }) => e));
            assert.deepEqual(answers.map(({ status }) => status), ['SUCCESS', 'SUCCESS', 'SUCCESS']);
            for (const { txId } of all) assert.equal(await net.verdict('org1', txId), 'VALID');
        },
    }, {
        name: 'a replayed transaction is taken, and committed once',
        run: async (net) => {
            const from = await net.height('org1') - 1;
            const { envelope: e, txId } = await endorsed(net);
            assert.deepEqual((await send(net, e, e, e)).map(({ status }) => status), ['SUCCESS', 'SUCCESS', 'SUCCESS']);
            await eventually(async () => (await verdicts(net, txId, from)).length === 3);
            assert.deepEqual(await verdicts(net, txId, from), ['VALID', 'DUPLICATE_TXID', 'DUPLICATE_TXID']);
            assert.equal(await net.verdict('org1', txId), 'VALID');
        },
    }, {
        name: 'any member of the channel hands in what another one made',
        run: async (net) => {
            // The creator's signature is what counts, not who is connected.
            const { envelope: e, txId } = await endorsed(net);
            assert.equal((await net.broadcast(e)).status, 'SUCCESS');
            assert.equal(await net.verdict('org2', txId), 'VALID');
        },
    }, {
        name: 'no signature, and another one\'s',
        misuse: true,
        run: async (net) => {
            await refuses(net, (await endorsed(net, { sign: async () => Buffer.alloc(0) })).envelope, 'FORBIDDEN', denied);
            await refuses(net, (await endorsed(net, { sign: net.user('org2').sign })).envelope, 'FORBIDDEN', denied);
        },
    }, {
        name: 'a changed payload',
        misuse: true,
        run: async (net) => {
            const { envelope: e, key } = await endorsed(net);
            const payload = Buffer.from(e.getPayload_asU8());
            payload[payload.lastIndexOf('x')] = 'y'.charCodeAt(0);
            e.setPayload(payload);
            await refuses(net, e, 'FORBIDDEN', denied);
            assert.equal(text(await (await records(net)).evaluateTransaction('Get', key)), '');
        },
    }, {
        name: 'senders whom nobody knows, and one whose certificate has expired',
        misuse: true,
        run: async (net) => {
            const made = async (identity) => {
                const { message } = header({ identity, channel: net.channel, type: common.HeaderType.ENDORSER_TRANSACTION });
                return envelope(message, Buffer.from('whatever'), identity.sign);
            };
            await refuses(net, await made(net.refused.stranger), 'FORBIDDEN', denied);
            await refuses(net, await made(net.refused.unknownMember), 'FORBIDDEN', denied);
            await refuses(net, await made(net.refused.expired), 'BAD_REQUEST', /broadcast client identity expired/);
        },
    }, {
        name: 'a channel that is not there, and none',
        misuse: true,
        run: async (net) => {
            const identity = net.user('org1');
            for (const channel of ['elsewhere', '']) {
                const { message } = header({ identity, channel, type: common.HeaderType.ENDORSER_TRANSACTION });
                await refuses(net, await envelope(message, Buffer.from('x'), identity.sign), 'BAD_REQUEST', /channel does not exist/);
            }
        },
    }, {
        name: 'what is no envelope of anything',
        misuse: true,
        run: async (net) => {
            await refuses(net, new common.Envelope(), 'BAD_REQUEST', /could not determine channel ID/);
            await refuses(net, make(common.Envelope, { payload: Buffer.from([0xff, 0xff]) }), 'BAD_REQUEST', /could not determine channel ID: error unmarshalling Payload/);
            await refuses(net, make(common.Envelope, { payload: bytes(make(common.Payload, { data: Buffer.from('x') })) }), 'BAD_REQUEST', /could not determine channel ID: header not set/);
        },
    }, {
        name: 'more than the channel allows in one message',
        misuse: true,
        run: async (net) => {
            const identity = net.user('org1');
            const { message } = header({ identity, channel: net.channel, type: common.HeaderType.ENDORSER_TRANSACTION });
            await refuses(net, await envelope(message, Buffer.alloc(11 * 1024 * 1024), identity.sign), 'BAD_REQUEST',
                /message payload is \d+ bytes and exceeds maximum allowed \d+ bytes/);
        },
    }, {
        name: 'kinds of envelopes that only orderers make',
        misuse: true,
        run: async (net) => {
            const identity = net.user('orderer', 'Admin');
            for (const [type, why] of [['CONFIG', /message is of type that cannot be processed directly/], ['ORDERER_TRANSACTION', /message is of type that is no longer supported/]]) {
                const { message } = header({ identity, channel: net.channel, type: common.HeaderType[type] });
                await refuses(net, await envelope(message, Buffer.from('x'), identity.sign), 'BAD_REQUEST', why);
            }
        },
    }, {
        name: 'after a refusal the stream ends',
        misuse: true,
        run: async (net) => {
            const good = await endorsed(net);
            const bad = await endorsed(net, { sign: net.user('org2').sign });
            const answers = await send(net, bad.envelope, good.envelope);
            assert.deepEqual(answers.map(({ status }) => status), ['FORBIDDEN']);
        },
    }, {
        name: 'a kind of transaction that peers do not know is ordered, and invalid',
        misuse: true,
        run: async (net) => {
            const identity = net.user('org1');
            const { message, txId } = header({ identity, channel: net.channel, type: 77 });
            const { code } = await submit(net, 'org1', await envelope(message, Buffer.from('x'), identity.sign), txId);
            assert.equal(code, 'BAD_COMMON_HEADER');
        },
    }, {
        name: 'an endorsement that was tampered with is ordered, and invalid',
        misuse: true,
        run: async (net) => {
            const { proposed, responses } = await net.endorse(['org1'], { contract: 'records', args: ['Put', newID(), 'x'] });
            const forged = peer.Endorsement.deserializeBinary(responses[0].getEndorsement().serializeBinary());
            const signature = Buffer.from(forged.getSignature_asU8());
            signature[signature.length - 1] ^= 1;
            forged.setSignature(signature);
            const { code } = await submit(net, 'org1', await transaction(proposed, responses, { endorsements: [forged] }), proposed.txId);
            assert.equal(code, 'ENDORSEMENT_POLICY_FAILURE');
        },
    }, {
        name: 'a transaction without endorsements is ordered, and invalid',
        misuse: true,
        run: async (net) => {
            const { proposed, responses } = await net.endorse(['org1'], { contract: 'records', args: ['Put', newID(), 'x'] });
            const { code } = await submit(net, 'org1', await transaction(proposed, responses, { endorsements: [] }), proposed.txId);
            assert.equal(code, 'ENDORSEMENT_POLICY_FAILURE');
        },
    }],
};
