// How private data ends: blockToLive and PurgePrivateData.

import assert from 'node:assert/strict';
import { newID, rejects, text } from '../lib/expect.mjs';
import { get, put, reads, records } from '../lib/records.mjs';
import { invoke } from '../lib/tools.mjs';

// pass lets a number of blocks go by.
async function pass(contract, blocks) {
    for (let i = 0; i < blocks; i++) {
        await contract.submitTransaction('Put', newID('touch'), 'x');
    }
}

const hash = async (contract, collection, key) => text(await contract.evaluateTransaction('PrivateHash', collection, key));

export default {
    area: 'Contract features',
    title: 'The end of private data',
    about: 'blockToLive of a collection, and PurgePrivateData',
    setup: (net) => records(net),
    cases: [{
        name: 'blockToLive: a value is there for that many blocks, then it and its hash are gone everywhere',
        run: async (net) => {
            const [ours, theirs, outsider] = await Promise.all(['org1', 'org2', 'org3'].map((m) => records(net, m)));
            const key = newID('ice');
            await put(ours, 'brief', key, 'for a short time');
            await reads(theirs, 'brief', key, 'for a short time');
            await pass(ours, 2);
            assert.equal(await get(ours, 'brief', key), 'for a short time');
            await pass(ours, 1);
            for (const contract of [ours, theirs]) {
                await reads(contract, 'brief', key, '');
            }
            for (const contract of [ours, outsider]) {
                assert.equal(await hash(contract, 'brief', key), '');
            }
        },
    }, {
        name: 'blockToLive: writing again begins a new life',
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('ice');
            await put(ours, 'brief', key, 'first');
            await pass(ours, 1);
            await put(ours, 'brief', key, 'second');
            await pass(ours, 2);
            assert.equal(await get(ours, 'brief', key), 'second');
            await pass(ours, 1);
            assert.equal(await get(ours, 'brief', key), '');
        },
    }, {
        name: 'blockToLive: other collections of the contract do not expire',
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('stone');
            await put(ours, 'shared', key, 'for long');
            await pass(ours, 4);
            assert.equal(await get(ours, 'shared', key), 'for long');
        },
    }, {
        name: 'a purged value and its hash are gone at every member',
        run: async (net) => {
            const [ours, theirs] = await Promise.all(['org1', 'org2'].map((m) => records(net, m)));
            const key = newID('secret');
            await put(ours, 'shared', key, 'to be forgotten');
            await reads(theirs, 'shared', key, 'to be forgotten');
            await ours.submitTransaction('PurgePrivate', 'shared', key);
            for (const contract of [ours, theirs]) {
                await reads(contract, 'shared', key, '');
                assert.equal(await hash(contract, 'shared', key), '');
            }
        },
    }, {
        name: 'a purged key can be written again',
        run: async (net) => {
            const [ours, theirs] = await Promise.all(['org1', 'org2'].map((m) => records(net, m)));
            const key = newID('phoenix');
            await put(ours, 'shared', key, 'before');
            await ours.submitTransaction('PurgePrivate', 'shared', key);
            await put(ours, 'shared', key, 'after');
            await reads(ours, 'shared', key, 'after');
            await reads(theirs, 'shared', key, 'after');
        },
    }, {
        name: 'a key that was deleted before can be purged, and one that never was',
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('deleted');
            await put(ours, 'shared', key, 'gone but kept');
            await ours.submitTransaction('DeletePrivate', 'shared', key);
            await ours.submitTransaction('PurgePrivate', 'shared', key);
            await ours.submitTransaction('PurgePrivate', 'shared', newID('never'));
        },
    }, {
        name: 'purging is a write: an outsider may where the policies let it',
        run: async (net) => {
            const [ours, outsider] = await Promise.all(['org1', 'org3'].map((m) => records(net, m)));
            const key = newID('open');
            await put(ours, 'shared', key, 'anybody purges');
            await outsider.submit('PurgePrivate', { arguments: ['shared', key], endorsingOrganizations: ['Org3MSP'] });
            await reads(ours, 'shared', key, '');
        },
    }, {
        name: 'a value that expired reads as if it had never been',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('ice');
            await put(ours, 'brief', key, 'melted');
            await pass(ours, 3);
            await ours.submitTransaction('AppendPrivate', 'brief', key, 'new');
            assert.equal(await get(ours, 'brief', key), 'new');
        },
    }, {
        name: 'a change of a value that expires before the change is ordered',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('ice');
            await put(ours, 'brief', key, 'melting');
            const late = await ours.newProposal('AppendPrivate', { arguments: ['brief', key, ' late'] }).endorse();
            await pass(ours, 3);
            assert.equal((await (await late.submit()).getStatus()).code, 11, 'MVCC_READ_CONFLICT is wanted');
            assert.equal(await get(ours, 'brief', key), '');
        },
    }, {
        name: 'purging where the caller may not write',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('guarded');
            await put(ours, 'guarded', key, 'amber');
            const there = await records(net, 'org1', { identity: net.user('org3') });
            await rejects(there.submit('PurgePrivate', { arguments: ['guarded', key], endorsingOrganizations: ['Org1MSP'] }),
                { type: 'EndorseError', message: /tx creator does not have write access permission on privatedata in chaincodeName:records collectionName: guarded/ });
            assert.equal(await get(ours, 'guarded', key), 'amber');
        },
    }, {
        name: 'purging without the endorsements that the collection asks for',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('agreed');
            await put(ours, 'agreed', key, 'both signed');
            const { code } = await invoke(net, ['org1'], { contract: 'records', args: ['PurgePrivate', 'agreed', key] });
            assert.equal(code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal(await get(ours, 'agreed', key), 'both signed');
        },
    }, {
        name: 'a change of a value that is purged before the change is ordered',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('secret');
            await put(ours, 'shared', key, 'read');
            const late = await ours.newProposal('AppendPrivate', { arguments: ['shared', key, ' late'] }).endorse();
            await ours.submitTransaction('PurgePrivate', 'shared', key);
            assert.equal((await (await late.submit()).getStatus()).code, 11, 'MVCC_READ_CONFLICT is wanted');
            assert.equal(await get(ours, 'shared', key), '');
        },
    }, {
        name: 'purging in a collection that is not defined',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            await rejects(ours.submitTransaction('PurgePrivate', 'nowhere', newID()),
                { type: 'EndorseError', code: 'ABORTED', message: /collection business\/records\/nowhere could not be found/ });
        },
    }],
};
