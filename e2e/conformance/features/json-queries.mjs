// JSON queries in CouchDB's selector language, over public records and private ones.

import assert from 'node:assert/strict';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';
import { put, records } from '../lib/records.mjs';

let ours;
let set; // the mark of this run's documents, each of which has a key that begins with it

const documents = {
    a: { owner: 'Tom', size: 5, color: 'red', tags: ['new', 'fast'], maker: { name: 'Acme', since: 1990 } },
    b: { owner: 'ann', size: 7, color: 'blue', tags: ['old'], maker: { name: 'Bolt', since: 2001 } },
    c: { owner: 'Ann', size: 3, color: 'red', tags: [], rating: null },
    d: { owner: 'Tom', size: 9, color: 'green', parts: [{ kind: 'wheel', count: 4 }, { kind: 'door', count: 2 }] },
    e: { owner: 'Zoe', size: 4.5, color: 'blue', 'dotted.name': 'yes' },
};

const named = (rows) => rows.map(({ key }) => key.slice(set.length + 1)).join('');

const query = async (question, contract = ours) => JSON.parse(text(await contract.evaluateTransaction('Query', JSON.stringify(question))));

// found is the letters of the documents that a selector finds, in the order of their keys.
const found = async (selector, more = {}) => named(await query({ selector: { set, ...selector }, ...more }));

const page = async (question, size, bookmark) => {
    const answer = JSON.parse(text(await ours.evaluateTransaction('QueryPage', JSON.stringify(question), String(size), bookmark)));
    return { ...answer, names: named(answer.keys.map((key) => ({ key }))) };
};

const refusedAs = (question, message) => rejects(
    ours.evaluateTransaction('Query', typeof question === 'string' ? question : JSON.stringify(question)), { type: 'GatewayError', message },
);

const couch = (error, reason) => new RegExp(`error handling CouchDB request. Error:${error},  Status Code:400,  Reason:${reason}`);

export default {
    area: 'Contract features',
    title: 'JSON queries',
    about: 'CouchDB\'s selectors, sort, fields, bookmarks, and indexes from `META-INF`, on public and private records',
    gaps: ['`$regex` takes Go\'s regular expressions, without references back and looking around'],
    setup: async (net) => {
        ours = await records(net, 'org1');
        set = newID('set');
        await ours.submitTransaction('Many', JSON.stringify(Object.fromEntries(
            Object.entries(documents).map(([name, d]) => [`${set}-${name}`, { set, ...d }]),
        )));
        await ours.submitTransaction('Put', `${set}-x`, 'no JSON');
        // The index comes with the package; it is built beside.
        await eventually(() => query({ selector: { owner: { $gt: null } }, sort: ['owner', 'size'] }));
    },
    cases: [{
        name: 'equality, also of nested fields and of the fields of a list\'s elements',
        run: async () => {
            assert.equal(await found({ color: 'red' }), 'ac');
            assert.equal(await found({ color: { $eq: 'red' }, size: 5 }), 'a');
            assert.equal(await found({ 'maker.name': 'Acme' }), 'a');
            assert.equal(await found({ maker: { since: { $gt: 2000 } } }), 'b');
            assert.equal(await found({ 'dotted\\.name': 'yes' }), 'e');
        },
    }, {
        name: 'comparisons: $lt $lte $gt $gte $ne, of numbers and texts',
        run: async () => {
            assert.equal(await found({ size: { $gt: 4.5, $lte: 7 } }), 'ab');
            assert.equal(await found({ size: { $gte: 4.5, $lt: 7 } }), 'ae');
            assert.equal(await found({ color: { $ne: 'red' } }), 'bde');
            assert.equal(await found({ owner: { $gt: 'ann', $lt: 'Zoe' } }), 'acd');
        },
    }, {
        name: '$in $nin $exists $type',
        run: async () => {
            assert.equal(await found({ owner: { $in: ['Zoe', 'ann'] } }), 'be');
            assert.equal(await found({ color: { $nin: ['red', 'blue'] } }), 'd');
            assert.equal(await found({ rating: { $exists: true } }), 'c');
            assert.equal(await found({ maker: { $exists: false } }), 'cde');
            assert.equal(await found({ tags: { $type: 'array' } }), 'abc');
            assert.equal(await found({ rating: { $type: 'null' } }), 'c');
        },
    }, {
        name: '$and $or $not $nor',
        run: async () => {
            assert.equal(await found({ $or: [{ color: 'green' }, { size: 3 }] }), 'cd');
            assert.equal(await found({ $and: [{ color: 'red' }, { size: { $gt: 4 } }] }), 'a');
            assert.equal(await found({ $not: { color: 'red' } }), 'bde');
            assert.equal(await found({ $nor: [{ color: 'red' }, { color: 'blue' }] }), 'd');
        },
    }, {
        name: 'lists: $all $elemMatch $allMatch $size',
        run: async () => {
            assert.equal(await found({ tags: { $all: ['fast', 'new'] } }), 'a');
            assert.equal(await found({ parts: { $elemMatch: { kind: 'door', count: { $gt: 1 } } } }), 'd');
            assert.equal(await found({ parts: { $allMatch: { count: { $gte: 2 } } } }), 'd');
            assert.equal(await found({ tags: { $size: 1 } }), 'b');
        },
    }, {
        name: '$regex and $mod',
        run: async () => {
            assert.equal(await found({ owner: { $regex: '^[Aa]nn$' } }), 'bc');
            assert.equal(await found({ size: { $mod: [4, 1] } }), 'ad');
        },
    }, {
        name: 'sorting by an index of the package, both ways, in CouchDB\'s order',
        run: async () => {
            const sorted = { selector: { set, owner: { $gt: null } }, sort: ['owner', 'size'] };
            assert.equal(named(await query(sorted)), 'bcade');
            assert.equal(named(await query({ ...sorted, sort: [{ owner: 'desc' }, { size: 'desc' }] })), 'edacb');
            assert.equal(named(await query({ ...sorted, use_index: ['_design/byOwner', 'owner'] })), 'bcade');
        },
    }, {
        name: 'fields gives those only',
        run: async () => {
            const [row] = await query({ selector: { set, size: 5 }, fields: ['owner', 'maker.name'] });
            assert.deepEqual(JSON.parse(row.value), { owner: 'Tom', maker: { name: 'Acme' } });
        },
    }, {
        name: 'the query\'s own limit does not cut the result, as with Fabric; skip does',
        run: async () => {
            assert.equal(await found({}, { limit: 2 }), 'abcde');
            assert.equal(await found({}, { skip: 3 }), 'de');
        },
    }, {
        name: 'pages by bookmark, to the end',
        run: async () => {
            const question = { selector: { set, owner: { $gt: null } }, sort: ['owner', 'size'] };
            const names = [];
            let [bookmark, count] = ['', 0];
            do {
                const answer = await page(question, 2, bookmark);
                ({ bookmark, count } = answer);
                names.push(answer.names);
                assert.equal(count, answer.names.length);
            } while (count > 0);
            assert.deepEqual(names, ['bc', 'ad', 'e', '']);
        },
    }, {
        name: 'a document that changes is found by what it is now',
        run: async () => {
            const [key, mark] = [newID(), newID('mark')];
            await ours.submitTransaction('Put', key, JSON.stringify({ mark, owner: 'first', size: 1 }));
            assert.equal((await query({ selector: { owner: 'first', mark } })).length, 1);
            await ours.submitTransaction('Put', key, JSON.stringify({ mark, owner: 'second', size: 1 }));
            assert.equal((await query({ selector: { owner: 'first', mark } })).length, 0);
            assert.equal((await query({ selector: { owner: 'second', mark } })).length, 1);
            await ours.submitTransaction('Delete', key);
            assert.equal((await query({ selector: { owner: 'second', mark } })).length, 0);
        },
    }, {
        name: 'every peer answers the same',
        run: async (net) => {
            for (const member of ['org2', 'org3']) {
                const theirs = await records(net, member);
                await eventually(async () => named(await query({ selector: { set, owner: { $gt: null } }, sort: ['owner', 'size'] }, theirs)) === 'bcade');
            }
        },
    }, {
        name: 'private records, sorted by the collection\'s own index, at the members',
        run: async (net) => {
            const mark = newID('price');
            for (const [name, price] of Object.entries({ p: 30, q: 10, r: 20 })) {
                await put(ours, 'shared', `${mark}-${name}`, JSON.stringify({ mark, price }));
            }
            const question = JSON.stringify({ selector: { mark, price: { $gt: 0 } }, sort: ['price'] });
            const prices = async (member) => JSON.parse(text(await (await records(net, member)).evaluateTransaction('PrivateQuery', 'shared', question)))
                .map(({ value }) => JSON.parse(value).price);
            for (const member of ['org1', 'org2']) {
                await eventually(async () => assert.deepEqual(await prices(member), [10, 20, 30]) ?? true);
            }
            // An outsider's peer has nothing to find.
            assert.deepEqual(await prices('org3'), []);
        },
    }, {
        name: 'a query in a transaction that writes is committed',
        run: async () => {
            const key = newID('count');
            const question = JSON.stringify({ selector: { set, color: 'red' } });
            assert.equal(text(await ours.submitTransaction('QueryThenPut', question, key)), '2');
            assert.equal(text(await ours.evaluateTransaction('Get', key)), '2');
        },
    }, {
        name: 'phantoms of a query are not detected, results that changed are, as with Fabric',
        misuse: true,
        run: async () => {
            const mark = newID('phantom');
            const question = JSON.stringify({ selector: { mark } });
            await ours.submitTransaction('Put', `${mark}-1`, JSON.stringify({ mark }));
            const before = await Promise.all([1, 2].map(() => ours.newProposal('QueryThenPut', { arguments: [question, newID()] }).endorse()));
            await ours.submitTransaction('Put', `${mark}-2`, JSON.stringify({ mark }));
            assert.equal((await (await before[0].submit()).getStatus()).code, 0, 'a phantom alone is no conflict');
            await ours.submitTransaction('Put', `${mark}-1`, JSON.stringify({ mark, changed: true }));
            assert.equal((await (await before[1].submit()).getStatus()).code, 11, 'MVCC_READ_CONFLICT is wanted');
        },
    }, {
        name: 'sorting without an index for it',
        misuse: true,
        run: () => refusedAs({ selector: { set }, sort: ['color'] },
            couch('no_usable_index', 'No index exists for this sort, try indexing by the sort fields.')),
    }, {
        name: 'sorting in two directions at once',
        misuse: true,
        run: () => refusedAs({ selector: { set }, sort: [{ owner: 'asc' }, { size: 'desc' }] },
            couch('unsupported_mixed_sort', 'Sorts currently only support a single direction for all fields.')),
    }, {
        name: 'text that is no JSON, and JSON that is no object',
        misuse: true,
        run: async () => {
            await refusedAs('{"selector":', /GET_QUERY_RESULT failed: transaction ID: [0-9a-f]{64}: unexpected EOF/);
            await refusedAs('["selector"]', /json: cannot unmarshal array into Go value of type map\[string\]interface {}/);
        },
    }, {
        name: 'a query without selector, and a selector that is no object',
        misuse: true,
        run: async () => {
            await refusedAs({ fields: ['owner'] }, couch('missing_required_key', 'Missing required key: selector'));
            await refusedAs({ selector: 'red' }, couch('invalid_selector_json', 'Selector must be a JSON object, not: "red"'));
        },
    }, {
        name: 'an unknown operator, and a known one with a wrong argument',
        misuse: true,
        run: async () => {
            await refusedAs({ selector: { size: { $around: 5 } } }, couch('invalid_operator', 'Invalid operator: \\$around'));
            await refusedAs({ selector: { size: { $near: 5 } } }, couch('not_supported', 'Unsupported operator: \\$near'));
            await refusedAs({ selector: { size: { $in: 5 } } }, couch('bad_arg', 'Bad argument for operator \\$in: 5'));
        },
    }, {
        name: 'an unknown key of the query, and fields that are no list',
        misuse: true,
        run: async () => {
            await refusedAs({ selector: { set }, order: 'owner' }, couch('invalid_key', 'Invalid key order for this request.'));
            await refusedAs({ selector: { set }, fields: 'owner' }, /fields definition must be an array/);
        },
    }, {
        name: 'a bookmark that no query gave',
        misuse: true,
        run: () => rejects(page({ selector: { set } }, 2, 'garbage'), { type: 'GatewayError', message: couch('invalid_bookmark', 'Invalid bookmark value: "garbage"') }),
    }, {
        name: 'a page, then a write in the same transaction',
        misuse: true,
        run: () => rejects(ours.submitTransaction('PageThenPut', JSON.stringify({ selector: { set } }), newID()), {
            type: 'EndorseError', message: /unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed/,
        }),
    }, {
        name: 'a private query, then a write in the same transaction',
        misuse: true,
        run: () => rejects(ours.submitTransaction('PrivateQueryThenPut', 'shared', JSON.stringify({ selector: { set } }), newID()), {
            type: 'EndorseError', message: /unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed/,
        }),
    }, {
        name: 'private queries where the caller may not read',
        misuse: true,
        run: async (net) => {
            const there = await records(net, 'org1', { identity: net.user('org3') });
            await rejects(there.evaluateTransaction('PrivateQuery', 'guarded', JSON.stringify({ selector: { set } })),
                { type: 'GatewayError', message: /tx creator does not have read access permission on privatedata in chaincodeName:records collectionName: guarded/ });
        },
    }],
};
