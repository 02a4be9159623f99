// `peer snapshot` submitrequest, cancelrequest and listpending, and the questions about joining by one, by their wire form.

import assert from 'node:assert/strict';
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { eventually, newID, refused, rejects, succeeded } from '../lib/expect.mjs';
import { records } from '../lib/records.mjs';
import { bytes, common, make, peer, sha256, unary } from '../lib/wire.mjs';

// ask makes a signed request: 'generate', 'cancel', 'queryPendings' of org1's peer, as its administrator.
async function ask(net, method, fields = {}, { identity = net.user('org1', 'Admin'), sign = identity.sign, header = true } = {}) {
    const Type = method === 'queryPendings' ? peer.SnapshotQuery : peer.SnapshotRequest;
    const signatureHeader = header ? make(common.SignatureHeader, { creator: identity.creator, nonce: crypto.randomBytes(24) }) : undefined;
    const request = bytes(make(Type, { signatureHeader, channelId: net.channel, ...fields }));
    return unary(net.stub('snapshot', 'org1'), method, make(peer.SignedSnapshotRequest, { request, signature: await sign(request) }));
}

const pending = async (net) => (await ask(net, 'queryPendings')).getBlockNumbersList();
const write = async (net) => (await records(net)).submitTransaction('Put', newID(), 'x');
const folderOf = (net, block) => path.join(net.dir, 'nodes', 'peer0.org1', 'data', 'snapshots', 'completed', net.channel, String(block));

// finished waits until a snapshot stands in its folder, and reads what it says of itself.
const finished = (net, block) => eventually(() => JSON.parse(fs.readFileSync(path.join(folderOf(net, block), '_snapshot_signable_metadata.json'))));

export default {
    area: 'Tools',
    title: '`peer snapshot`',
    about: 'submitrequest, cancelrequest, listpending; `peer channel joinbysnapshotstatus`',
    setup: (net) => records(net),
    cases: [{
        name: 'a snapshot of now: files with the hashes that its description names',
        run: async (net) => {
            await write(net);
            const block = await net.height('org1') - 1;
            await ask(net, 'generate');
            const about = await finished(net, block);
            assert.deepEqual([about.channel_name, about.last_block_number], [net.channel, block]);
            const names = Object.keys(about.snapshot_files_raw_hashes);
            for (const name of names) {
                assert.equal(sha256(fs.readFileSync(path.join(folderOf(net, block), name))).toString('hex'), about.snapshot_files_raw_hashes[name], name);
            }
            for (const name of ['public_state', 'private_state_hashes', 'txids', 'confighistory']) {
                assert.ok(names.includes(`${name}.data`) && names.includes(`${name}.metadata`), `${name} is missing among ${names}`);
            }
        },
    }, {
        name: 'a snapshot of a block to come is pending until then',
        run: async (net) => {
            const block = await net.height('org1') + 1;
            await ask(net, 'generate', { blockNumber: block });
            assert.deepEqual(await pending(net), [block]);
            await write(net);
            await write(net);
            assert.equal((await finished(net, block)).last_block_number, block);
            await eventually(async () => (await pending(net)).length === 0);
        },
    }, {
        name: 'two snapshots of one ledger are equal',
        run: async (net) => {
            // Made by two peers at the same block.
            const block = await net.height('org1') + 1;
            await ask(net, 'generate', { blockNumber: block });
            const theirs = net.user('org2', 'Admin');
            const request = bytes(make(peer.SnapshotRequest, {
                signatureHeader: make(common.SignatureHeader, { creator: theirs.creator, nonce: crypto.randomBytes(24) }), channelId: net.channel, blockNumber: block,
            }));
            await eventually(async () => await net.height('org2') >= block - 1);
            await unary(net.stub('snapshot', 'org2'), 'generate', make(peer.SignedSnapshotRequest, { request, signature: await theirs.sign(request) }));
            await write(net);
            await write(net);
            const about = await finished(net, block);
            const other = await eventually(() => JSON.parse(fs.readFileSync(
                path.join(folderOf(net, block).replace('peer0.org1', 'peer0.org2'), '_snapshot_signable_metadata.json'))));
            assert.deepEqual(about, other);
        },
    }, {
        name: 'a request is cancelled',
        run: async (net) => {
            const block = await net.height('org1') + 1000;
            await ask(net, 'generate', { blockNumber: block });
            assert.ok((await pending(net)).includes(block));
            await ask(net, 'cancel', { blockNumber: block });
            assert.ok(!(await pending(net)).includes(block));
        },
    }, {
        name: 'joinbysnapshotstatus: no join is under way',
        run: async (net) => {
            const answer = await net.process('org1', { contract: 'cscc', args: ['JoinBySnapshotStatus'], channel: '', type: common.HeaderType.CONFIG, user: 'Admin' });
            assert.equal(peer.JoinBySnapshotStatus.deserializeBinary(succeeded(answer)).getInProgress(), false);
        },
    }, {
        name: 'a block that has gone by',
        misuse: true,
        run: async (net) => {
            await write(net);
            const last = await net.height('org1') - 1;
            await rejects(ask(net, 'generate', { blockNumber: 1 }), {
                code: 'UNKNOWN', message: new RegExp(`requested snapshot for block number 1 cannot be less than the last committed block number ${last}`),
            });
        },
    }, {
        name: 'the same request twice, and a snapshot that is there already',
        misuse: true,
        run: async (net) => {
            const block = await net.height('org1') + 1000;
            await ask(net, 'generate', { blockNumber: block });
            await rejects(ask(net, 'generate', { blockNumber: block }), { code: 'UNKNOWN', message: new RegExp(`duplicate snapshot request for block number ${block}`) });
            await ask(net, 'cancel', { blockNumber: block });
            await write(net);
            const now = await net.height('org1') - 1;
            await ask(net, 'generate', { blockNumber: now });
            await finished(net, now);
            await eventually(async () => !(await pending(net)).includes(now));
            await rejects(ask(net, 'generate', { blockNumber: now }), { code: 'UNKNOWN', message: new RegExp(`snapshot already generated for block number ${now}`) });
        },
    }, {
        name: 'cancelling what nobody asked for',
        misuse: true,
        run: (net) => rejects(ask(net, 'cancel', { blockNumber: 77_777 }), { code: 'UNKNOWN', message: /no snapshot request exists for block number 77777/ }),
    }, {
        name: 'whoever is not the peer\'s administrator',
        misuse: true,
        run: async (net) => {
            const within = 'during channelless check policy with policy \\[Admins\\]';
            for (const [identity, why] of [[net.user('org1'), `failed verifying that the signed data identity satisfies local MSP principal ${within}`],
                [net.user('org2', 'Admin'), `failed deserializing signed data identity ${within}`]]) {
                for (const method of ['generate', 'cancel', 'queryPendings']) {
                    await rejects(ask(net, method, method === 'queryPendings' ? {} : { blockNumber: 99_999 }, { identity }), { code: 'UNKNOWN', message: new RegExp(why) });
                }
            }
        },
    }, {
        name: 'a wrong signature, none, and no signature header',
        misuse: true,
        run: async (net) => {
            await rejects(ask(net, 'queryPendings', {}, { sign: net.user('org2').sign }), { code: 'UNKNOWN', message: /The signature is invalid/ });
            await rejects(ask(net, 'queryPendings', {}, { sign: async () => Buffer.alloc(0) }), { code: 'UNKNOWN', message: /signature/i });
            await rejects(ask(net, 'queryPendings', {}, { header: false }), { code: 'UNKNOWN', message: /missing signature header/ });
        },
    }, {
        name: 'a channel that is not there, none, and what is no request',
        misuse: true,
        run: async (net) => {
            await rejects(ask(net, 'generate', { channelId: 'elsewhere' }), { code: 'UNKNOWN', message: /cannot find ledger for channel elsewhere/ });
            await rejects(ask(net, 'generate', { channelId: '' }), { code: 'UNKNOWN', message: /missing channel ID/ });
            const garbage = make(peer.SignedSnapshotRequest, { request: Buffer.from([0xff]), signature: Buffer.from('x') });
            await rejects(unary(net.stub('snapshot', 'org1'), 'generate', garbage), { code: 'UNKNOWN', message: /failed to unmarshal snapshot request/ });
        },
    }, {
        name: 'joining by a folder that holds no snapshot',
        misuse: true,
        run: async (net) => {
            const join = (dir, user = 'Admin') => net.process('org1', { contract: 'cscc', args: ['JoinChainBySnapshot', dir], channel: '', type: common.HeaderType.CONFIG, user });
            refused(await join(net.dir), 500, /cannot create ledger from snapshot/);
            refused(await join(''), 500, /Cannot join the channel, no snapshot directory provided/);
            refused(await join(net.dir, 'User1'), 500, /access denied for \[JoinChainBySnapshot\]/);
        },
    }],
};
