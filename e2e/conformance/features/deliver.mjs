import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

const number = (answer) => { const b = wire.blockOf(answer); return (b.getHeader?.() ?? b).getNumber(); };
// all is what comes of a question: the blocks' numbers, and the status at the end.
async function all(net, where, options) {
    const answers = await net.blocks(where, options);
    const numbers = [];
    for (;;) {
        const answer = await answers.next();
        if (!answer) return { numbers, status: undefined };
        const status = wire.statusOf(answer);
        if (status) {
            answers.close();
            return { numbers, status };
        }
        numbers.push(number(answer));
    }
}
const put = (net) => net.contract('org1', 'basic').submitTransaction('Put', newID(), 'v');
const upTo = (n) => Array.from({ length: n }, (_, i) => i);

// cases are the same for peers and for the orderer, and for blocks of each kind.
const seeks = (where, kind) => [
    {
        name: 'from the oldest block to the newest, then SUCCESS',
        run: async (net) => {
            const height = await net.height('org1');
            const { numbers, status } = await all(net, where, { kind, start: 'oldest', stop: 'newest' });
            assert.equal(status, 'SUCCESS');
            assert.ok(numbers.length >= height);
            assert.deepEqual(numbers, upTo(numbers.length));
        },
    },
    {
        name: 'a single block by its number, the oldest one, the newest one',
        run: async (net) => {
            assert.deepEqual(await all(net, where, { kind, start: 2, stop: 2 }), { numbers: [2], status: 'SUCCESS' });
            assert.deepEqual(await all(net, where, { kind, start: 'oldest', stop: 'oldest' }), { numbers: [0], status: 'SUCCESS' });
            const newest = await all(net, where, { kind, start: 'newest', stop: 'newest' });
            assert.deepEqual([newest.numbers.length, newest.status], [1, 'SUCCESS']);
        },
    },
    {
        name: 'a range of numbers, from the oldest to a number, and from a number to the newest',
        run: async (net) => {
            assert.deepEqual((await all(net, where, { kind, start: 1, stop: 3 })).numbers, [1, 2, 3]);
            assert.deepEqual((await all(net, where, { kind, start: 'oldest', stop: 2 })).numbers, [0, 1, 2]);
            const rest = await all(net, where, { kind, start: 3, stop: 'newest' });
            assert.deepEqual([rest.numbers[0], rest.status], [3, 'SUCCESS']);
        },
    },
    {
        name: 'from the newest block on without end: what comes next arrives by itself',
        run: async (net) => {
            const answers = await net.blocks(where, { kind, start: 'newest', stop: 2n ** 64n - 1n });
            const first = number(await answers.next());
            await put(net);
            assert.equal(number(await answers.next()), first + 1);
            answers.close();
        },
    },
    {
        name: 'the next block to come is waited for',
        run: async (net) => {
            const answers = await net.blocks(where, { kind, start: 'next', stop: 2n ** 64n - 1n });
            await answers.silent(50);
            await put(net);
            assert.ok(number(await answers.next()) > 0);
            answers.close();
        },
    },
    {
        name: 'several questions on one stream, one after another',
        run: async (net) => {
            const identity = net.user('org1');
            const answers = await net.blocks(where, { kind, identity, start: 0, stop: 0 });
            assert.equal(number(await answers.next()), 0);
            assert.equal(wire.statusOf(await answers.next()), 'SUCCESS');
            answers.send(await wire.seek({ identity, channel: net.channel, start: 1, stop: 2 }));
            assert.deepEqual([number(await answers.next()), number(await answers.next())], [1, 2]);
            assert.equal(wire.statusOf(await answers.next()), 'SUCCESS');
            answers.done();
            assert.equal(await answers.next(), undefined);
        },
    },
    {
        name: 'FAIL_IF_NOT_READY: NOT_FOUND for a block that is not there yet',
        misuse: true,
        run: async (net) => {
            assert.deepEqual(await all(net, where, { kind, start: 1_000_000, stop: 1_000_000, failIfNotReady: true }), { numbers: [], status: 'NOT_FOUND' });
            const some = await all(net, where, { kind, start: 1, stop: 1_000_000, failIfNotReady: true });
            assert.equal(some.status, 'NOT_FOUND');
            assert.ok(some.numbers.length > 1);
        },
    },
    {
        name: 'an end before the start, a start or an end that is missing: BAD_REQUEST',
        misuse: true,
        run: async (net) => {
            assert.equal((await all(net, where, { kind, start: 3, stop: 1 })).status, 'BAD_REQUEST');
            assert.equal((await all(net, where, { kind, stop: 1 })).status, 'BAD_REQUEST');
            assert.equal((await all(net, where, { kind, start: 1 })).status, 'BAD_REQUEST');
        },
    },
    {
        name: 'a start that says nothing: NOT_FOUND',
        misuse: true,
        run: async (net) => assert.equal((await all(net, where, { kind, start: 'none', stop: 1 })).status, 'NOT_FOUND'),
    },
    {
        name: 'a channel that is not there: NOT_FOUND',
        misuse: true,
        run: async (net) => assert.equal((await all(net, where, { kind, channel: 'elsewhere', start: 0, stop: 0 })).status, 'NOT_FOUND'),
    },
    {
        name: 'no channel, no header, no envelope at all: BAD_REQUEST or NOT_FOUND',
        misuse: true,
        run: async (net) => {
            assert.match((await all(net, where, { kind, channel: '', start: 0, stop: 0 })).status, /NOT_FOUND|BAD_REQUEST/);
            for (const envelope of [new wire.common.Envelope(), wire.make(wire.common.Envelope, { payload: Buffer.from('nonsense') })]) {
                const stub = where === 'orderer' ? net.stub('broadcast') : net.stub('deliver', where);
                const answers = wire.stream(stub, kind, envelope);
                assert.equal(wire.statusOf(await answers.next()), 'BAD_REQUEST');
                answers.close();
            }
        },
    },
    {
        name: 'a question that cannot be read: BAD_REQUEST',
        misuse: true,
        run: async (net) => assert.equal((await all(net, where, { kind, info: Buffer.from('nonsense') })).status, 'BAD_REQUEST'),
    },
    {
        name: 'identities that are expired, unknown, or of an unknown member: FORBIDDEN or BAD_REQUEST',
        misuse: true,
        run: async (net) => {
            for (const identity of Object.values(net.refused)) {
                const { numbers, status } = await all(net, where, { kind, identity, start: 0, stop: 0 });
                assert.match(status, /FORBIDDEN|BAD_REQUEST/);
                assert.deepEqual(numbers, []);
            }
        },
    },
    {
        name: 'a signature that is missing or another’s: FORBIDDEN',
        misuse: true,
        run: async (net) => {
            for (const sign of [async () => Buffer.alloc(0), net.user('org2').sign]) {
                assert.equal((await all(net, where, { kind, identity: net.user('org1'), sign, start: 0, stop: 0 })).status, 'FORBIDDEN');
            }
        },
    },
    {
        name: 'a question whose time is far from now: BAD_REQUEST',
        misuse: true,
        run: async (net) => {
            const timestamp = wire.timestamp(new Date(Date.now() - 3_600_000));
            assert.equal((await all(net, where, { kind, timestamp, start: 0, stop: 0 })).status, 'BAD_REQUEST');
        },
    },
];

export const deliverFeature = (where, kind, title, about, more = []) => ({
    area: 'Services', title, about,
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        for (let i = 0; i < 3; i++) await put(net);
    },
    cases: [...seeks(where, kind), ...more],
});

export default deliverFeature('org1', 'deliver', 'Deliver of a peer', '`protos.Deliver/Deliver`: all forms of seeking', [
    {
        name: 'HEADER_WITH_SIG_BYTES is a matter of orderers: a peer gives whole blocks or refuses',
        run: async (net) => {
            const answers = await net.blocks('org1', { start: 1, stop: 1, contentType: wire.orderer.SeekInfo.SeekContentType.HEADER_WITH_SIG_BYTES });
            const answer = await answers.next();
            assert.ok(wire.statusOf(answer) === 'BAD_REQUEST' || wire.blockOf(answer).getHeader().getNumber() === 1);
            answers.close();
        },
    },
    {
        name: 'a peer that is another member’s serves the channel’s members alike',
        run: async (net) => assert.deepEqual((await all(net, 'org2', { identity: net.user('org1'), start: 0, stop: 0 })).status, 'SUCCESS'),
    },
    {
        name: 'a call that is no Deliver is unimplemented',
        misuse: true,
        run: async (net) => {
            const answers = wire.stream(net.stub('broadcast', 'org1'), 'broadcast', new wire.common.Envelope());
            await rejects(answers.next(), { code: 'UNIMPLEMENTED' });
        },
    },
]);
