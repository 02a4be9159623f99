import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

const MB = 1 << 20;
let contract;
let roomy;

export default {
    area: 'Services',
    title: 'Large messages',
    about: 'arguments, answers and values of megabytes, and the bounds',
    setup: async (net) => {
        await net.deploy('basic', { name: 'large', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        contract = net.contract('org1', 'large');
        // By default grpc-js takes answers of 4 MiB.
        roomy = net.contract('org1', 'large', { grpc: { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 } });
    },
    cases: [
        { name: 'an argument of 8 MiB', run: async () => assert.equal(text(await roomy.evaluateTransaction('Length', 'x'.repeat(8 * MB))), String(8 * MB)) },
        { name: 'an answer of 8 MiB', run: async () => assert.equal((await roomy.evaluateTransaction('LargeAnswer', String(8 * MB))).length, 8 * MB) },
        {
            name: 'a value of 4 MiB is recorded and read back',
            run: async () => {
                const key = newID();
                await roomy.submitTransaction('Large', key, String(4 * MB));
                assert.equal((await roomy.evaluateTransaction('Get', key)).length, 4 * MB);
            },
        },
        {
            name: 'many writes in one transaction',
            run: async () => {
                const prefix = newID();
                await roomy.submitTransaction('PutMany', prefix, '2000', 'v'.repeat(100));
                assert.equal(JSON.parse(text(await roomy.evaluateTransaction('Range', prefix, `${prefix}~`))).length, 2000);
            },
        },
        {
            name: 'a transaction above the channel’s absolute maximum of 10 MiB is refused by the orderer, with the reason',
            misuse: true,
            run: () => rejects(roomy.submitTransaction('Large', newID(), String(11 * MB)), { type: 'SubmitError', code: 'ABORTED', message: /status=BAD_REQUEST.*maximum allowed/ }),
        },
        {
            name: 'a message above what a peer takes is refused, and the connection goes on',
            misuse: true,
            run: async () => {
                await rejects(roomy.evaluateTransaction('Length', 'x'.repeat(101 * MB)), { type: 'GatewayError', code: 'RESOURCE_EXHAUSTED', message: /larger than max/ });
                assert.equal(text(await roomy.evaluateTransaction('Length', 'x')), '1');
            },
        },
        {
            name: 'an answer above what the client takes is the client’s error, and harms nobody',
            misuse: true,
            run: async () => {
                await rejects(contract.evaluateTransaction('LargeAnswer', String(5 * MB)), { type: 'GatewayError', code: 'RESOURCE_EXHAUSTED' });
                assert.equal(text(await contract.evaluateTransaction('Length', 'x')), '1');
            },
        },
        {
            name: 'an answer above what a peer takes of a contract fails the call, not the contract',
            misuse: true,
            run: async () => {
                await rejects(roomy.evaluateTransaction('LargeAnswer', String(120 * MB)), { type: 'GatewayError' });
                assert.equal(text(await roomy.evaluateTransaction('Length', 'xx')), '2');
            },
        },
    ],
};
