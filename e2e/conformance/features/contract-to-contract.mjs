import assert from 'node:assert/strict';
import { allOf, anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let caller;
let called;
const ask = (contract, call, channel = '') => ['Ask', contract, JSON.stringify(call), channel];

export default {
    area: 'Contract features',
    title: 'Contract to contract',
    about: '`invokeChaincode` of another contract of the same channel: its writes belong to the transaction',
    setup: async (net) => {
        await net.deploy('basic', { name: 'caller', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        await net.deploy('basic-too', { name: 'called', policy: allOf('Org1MSP.peer', 'Org2MSP.peer') });
        caller = net.contract('org1', 'caller');
        called = net.contract('org1', 'called');
    },
    cases: [
        {
            name: 'the answer of the other contract comes back',
            run: async () => {
                const key = newID();
                await called.submitTransaction('Put', key, 'its own');
                assert.equal(text(await caller.evaluateTransaction(...ask('called', ['Get', key]))), 'its own');
            },
        },
        {
            name: 'the other contract writes its own state, not the caller’s',
            run: async () => {
                const key = newID();
                await caller.submitTransaction(...ask('called', ['Put', key, 'theirs']));
                assert.equal(text(await called.evaluateTransaction('Get', key)), 'theirs');
                assert.equal(text(await caller.evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'the gateway has the endorsements that both contracts’ policies want',
            run: async () => {
                const transaction = await caller.newProposal('Ask', { arguments: ask('called', ['Put', newID(), 'v']).slice(1) }).endorse();
                const raw = text(transaction.getBytes());
                assert.ok(raw.includes('Org1MSP\x12') && raw.includes('Org2MSP\x12'));
                assert.equal((await (await transaction.submit()).getStatus()).code, 0);
            },
        },
        {
            name: 'the caller’s identity is the other contract’s too',
            run: async () => assert.equal(JSON.parse(text(await caller.evaluateTransaction(...ask('called', ['Whoami'])))).mspId, 'Org1MSP'),
        },
        {
            name: 'a caller sees the status and message of a refusal, and may go on',
            run: async () => {
                const answer = JSON.parse(text(await caller.submitTransaction('AskStatus', 'called', JSON.stringify(['Fail', 'not today']), '')));
                assert.equal(answer.status, 500);
                assert.match(answer.message, /not today/);
            },
        },
        {
            name: 'a contract that is not there',
            misuse: true,
            run: () => rejects(caller.evaluateTransaction(...ask('nowhere', ['Get', 'k'])), { type: 'GatewayError', code: 'UNKNOWN', message: /nowhere/ }),
        },
        {
            name: 'what the other contract refuses fails the call, and nothing is written',
            misuse: true,
            run: async () => {
                const key = newID();
                await rejects(caller.submitTransaction('AskAndPut', 'called', JSON.stringify(['PutThenFail', key, 'not today']), '', key), { type: 'EndorseError', code: 'ABORTED', message: /not today/ });
                assert.equal(text(await called.evaluateTransaction('Get', key)), '');
                assert.equal(text(await caller.evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'the caller’s own endorsements do not suffice for the other’s writes',
            misuse: true,
            run: async () => {
                const key = newID();
                const transaction = await caller.newProposal('Ask', { arguments: ask('called', ['Put', key, 'v']).slice(1), endorsingOrganizations: ['Org1MSP'] }).endorse();
                const status = await (await transaction.submit()).getStatus();
                assert.equal(status.code, 10); // ENDORSEMENT_POLICY_FAILURE
                assert.equal(text(await called.evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'a contract cannot call itself, nor another of its package',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'caller-twin', policy: anyOf('Org1MSP.peer') });
                for (const name of ['caller', 'caller-twin']) {
                    await rejects(caller.submitTransaction(...ask(name, ['Put', 'k', 'v'])), { type: 'EndorseError', code: 'ABORTED', message: /txid: [0-9a-f]{64}\(business\) exists/ });
                }
                await caller.submitTransaction('Put', newID(), 'it goes on');
            },
        },
        {
            name: 'writes of the other contract meet conflicts as one’s own do',
            misuse: true,
            run: async () => {
                const key = newID();
                const late = await caller.newProposal('Ask', { arguments: ask('called', ['Add', key, '1']).slice(1) }).endorse();
                await called.submitTransaction('Add', key, '5');
                assert.equal((await (await late.submit()).getStatus()).code, 11); // MVCC_READ_CONFLICT
                assert.equal(text(await called.evaluateTransaction('Get', key)), '5');
            },
        },
    ],
};
