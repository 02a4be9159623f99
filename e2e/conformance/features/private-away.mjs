// Private data while a member's peer is away: it is frozen, so that others wait for it and it misses what happens.

import assert from 'node:assert/strict';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';
import { get, notHere, put, reads, records } from '../lib/records.mjs';

let [ours, theirs] = [];

// without freezes a member's peer while something is done, and lets it go on whatever comes of it.
async function without(net, member, action) {
    const node = `peer0.${member}`;
    await net.signal(node, 'SIGSTOP');
    try {
        return await action();
    } finally {
        await net.signal(node, 'SIGCONT');
    }
}

const hashed = (contract, collection, key) => eventually(async () => text(await contract.evaluateTransaction('PrivateHash', collection, key)) !== '');

export default {
    area: 'Contract features',
    title: 'Private data for peers that were away',
    about: 'What a peer missed it gets at the commit or by reconciliation; what could not be handed over is refused or missing',
    alone: true,
    setup: async (net) => { [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')]; },
    cases: [{
        name: 'a peer that was away has the value when it has the block',
        run: async (net) => {
            const key = newID('letter');
            await without(net, 'org2', () => put(ours, 'shared', key, 'while you were away', 'Org1MSP'));
            await reads(theirs, 'shared', key, 'while you were away');
        },
    }, {
        name: 'a value that nobody can give is missing, and said to be; who can give it later does',
        misuse: true,
        run: async (net) => {
            // Of a collection whose values are not handed over at endorsement.
            const key = newID('missing');
            await net.signal('peer0.org2', 'SIGSTOP');
            try {
                await put(ours, 'quiet', key, 'not yet here', 'Org1MSP');
                await without(net, 'org1', async () => {
                    await net.signal('peer0.org2', 'SIGCONT');
                    await hashed(theirs, 'quiet', key);
                    await rejects(get(theirs, 'quiet', key), { type: 'GatewayError', message: notHere });
                });
            } finally {
                await net.signal('peer0.org2', 'SIGCONT');
            }
            await reads(theirs, 'quiet', key, 'not yet here');
        },
    }, {
        name: 'requiredPeerCount: no endorsement while the other members\' peers are away',
        misuse: true,
        run: async (net) => {
            const key = newID('unsure');
            await without(net, 'org2', () => rejects(put(ours, 'strict', key, 'unsure', 'Org1MSP'),
                { type: 'EndorseError', code: 'ABORTED', message: /Failed disseminating 1 out of 1 private dissemination plans/ }));
            await eventually(async () => {
                await put(ours, 'strict', key, 'sure', 'Org1MSP');
                return true;
            });
        },
    }, {
        name: 'a value that is purged while a peer is away never comes to it',
        misuse: true,
        run: async (net) => {
            const key = newID('purged');
            await without(net, 'org2', async () => {
                await put(ours, 'shared', key, 'gone before you came', 'Org1MSP');
                await ours.submit('PurgePrivate', { arguments: ['shared', key], endorsingOrganizations: ['Org1MSP'] });
            });
            const height = await net.height('org1');
            await eventually(async () => await net.height('org2') >= height);
            assert.equal(await get(theirs, 'shared', key), '');
        },
    }],
};
