// `osnadmin channel` join, list, remove, fetch and update: the orderer's channel participation API, over HTTPS with a client certificate.

import assert from 'node:assert/strict';
import { eventually, newID, text } from '../lib/expect.mjs';
import { fetch, sameBytes } from '../lib/tools.mjs';
import { bytes, common, header, envelope, make, orderer } from '../lib/wire.mjs';

// joined is a new channel that the orderer has joined, with its genesis block.
async function joined(net) {
    const name = newID('osn');
    const block = await net.genesis(name, { members: ['org1'] });
    const answer = await net.participation('POST', '', block);
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return { name, block, answer };
}

const told = ({ body }) => (Buffer.isBuffer(body) ? text(body) : body.error);

function refusedWith(answer, status, message) {
    assert.equal(answer.status, status, told(answer));
    assert.match(told(answer), message);
}

// batchUpdate is an update that changes how many messages a block may hold, signed by the orderers' administrator unless others are named.
async function batchUpdate(net, channel, count, signers = [net.user('orderer', 'Admin')]) {
    // An orderer that has no leader yet says SERVICE_UNAVAILABLE.
    const { blocks: [block] } = await eventually(async () => {
        const got = await fetch(net, 'orderer', { channel, start: 'newest', identity: net.user('org1') });
        return got.status === 'SUCCESS' && got;
    });
    const payload = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(block.getData().getDataList_asU8()[0]).getPayload_asU8());
    const group = common.ConfigEnvelope.deserializeBinary(payload.getData_asU8()).getConfig().getChannelGroup();
    const ordering = group.getGroupsMap().get('Orderer');
    const size = orderer.BatchSize.deserializeBinary(ordering.getValuesMap().get('BatchSize').getValue_asU8());
    size.setMaxMessageCount(count);
    const changed = make(common.ConfigValue, {
        version: ordering.getValuesMap().get('BatchSize').getVersion() + 1, value: bytes(size), modPolicy: ordering.getValuesMap().get('BatchSize').getModPolicy(),
    });
    const bare = (values) => {
        const inner = make(common.ConfigGroup, { version: ordering.getVersion() });
        for (const [name, value] of Object.entries(values)) inner.getValuesMap().set(name, value);
        const outer = make(common.ConfigGroup, { version: group.getVersion() });
        outer.getGroupsMap().set('Orderer', inner);
        return outer;
    };
    const configUpdate = bytes(make(common.ConfigUpdate, { channelId: channel, readSet: bare({}), writeSet: bare({ BatchSize: changed }) }));
    const signatures = await Promise.all(signers.map(async (identity) => {
        const signatureHeader = bytes(make(common.SignatureHeader, { creator: identity.creator, nonce: Buffer.alloc(24, 1) }));
        return make(common.ConfigSignature, { signatureHeader, signature: await identity.sign(Buffer.concat([signatureHeader, configUpdate])) });
    }));
    const [first = net.user('orderer', 'Admin')] = signers;
    const made = header({ identity: first, channel, type: common.HeaderType.CONFIG_UPDATE });
    return bytes(await envelope(made.message, make(common.ConfigUpdateEnvelope, { configUpdate, signatures }), first.sign));
}

const update = (net, raw) => net.participation('PUT', '', raw, { part: 'config-update-envelope' });

export default {
    area: 'Tools',
    title: '`osnadmin channel`',
    alone: true, // it removes channels, after which Fabric's orderer, where this runs too, may hang
    about: 'join, list, remove, fetch and update on the orderer\'s admin port',
    cases: [{
        name: 'join tells name, relation, status and height; list knows the channel',
        run: async (net) => {
            const { name, answer } = await joined(net);
            const url = `/participation/v1/channels/${name}`;
            assert.deepEqual(answer.body, { name, url, consensusRelation: 'consenter', status: 'active', height: 1 });
            assert.equal(answer.headers.location, url);
            const all = await net.participation('GET', '');
            assert.equal(all.status, 200);
            assert.equal(all.body.systemChannel, null);
            assert.ok(all.body.channels.some((c) => c.name === name && c.url === url));
            assert.ok(all.body.channels.some((c) => c.name === net.channel));
        },
    }, {
        name: 'list of one channel follows its height',
        run: async (net) => {
            const { status, headers, body } = await net.participation('GET', `/${net.channel}`);
            assert.equal(status, 200);
            assert.equal(headers['cache-control'], 'no-store');
            assert.deepEqual([body.name, body.consensusRelation, body.status], [net.channel, 'consenter', 'active']);
            assert.ok(body.height > 0);
        },
    }, {
        name: 'fetch newest, oldest, config and N give blocks',
        run: async (net) => {
            const { name, block } = await joined(net);
            for (const which of ['oldest', 'newest', 'config', '0']) {
                const got = await net.participation('GET', `/${name}/blocks/${which}`, undefined);
                assert.equal(got.status, 200, told(got));
                sameBytes(common.Block.deserializeBinary(got.body).getHeader().serializeBinary(), common.Block.deserializeBinary(block).getHeader().serializeBinary());
            }
        },
    }, {
        name: 'update takes a signed configuration update; the next block has it',
        run: async (net) => {
            const { name } = await joined(net);
            const answer = await update(net, await batchUpdate(net, name, 7));
            assert.equal(answer.status, 201, told(answer));
            assert.equal(answer.body.name, name);
            await eventually(async () => (await net.participation('GET', `/${name}`)).body.height === 2);
            const got = await net.participation('GET', `/${name}/blocks/config`);
            assert.equal(common.Block.deserializeBinary(got.body).getHeader().getNumber(), 1);
        },
    }, {
        name: 'remove: the channel is gone, and can be joined again',
        run: async (net) => {
            const { name, block } = await joined(net);
            assert.equal((await net.participation('DELETE', `/${name}`)).status, 204);
            await eventually(async () => (await net.participation('GET', `/${name}`)).status === 404);
            assert.equal((await fetch(net, 'orderer', { channel: name, start: 0, identity: net.user('org1') })).status, 'NOT_FOUND');
            await eventually(async () => (await net.participation('POST', '', block)).status === 201);
        },
    }, {
        name: 'without a client certificate, or with one of another authority, nobody is let in',
        misuse: true,
        run: async (net) => {
            for (const tls of [null, net.user('org1', 'Admin').tls]) {
                const call = net.participation('GET', '', undefined, { tls });
                const error = await call.then(() => undefined, (err) => err);
                assert.ok(error, 'it is let in');
                assert.match(`${error.code} ${error.message}`, /certificate|ECONNRESET|EPIPE|alert/i);
            }
        },
    }, {
        name: 'joining twice',
        misuse: true,
        run: async (net) => {
            const { block } = await joined(net);
            const again = await net.participation('POST', '', block);
            refusedWith(again, 405, /cannot join: channel already exists/);
            assert.equal(again.headers.allow, 'GET, DELETE');
        },
    }, {
        name: 'joining with what is no config block',
        misuse: true,
        run: async (net) => {
            refusedWith(await net.participation('POST', '', Buffer.from('garbage')), 400, /cannot unmarshal file part config-block into a block/);
            refusedWith(await net.participation('POST', '', Buffer.alloc(0)), 400, /invalid join block/);
            const { blocks: [block] } = await fetch(net, 'orderer', { start: 'oldest', identity: net.user('org1') });
            block.getData().setDataList([]);
            refusedWith(await net.participation('POST', '', block.serializeBinary()), 400, /invalid join block/);
        },
    }, {
        name: 'a body of another type, under another name, in several parts',
        misuse: true,
        run: async (net) => {
            const block = await net.genesis(newID('osn'), { members: ['org1'] });
            const post = (body, type) => net.participation('POST', '', undefined, { body: Buffer.from(body), headers: { 'content-type': type } });
            refusedWith(await post('{}', 'application/json'), 400, /unsupported Content-Type: \[application\/json\]/);
            refusedWith(await post('no parts', 'multipart/form-data; boundary=x'), 400, /cannot read form from request body/);
            refusedWith(await net.participation('POST', '', block, { part: 'block' }), 400, /form does not contains part key: config-block/);
            const part = (name) => `--x\r\nContent-Disposition: form-data; name="${name}"; filename="b"\r\n\r\nb\r\n`;
            refusedWith(await post(`${part('config-block')}${part('more')}--x--\r\n`, 'multipart/form-data; boundary=x'), 400, /form contains too many parts/);
        },
    }, {
        name: 'channels that are not there, or whose names are none',
        misuse: true,
        run: async (net) => {
            refusedWith(await net.participation('GET', '/elsewhere'), 404, /channel does not exist/);
            refusedWith(await net.participation('DELETE', '/elsewhere'), 404, /cannot remove: channel does not exist/);
            refusedWith(await net.participation('GET', '/elsewhere/blocks/newest'), 404, /channel does not exist/);
            refusedWith(await net.participation('GET', '/NO-capitals'), 400, /invalid channel ID: 'NO-capitals' contains illegal characters/);
            refusedWith(await net.participation('DELETE', '/NO-capitals'), 400, /invalid channel ID/);
        },
    }, {
        name: 'blocks that are not there, or are none',
        misuse: true,
        run: async (net) => {
            refusedWith(await net.participation('GET', `/${net.channel}/blocks/1000000`), 404, /block/);
            refusedWith(await net.participation('GET', `/${net.channel}/blocks/last`), 400, /invalid block ID: 'last' not equal <newest\|oldest\|config\|\(number\)>/);
        },
    }, {
        name: 'methods and answers that there are not',
        misuse: true,
        run: async (net) => {
            const patch = await net.participation('PATCH', '');
            refusedWith(patch, 405, /invalid request method: PATCH/);
            assert.equal(patch.headers.allow, 'GET, POST, PUT');
            refusedWith(await net.participation('POST', `/${net.channel}`), 405, /invalid request method: POST/);
            refusedWith(await net.participation('GET', '', undefined, { headers: { accept: 'text/html' } }), 406, /response Content-Type is application\/json only/);
        },
    }, {
        name: 'an update that nobody signed, that others signed, or that is none',
        misuse: true,
        run: async (net) => {
            const { name } = await joined(net);
            refusedWith(await update(net, await batchUpdate(net, name, 7, [net.user('org1', 'Admin')])), 400, /cannot update: .*(policy|implicit)/);
            refusedWith(await update(net, Buffer.from('garbage')), 400, /cannot unmarshal file part config-update-envelope into an envelope/);
            refusedWith(await update(net, Buffer.alloc(0)), 400, /invalid config update envelope/);
            refusedWith(await net.participation('PUT', '', await batchUpdate(net, name, 7)), 400, /form does not contains part key: config-update-envelope/);
            assert.equal((await net.participation('GET', `/${name}`)).body.height, 1);
        },
    }, {
        name: 'an update of a channel that the orderer has not joined',
        misuse: true,
        run: async (net) => {
            const { name } = await joined(net);
            const raw = await batchUpdate(net, name, 7);
            assert.equal((await net.participation('DELETE', `/${name}`)).status, 204);
            await eventually(async () => (await net.participation('GET', `/${name}`)).status === 404);
            refusedWith(await update(net, raw), 405, /cannot update: channel does not exist/);
        },
    }],
};
