import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';

let basic;
const history = async (key, contract = basic) => JSON.parse(text(await contract.evaluateTransaction('History', key)));

// change submits and gives the transaction's id.
async function change(...call) {
    const [name, ...args] = call;
    const commit = await basic.submitAsync(name, { arguments: args });
    const status = await commit.getStatus();
    return { txId: commit.getTransactionId(), code: status.code };
}

export default {
    area: 'Contract features',
    title: 'History',
    about: '`getHistoryForKey`',
    setup: async (net) => {
        await net.deploy('basic', { name: 'history', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'history');
    },
    cases: [
        {
            name: 'all values of a key, newest first, with transactions, times and deletions',
            run: async () => {
                const key = newID();
                const changes = [await change('Put', key, 'one'), await change('Put', key, 'two'), await change('Delete', key), await change('Put', key, 'three')];
                const found = await history(key);
                assert.deepEqual(found.map(({ value, isDelete }) => [value, isDelete]), [['three', false], ['', true], ['two', false], ['one', false]]);
                assert.deepEqual(found.map((c) => c.txId), changes.map((c) => c.txId).reverse());
                assert.ok(found.every((c) => Math.abs(c.seconds - Date.now() / 1000) < 600));
            },
        },
        {
            name: 'every member tells the same history',
            run: async (net) => {
                const key = newID();
                await change('Put', key, 'one');
                await change('Put', key, 'two');
                const own = await history(key);
                for (const member of ['org2', 'org3']) {
                    await eventually(async () => (await history(key, net.contract(member, 'history'))).length === 2);
                    assert.deepEqual(await history(key, net.contract(member, 'history')), own);
                }
            },
        },
        {
            name: 'more changes than one batch of the shim',
            run: async () => {
                const key = newID();
                await Promise.all(Array.from({ length: 120 }, (_, i) => basic.submitTransaction('Put', key, String(i))));
                assert.equal((await history(key)).length, 120);
            },
        },
        { name: 'a key that never was has no history', misuse: true, run: async () => assert.deepEqual(await history(newID()), []) },
        {
            name: 'invalid transactions leave no history',
            misuse: true,
            run: async () => {
                const key = newID();
                const late = await basic.newProposal('Add', { arguments: [key, '1'] }).endorse();
                const first = await change('Put', key, '5');
                assert.notEqual((await (await late.submit()).getStatus()).code, 0);
                assert.deepEqual((await history(key)).map((c) => c.txId), [first.txId]);
            },
        },
        {
            name: 'evaluations leave no history',
            misuse: true,
            run: async () => {
                const key = newID();
                await basic.evaluateTransaction('Put', key, 'v');
                assert.deepEqual(await history(key), []);
            },
        },
        {
            name: 'keys that begin alike keep their histories apart',
            misuse: true,
            run: async () => {
                const key = newID();
                await change('Put', `${key}\u0000a`, 'other');
                await change('Put', `${key}a`, 'other');
                await change('Put', key, 'own');
                assert.deepEqual((await history(key)).map((c) => c.value), ['own']);
            },
        },
    ],
};
