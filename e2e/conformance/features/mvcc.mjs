import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let basic;
const endorsed = (name, ...args) => basic.newProposal(name, { arguments: args }).endorse();
// verdicts submits endorsed transactions one after another and tells their validation codes.
const [VALID, MVCC_READ_CONFLICT, PHANTOM_READ_CONFLICT] = [0, 11, 12];
async function verdicts(...transactions) {
    const commits = [];
    for (const t of transactions) commits.push(await t.submit());
    return Promise.all(commits.map(async (c) => (await c.getStatus()).code));
}

export default {
    area: 'Contract features',
    title: 'Conflicts',
    about: 'multi-version concurrency control: MVCC_READ_CONFLICT and PHANTOM_READ_CONFLICT',
    setup: async (net) => {
        await net.deploy('basic', { name: 'conflicts', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'conflicts');
    },
    cases: [
        {
            name: 'transactions on different keys do not meet',
            run: async () => assert.deepEqual(await verdicts(await endorsed('Add', newID(), '1'), await endorsed('Add', newID(), '1')), [VALID, VALID]),
        },
        {
            name: 'writes without reads do not meet: the last one counts',
            run: async () => {
                const key = newID();
                assert.deepEqual(await verdicts(await endorsed('Put', key, 'one'), await endorsed('Put', key, 'two')), [VALID, VALID]);
                assert.equal(text(await basic.evaluateTransaction('Get', key)), 'two');
            },
        },
        {
            name: 'a sum of many is right when conflicts are tried again',
            run: async () => {
                const key = newID();
                const addOne = async () => {
                    for (;;) {
                        try {
                            return await basic.submitTransaction('Add', key, '1');
                        } catch (err) {
                            if (err.code !== MVCC_READ_CONFLICT) throw err;
                        }
                    }
                };
                await Promise.all(Array.from({ length: 6 }, addOne));
                assert.equal(text(await basic.evaluateTransaction('Get', key)), '6');
            },
        },
        {
            name: 'what was read before another transaction changed it is out of date',
            misuse: true,
            run: async () => {
                const key = newID();
                const [first, late] = [await endorsed('Add', key, '1'), await endorsed('Add', key, '1')];
                assert.deepEqual(await verdicts(first, late), [VALID, MVCC_READ_CONFLICT]);
                assert.equal(text(await basic.evaluateTransaction('Get', key)), '1');
            },
        },
        {
            name: 'a key that was absent when read and then came is a conflict too',
            misuse: true,
            run: async () => {
                const key = newID();
                const late = await endorsed('Add', key, '1');
                await basic.submitTransaction('Put', key, '5');
                assert.deepEqual(await verdicts(late), [MVCC_READ_CONFLICT]);
            },
        },
        {
            name: 'a key that was deleted and put again is not what was read',
            misuse: true,
            run: async () => {
                const key = newID();
                await basic.submitTransaction('Put', key, '5');
                const late = await endorsed('Add', key, '1');
                await basic.submitTransaction('Delete', key);
                await basic.submitTransaction('Put', key, '5');
                assert.deepEqual(await verdicts(late), [MVCC_READ_CONFLICT]);
            },
        },
        {
            name: 'a new key in a range that was read is a phantom',
            misuse: true,
            run: async () => {
                const prefix = newID();
                await basic.submitTransaction('PutMany', prefix, '3', 'v');
                const late = await endorsed('CountInto', prefix, `${prefix}~`, newID());
                await basic.submitTransaction('Put', `${prefix}x`, 'v');
                assert.deepEqual(await verdicts(late), [PHANTOM_READ_CONFLICT]);
            },
        },
        {
            name: 'a change, or a deletion, in a range that was read is a phantom',
            misuse: true,
            run: async () => {
                for (const change of [['Put', '0001', 'w'], ['Delete', '0001']]) {
                    const prefix = newID();
                    await basic.submitTransaction('PutMany', prefix, '3', 'v');
                    const late = await endorsed('CountInto', prefix, `${prefix}~`, newID());
                    const [name, key, ...rest] = change;
                    await basic.submitTransaction(name, prefix + key, ...rest);
                    assert.deepEqual(await verdicts(late), [PHANTOM_READ_CONFLICT], name);
                }
            },
        },
        {
            name: 'phantoms in a range of many keys, which is kept as hashes',
            misuse: true,
            run: async () => {
                const prefix = newID();
                await basic.submitTransaction('PutMany', prefix, '150', 'v');
                const [same, late] = [await endorsed('CountInto', prefix, `${prefix}~`, newID()), await endorsed('CountInto', prefix, `${prefix}~`, newID())];
                assert.deepEqual(await verdicts(same), [VALID]);
                await basic.submitTransaction('Put', `${prefix}0149`, 'w');
                assert.deepEqual(await verdicts(late), [PHANTOM_READ_CONFLICT]);
            },
        },
        {
            name: 'submitTransaction throws a CommitError that names the code',
            misuse: true,
            run: async () => {
                const key = newID();
                const results = await Promise.allSettled(Array.from({ length: 8 }, () => basic.submitTransaction('Add', key, '1')));
                const failures = results.filter((r) => r.status === 'rejected').map((r) => r.reason);
                const done = Number(text(await basic.evaluateTransaction('Get', key)));
                assert.equal(done, 8 - failures.length);
                for (const failure of failures) {
                    const error = await rejects(Promise.reject(failure), { type: 'CommitError', message: /MVCC_READ_CONFLICT|11/ });
                    assert.equal(error.code, MVCC_READ_CONFLICT);
                }
            },
        },
    ],
};
