import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let basic;

export default {
    area: 'Gateway',
    title: 'Gateway: evaluate',
    about: '`gateway.Gateway/Evaluate` and `evaluateTransaction` of `@hyperledger/fabric-gateway`',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'basic');
    },
    cases: [
        {
            name: 'the contract’s answer comes back, whatever bytes it has',
            run: async () => {
                const key = newID();
                await basic.submitTransaction('Put', key, '€ \u0000 {}');
                assert.equal(text(await basic.evaluateTransaction('Get', key)), '€ \u0000 {}');
            },
        },
        {
            name: 'arguments are bytes: none, empty and long ones',
            run: async () => {
                assert.equal(text(await basic.evaluateTransaction('Length', '')), '0');
                assert.equal(text(await basic.evaluateTransaction('Length', 'x'.repeat(300_000))), '300000');
                assert.equal(JSON.parse(text(await basic.evaluateTransaction('Call'))).args.length, 1);
            },
        },
        {
            name: 'nothing is ordered, and no block comes of it',
            run: async (net) => {
                const before = await net.height('org1');
                for (let i = 0; i < 5; i++) await basic.evaluateTransaction('Put', newID(), 'v');
                assert.equal(await net.height('org1'), before);
            },
        },
        {
            name: 'the raw call: the result is the contract’s, with its status',
            run: async (net) => {
                const { signed, txId } = await wire.propose({ identity: net.user('org1'), channel: net.channel, contract: 'basic', args: ['Length', 'four'] });
                const request = wire.make(wire.gateway.EvaluateRequest, { transactionId: txId, channelId: net.channel, proposedTransaction: signed });
                const answer = await wire.unary(net.stub('gateway', 'org1'), 'evaluate', request);
                assert.deepEqual([answer.getResult().getStatus(), text(answer.getResult().getPayload_asU8())], [200, '4']);
            },
        },
        {
            name: 'many at once',
            run: async () => {
                const answers = await Promise.all(Array.from({ length: 50 }, (_, i) => basic.evaluateTransaction('Length', 'x'.repeat(i))));
                assert.deepEqual(answers.map(text), Array.from({ length: 50 }, (_, i) => String(i)));
            },
        },
        {
            name: 'what the contract throws is an UNKNOWN error with the peer’s detail',
            misuse: true,
            run: async (net) => {
                const error = await rejects(basic.evaluateTransaction('Fail', 'no such luck'), {
                    type: 'GatewayError', code: 'UNKNOWN', message: /evaluate call to endorser returned error: chaincode response 500, no such luck/,
                });
                assert.deepEqual(error.details, [{ mspId: 'Org1MSP', address: net.member('org1').address, message: 'chaincode response 500, no such luck' }]);
            },
        },
        {
            name: 'a contract that is not there',
            misuse: true,
            run: (net) => rejects(net.contract('org1', 'nowhere').evaluateTransaction('Get', 'k'), {
                type: 'GatewayError', code: 'FAILED_PRECONDITION', message: /no peers available to evaluate chaincode nowhere in channel business/,
            }),
        },
        {
            name: 'a channel that is not there',
            misuse: true,
            run: (net) => rejects(net.contract('org1', 'basic', { channel: 'elsewhere' }).evaluateTransaction('Get', 'k'), { type: 'GatewayError', code: 'UNAVAILABLE', message: /elsewhere/ }),
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) {
                    await rejects(net.contract('org1', 'basic', { identity }).evaluateTransaction('Get', 'k'), { type: 'GatewayError', code: 'FAILED_PRECONDITION' });
                }
            },
        },
        {
            name: 'a signature that is not the caller’s',
            misuse: true,
            run: async (net) => {
                const liar = net.contract('org1', 'basic', { signer: (digest) => net.user('org2').signDigest(digest) });
                await rejects(liar.evaluateTransaction('Get', 'k'), { type: 'GatewayError', code: 'FAILED_PRECONDITION', message: /access denied|signature/ });
            },
        },
        {
            name: 'a request without a proposal, and one that is no proposal',
            misuse: true,
            run: async (net) => {
                const stub = net.stub('gateway', 'org1');
                await rejects(wire.unary(stub, 'evaluate', new wire.gateway.EvaluateRequest()), { code: 'INVALID_ARGUMENT', message: /failed to unpack transaction proposal/ });
                const nonsense = wire.make(wire.peer.SignedProposal, { proposalBytes: Buffer.from('nonsense'), signature: Buffer.from('x') });
                await rejects(wire.unary(stub, 'evaluate', wire.make(wire.gateway.EvaluateRequest, { proposedTransaction: nonsense })), {
                    code: 'INVALID_ARGUMENT', message: /failed to unpack transaction proposal/,
                });
            },
        },
        {
            name: 'a contract that takes longer than the caller waits',
            misuse: true,
            run: async (net) => {
                const error = await rejects(net.contract('org1', 'basic', { seconds: 0.3 }).evaluateTransaction('Sleep', '2000'), { type: 'GatewayError' });
                assert.ok([1, 4].includes(error.code), error.message); // CANCELLED or DEADLINE_EXCEEDED: whoever notices first
                await eventually(async () => text(await basic.evaluateTransaction('Length', 'still there')) === '11');
            },
        },
    ],
};
