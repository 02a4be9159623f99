import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';

let state;

export default {
    area: 'Contract features',
    title: 'State',
    about: '`getState`, `putState` and `deleteState`',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        state = net.contract('org1', 'basic');
    },
    cases: [
        {
            name: 'what is put is got, by every member',
            run: async (net) => {
                const key = newID();
                await state.submitTransaction('Put', key, 'a value');
                for (const member of ['org1', 'org2', 'org3']) {
                    await eventually(async () => text(await net.contract(member, 'basic').evaluateTransaction('Get', key)) === 'a value');
                }
            },
        },
        {
            name: 'the last of several writes of a key counts, also within one transaction',
            run: async () => {
                const key = newID();
                await state.submitTransaction('Put', key, 'one');
                await state.submitTransaction('Put', key, 'two');
                assert.equal(text(await state.evaluateTransaction('Get', key)), 'two');
            },
        },
        {
            name: 'a transaction does not read its own writes',
            run: async () => {
                const key = newID();
                assert.equal(text(await state.submitTransaction('PutThenGet', key, 'new')), '');
                assert.equal(text(await state.evaluateTransaction('Get', key)), 'new');
            },
        },
        {
            name: 'what is deleted is gone, and can be put again',
            run: async () => {
                const key = newID();
                await state.submitTransaction('Put', key, 'here');
                await state.submitTransaction('Delete', key);
                assert.equal(text(await state.evaluateTransaction('Get', key)), '');
                await state.submitTransaction('Put', key, 'again');
                assert.equal(text(await state.evaluateTransaction('Get', key)), 'again');
            },
        },
        {
            name: 'keys and values may be any text',
            run: async () => {
                const [key, value] = [`${newID()} ä€𝄞 /%?`, 'x\u0000y\n€'];
                await state.submitTransaction('Put', key, value);
                assert.equal(text(await state.evaluateTransaction('Get', key)), value);
            },
        },
        {
            name: 'a function with too few arguments is refused',
            misuse: true,
            run: () => rejects(state.submitTransaction('Put', newID()), { type: 'EndorseError', code: 'ABORTED', message: /Expected 2 parameters, but 1 have been supplied/ }),
        },
        {
            name: 'what is evaluated is not written',
            misuse: true,
            run: async () => {
                const key = newID();
                await state.evaluateTransaction('Put', key, 'value');
                assert.equal(text(await state.evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'what a contract wrote before it failed is not kept',
            misuse: true,
            run: async () => {
                const key = newID();
                await rejects(state.submitTransaction('PutThenFail', key, 'changed its mind'), { type: 'EndorseError', code: 'ABORTED', message: /changed its mind/ });
                assert.equal(text(await state.evaluateTransaction('Get', key)), '');
            },
        },
    ],
};
