import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

const endorsed = (net) => net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'v'] });

export default {
    area: 'Services',
    title: 'Broadcast of the orderer',
    about: '`orderer.AtomicBroadcast/Broadcast`, as `peer chaincode invoke` and `fabric-network` call it',
    setup: (net) => net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) }),
    cases: [
        {
            name: 'a transaction is taken: SUCCESS, and it is recorded',
            run: async (net) => {
                const { proposed, responses } = await endorsed(net);
                assert.deepEqual(await net.broadcast(await wire.transaction(proposed, responses)), { status: 'SUCCESS', info: '' });
                assert.equal(await net.verdict('org1', proposed.txId), 'VALID');
            },
        },
        {
            name: 'several on one stream, one answer each, in their order',
            run: async (net) => {
                const all = [await endorsed(net), await endorsed(net), await endorsed(net)];
                const answers = wire.stream(net.stub('broadcast'), 'broadcast');
                for (const { proposed, responses } of all) answers.send(await wire.transaction(proposed, responses));
                for (const { proposed } of all) {
                    assert.equal((await answers.next()).getStatus(), wire.common.Status.SUCCESS);
                    assert.equal(await net.verdict('org1', proposed.txId), 'VALID');
                }
                answers.done();
                assert.equal(await answers.next(), undefined);
            },
        },
        {
            name: 'the orderer does not judge endorsements: a transaction without any is ordered, and invalid',
            run: async (net) => {
                const { proposed, responses } = await endorsed(net);
                assert.equal((await net.broadcast(await wire.transaction(proposed, responses, { endorsements: [] }))).status, 'SUCCESS');
                assert.equal(await net.verdict('org1', proposed.txId), 'ENDORSEMENT_POLICY_FAILURE');
            },
        },
        {
            name: 'an envelope that is empty or cannot be read: BAD_REQUEST',
            misuse: true,
            run: async (net) => {
                assert.equal((await net.broadcast(new wire.common.Envelope())).status, 'BAD_REQUEST');
                assert.equal((await net.broadcast(wire.make(wire.common.Envelope, { payload: Buffer.from('nonsense') }))).status, 'BAD_REQUEST');
            },
        },
        {
            name: 'a channel that is not there: BAD_REQUEST or NOT_FOUND',
            misuse: true,
            run: async (net) => {
                const identity = net.user('org1');
                const { message } = wire.header({ identity, type: wire.common.HeaderType.ENDORSER_TRANSACTION, channel: 'elsewhere' });
                assert.match((await net.broadcast(await wire.envelope(message, Buffer.from('x'), identity.sign))).status, /BAD_REQUEST|NOT_FOUND/);
            },
        },
        {
            name: 'signatures that are missing or another’s: FORBIDDEN',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await endorsed(net);
                for (const sign of [async () => Buffer.alloc(0), net.user('org2').sign]) {
                    assert.equal((await net.broadcast(await wire.transaction(proposed, responses, { sign }))).status, 'FORBIDDEN');
                }
            },
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member: FORBIDDEN',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) {
                    const { message } = wire.header({ identity, type: wire.common.HeaderType.ENDORSER_TRANSACTION, channel: net.channel });
                    const { status } = await net.broadcast(await wire.envelope(message, Buffer.from('x'), identity.sign));
                    assert.match(status, /FORBIDDEN|BAD_REQUEST/);
                }
            },
        },
        {
            name: 'a transaction above the channel’s absolute maximum: BAD_REQUEST',
            misuse: true,
            run: async (net) => {
                const identity = net.user('org1');
                const { message } = wire.header({ identity, type: wire.common.HeaderType.ENDORSER_TRANSACTION, channel: net.channel });
                const { status, info } = await net.broadcast(await wire.envelope(message, Buffer.alloc(11 << 20), identity.sign));
                assert.equal(status, 'BAD_REQUEST', info);
                assert.match(info, /exceeds maximum allowed|maximum allowed/);
            },
        },
        {
            name: 'a CONFIG transaction that comes from a client: BAD_REQUEST',
            misuse: true,
            run: async (net) => {
                const identity = net.user('orderer', 'Admin');
                const { message } = wire.header({ identity, type: wire.common.HeaderType.CONFIG, channel: net.channel });
                const { status } = await net.broadcast(await wire.envelope(message, new wire.common.ConfigEnvelope(), identity.sign));
                assert.match(status, /BAD_REQUEST|FORBIDDEN/);
            },
        },
        {
            name: 'a configuration update that cannot be read, or changes nothing: BAD_REQUEST',
            misuse: true,
            run: async (net) => {
                const identity = net.user('org1', 'Admin');
                for (const update of [Buffer.from('nonsense'), wire.bytes(wire.make(wire.common.ConfigUpdate, { channelId: net.channel }))]) {
                    const { message } = wire.header({ identity, type: wire.common.HeaderType.CONFIG_UPDATE, channel: net.channel });
                    const data = wire.make(wire.common.ConfigUpdateEnvelope, { configUpdate: update });
                    assert.match((await net.broadcast(await wire.envelope(message, data, identity.sign))).status, /BAD_REQUEST/);
                }
            },
        },
        {
            name: 'after a refusal the stream ends, and the client begins a new one',
            misuse: true,
            run: async (net) => {
                const answers = wire.stream(net.stub('broadcast'), 'broadcast', new wire.common.Envelope());
                assert.equal((await answers.next()).getStatus(), wire.common.Status.BAD_REQUEST);
                assert.equal(await answers.next(), undefined);
            },
        },
    ],
};
