// What Fabric's command line tools do with a node, one function for each kind of command, on top of net.mjs and wire.mjs.

import assert from 'node:assert/strict';
import { succeeded } from './expect.mjs';
import { blockOf, bytes, statusOf, transaction } from './wire.mjs';

// query is `peer chaincode query` and every other command that only asks: the payload of an answer with status 200. options as of
// net.process.
export const query = async (net, member, options) => succeeded(await net.process(member, options));

// invoke is `peer chaincode invoke --waitForEvent`: the members' peers endorse the same, the orderer takes it, and the first peer tells
// how it went: { txId, code, payload }. A refusal is an error. options as of net.endorse.
export async function invoke(net, members, options) {
    const { proposed, responses } = await net.endorse(members, options);
    responses.forEach(succeeded);
    const [first] = responses;
    for (const response of responses) {
        assert.ok(Buffer.from(response.getPayload_asU8()).equals(first.getPayload_asU8()), 'the peers do not agree on the result');
    }
    const verdict = await submit(net, members[0], await transaction(proposed, responses), proposed.txId, options);
    return { ...verdict, payload: first.getResponse().getPayload_asU8() };
}

// submit has the orderer take a transaction and a member's peer tell its verdict: { txId, code }.
export async function submit(net, member, envelope, txId, { channel, user } = {}) {
    const { status, info } = await net.broadcast(envelope);
    assert.equal(status, 'SUCCESS', info);
    return { txId, code: await net.verdict(member, txId, { channel, user }) };
}

// fetch gives the blocks of one question and the status that ends it: { blocks, status }. options as of net.blocks.
export async function fetch(net, member, options) {
    const answers = await net.blocks(member, { stop: options.start, ...options });
    const blocks = [];
    try {
        for (let answer; (answer = await answers.next());) {
            const status = statusOf(answer);
            if (status) return { blocks, status };
            blocks.push(blockOf(answer));
        }
    } finally {
        answers.close();
    }
    throw new Error('the stream ended without a status');
}

// sameBytes checks that two serialized values are one, without printing them.
export function sameBytes(a, b, message) {
    assert.ok(Buffer.from(bytes(a)).equals(bytes(b)), message ?? 'the bytes differ');
}
