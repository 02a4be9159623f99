import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let basic;
let prefix;
const json = async (promise) => JSON.parse(text(await promise));
const range = (start, end) => json(basic.evaluateTransaction('Range', start, end));
const page = (start, end, size, bookmark = '') => json(basic.evaluateTransaction('RangePage', start, end, String(size), bookmark));

export default {
    area: 'Contract features',
    title: 'Ranges and pagination',
    about: '`getStateByRange`, `getStateByRangeWithPagination`',
    setup: async (net) => {
        await net.deploy('basic', { name: 'ranges', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'ranges');
        prefix = newID('range');
        await basic.submitTransaction('PutMany', prefix, '250', 'v');
    },
    cases: [
        {
            name: 'a range holds its start and not its end, in the order of the keys',
            run: async () => {
                const rows = await range(`${prefix}0010`, `${prefix}0015`);
                assert.deepEqual(rows.map((r) => r.key), ['0010', '0011', '0012', '0013', '0014'].map((k) => prefix + k));
                assert.ok(rows.every((r) => r.value === 'v'));
            },
        },
        { name: 'a range of more rows than one batch of the shim', run: async () => assert.equal((await range(prefix, `${prefix}~`)).length, 250) },
        {
            name: 'an open range holds all simple keys of the contract, and no composite ones',
            run: async () => {
                await basic.submitTransaction('PutComposite', 'type', '["part"]', 'v');
                const rows = await range('', '');
                assert.equal(rows.length, 250);
                assert.ok(rows.every((r) => r.key.startsWith(prefix)));
            },
        },
        {
            name: 'keys are ordered by their bytes',
            run: async () => {
                const own = newID('order');
                const keys = ['a', 'B', 'b', 'é', '10', '9', '𝄞', '～'];
                for (const k of keys) await basic.submitTransaction('Put', own + k, 'v');
                const sorted = [...keys].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
                assert.deepEqual((await range(own, `${own}\u{10ffff}`)).map((r) => r.key.slice(own.length)), sorted);
                for (const k of keys) await basic.submitTransaction('Delete', own + k);
            },
        },
        {
            name: 'pages follow one another by their bookmarks until the end',
            run: async () => {
                const keys = [];
                let bookmark = '';
                const sizes = [];
                do {
                    const one = await page(prefix, `${prefix}~`, 100, bookmark);
                    assert.equal(one.count, one.keys.length);
                    sizes.push(one.count);
                    keys.push(...one.keys);
                    bookmark = one.bookmark;
                } while (bookmark !== '');
                assert.deepEqual(sizes, [100, 100, 50]);
                assert.equal(new Set(keys).size, 250);
            },
        },
        {
            name: 'a bookmark is the key with which the next page begins',
            run: async () => assert.equal((await page(prefix, `${prefix}~`, 7)).bookmark, `${prefix}0007`),
        },
        { name: 'a range in which there is nothing is empty', run: async () => assert.deepEqual(await range(`${prefix}x`, `${prefix}y`), []) },
        {
            name: 'a range whose end is before its start is empty',
            misuse: true,
            run: async () => assert.deepEqual(await range(`${prefix}0005`, `${prefix}0001`), []),
        },
        {
            name: 'a start with the character that composite keys begin with is refused',
            misuse: true,
            run: () => rejects(basic.evaluateTransaction('Range', '\u0000type', ''), { type: 'GatewayError', code: 'UNKNOWN' }),
        },
        {
            name: 'a transaction that reads by pages may not write',
            misuse: true,
            run: async () => {
                const error = await rejects(basic.submitTransaction('PageThenPut', prefix, `${prefix}~`, newID()), { type: 'EndorseError', code: 'ABORTED' });
                assert.match(error.details[0].message, /has already performed a paginated query\. Writes are not allowed/);
            },
        },
        {
            name: 'a page of a negative size has all, as with Fabric’s default state database',
            misuse: true,
            run: async () => assert.deepEqual([(await page(prefix, `${prefix}~`, -1)).count, (await page(prefix, `${prefix}~`, -1)).bookmark], [250, '']),
        },
        {
            name: 'a bookmark beyond the range gives an empty page',
            misuse: true,
            run: async () => assert.deepEqual((await page(prefix, `${prefix}0100`, 10, `${prefix}0200`)).keys, []),
        },
    ],
};
