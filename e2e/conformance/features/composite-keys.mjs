import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let basic;
const put = (type, parts, value) => basic.submitTransaction('PutComposite', type, JSON.stringify(parts), value);
const found = async (type, parts) => JSON.parse(text(await basic.evaluateTransaction('Composites', type, JSON.stringify(parts))));

export default {
    area: 'Contract features',
    title: 'Composite keys',
    about: '`createCompositeKey`, `splitCompositeKey`, `getStateByPartialCompositeKey`, with pagination too',
    setup: async (net) => {
        await net.deploy('basic', { name: 'composites', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'composites');
    },
    cases: [
        {
            name: 'a value under a composite key is read back',
            run: async () => {
                const type = newID('owner~id');
                await put(type, ['Ann', '7'], 'car');
                assert.equal(text(await basic.evaluateTransaction('GetComposite', type, '["Ann","7"]')), 'car');
            },
        },
        {
            name: 'a partial key finds all that begin with it, in order, and their parts',
            run: async () => {
                const type = newID('owner~id');
                for (const parts of [['Max', '2'], ['Ann', '2'], ['Ann', '1'], ['Anna', '1']]) await put(type, parts, parts.join());
                assert.deepEqual(await found(type, ['Ann']), [
                    { objectType: type, attributes: ['Ann', '1'], value: 'Ann,1' }, { objectType: type, attributes: ['Ann', '2'], value: 'Ann,2' },
                ]);
                assert.equal((await found(type, [])).length, 4);
            },
        },
        {
            name: 'partial keys by pages',
            run: async () => {
                const type = newID('paged');
                for (const n of ['1', '2', '3']) await put(type, ['x', n], n);
                const first = JSON.parse(text(await basic.evaluateTransaction('CompositePage', type, '["x"]', '2', '')));
                assert.deepEqual(first.keys, [['x', '1'], ['x', '2']]);
                const second = JSON.parse(text(await basic.evaluateTransaction('CompositePage', type, '["x"]', '2', first.bookmark)));
                assert.deepEqual([second.keys, second.bookmark], [[['x', '3']], '']);
            },
        },
        {
            name: 'an empty type is refused',
            misuse: true,
            run: () => rejects(put('', ['a'], 'v'), { type: 'EndorseError', code: 'ABORTED', message: /object type or attribute not a non-zero length string/ }),
        },
        {
            name: 'an empty part is refused',
            misuse: true,
            run: () => rejects(put(newID(), ['a', ''], 'v'), { type: 'EndorseError', code: 'ABORTED', message: /not a non-zero length string/ }),
        },
        {
            name: 'parts that are no list are refused',
            misuse: true,
            run: () => rejects(put(newID(), 'a', 'v'), { type: 'EndorseError', code: 'ABORTED', message: /attributes must be an array/ }),
        },
        {
            name: 'the parts of one key are not those of another that reads alike',
            misuse: true,
            run: async () => {
                const type = newID('type');
                await put(type, ['ab', 'c'], 'v');
                assert.equal(text(await basic.evaluateTransaction('GetComposite', type, '["a","bc"]')), '');
                assert.deepEqual(await found(type, ['a']), []);
            },
        },
    ],
};
