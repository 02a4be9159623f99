// DeliverWithPrivateData: blocks with the private data that the reader's organization may have.

import assert from 'node:assert/strict';
import { eventually, newID, next, text } from '../lib/expect.mjs';
import { reads, records } from '../lib/records.mjs';
import { fetch } from '../lib/tools.mjs';
import { ledger } from '../lib/wire.mjs';

const kind = 'deliverWithPrivateData';

// written has a private value committed and gives it with its block's number.
async function written(net, collection, { member = 'org1', endorsers = [] } = {}) {
    const contract = await records(net, member);
    const [key, value] = [newID('news'), newID('to-be-delivered')];
    const commit = await contract.submitAsync('PutPrivate', {
        arguments: [collection, key], transientData: { value }, ...(endorsers.length ? { endorsingOrganizations: endorsers } : {}),
    });
    const { successful, blockNumber } = await commit.getStatus();
    assert.ok(successful);
    return { contract, key, value, number: Number(blockNumber), txId: commit.getTransactionId() };
}

// privateOf is the text of all private data of a delivered block.
function privateOf(block) {
    const map = block.getPrivateDataMapMap();
    return [...map.keys()].map((tx) => text(map.get(tx).serializeBinary())).join('\n');
}

const one = async (net, member, number, options = {}) => {
    const { blocks, status } = await fetch(net, member, { kind, start: number, ...options });
    assert.equal(status, 'SUCCESS');
    assert.equal(blocks.length, 1);
    assert.equal(blocks[0].getBlock().getHeader().getNumber(), number);
    return blocks[0];
};

export default {
    area: 'Services',
    title: 'Blocks with private data',
    about: 'DeliverWithPrivateData: what members and others are given, ranges, and refusals',
    setup: (net) => records(net),
    cases: [{
        name: 'a member of the collection is given the value with its block, by the stock gateway client',
        run: async (net) => {
            const { value, number } = await written(net, 'shared');
            const network = net.gateway('org1').getNetwork(net.channel);
            const events = await network.getBlockAndPrivateDataEvents({ startBlock: BigInt(number) });
            try {
                const block = await next(events[Symbol.asyncIterator]());
                assert.equal(block.getBlock().getHeader().getNumber(), number);
                assert.ok(privateOf(block).includes(value));
            } finally {
                events.close();
            }
        },
    }, {
        name: 'the value stands under its transaction, contract and collection',
        run: async (net) => {
            const { value, key, number } = await written(net, 'shared');
            const map = (await one(net, 'org1', number)).getPrivateDataMapMap();
            assert.deepEqual([...map.keys()].map(Number), [0]);
            const [namespace] = map.get(0).getNsPvtRwsetList();
            assert.equal(namespace.getNamespace(), 'records');
            const [collection] = namespace.getCollectionPvtRwsetList();
            assert.equal(collection.getCollectionName(), 'shared');
            const [write] = ledger.rwset.kvrwset.KVRWSet.deserializeBinary(collection.getRwset_asU8()).getWritesList();
            assert.deepEqual([write.getKey(), text(write.getValue_asU8())], [key, value]);
        },
    }, {
        name: 'another member of the collection is given it by its own peer',
        run: async (net) => {
            const { key, value, number } = await written(net, 'shared');
            await reads(await records(net, 'org2'), 'shared', key, value);
            assert.ok(privateOf(await one(net, 'org2', number)).includes(value));
        },
    }, {
        name: 'a range of blocks, those without private data among them',
        run: async (net) => {
            const first = await written(net, 'shared');
            await first.contract.submitTransaction('Put', newID(), 'public');
            const last = await written(net, 'shared');
            const { blocks, status } = await fetch(net, 'org1', { kind, start: first.number, stop: last.number });
            assert.equal(status, 'SUCCESS');
            assert.equal(blocks.length, last.number - first.number + 1);
            assert.ok(privateOf(blocks[0]).includes(first.value));
            assert.equal(privateOf(blocks[1]), '');
            assert.ok(privateOf(blocks.at(-1)).includes(last.value));
        },
    }, {
        name: 'a value that was purged is left out of its block',
        run: async (net) => {
            const { contract, key, value, number } = await written(net, 'shared');
            await contract.submitTransaction('PurgePrivate', 'shared', key);
            await eventually(async () => !privateOf(await one(net, 'org1', number)).includes(value));
        },
    }, {
        name: 'who is not restricted by memberOnlyRead is given what the peer holds, of an implicit collection too',
        run: async (net) => {
            const { key, value, number } = await written(net, '_implicit_org_Org2MSP', { member: 'org2' });
            assert.ok(privateOf(await one(net, 'org2', number)).includes(value));
            await eventually(async () => text(await (await records(net, 'org1')).evaluateTransaction('PrivateHash', '_implicit_org_Org2MSP', key)) !== '');
            // As with Fabric it depends on the peer that is asked, as it does when a contract reads.
            assert.equal(privateOf(await one(net, 'org1', number)), '');
            assert.ok(privateOf(await one(net, 'org2', number, { identity: net.user('org1') })).includes(value));
            const shared = await written(net, 'shared', { endorsers: ['Org1MSP'] });
            assert.ok(privateOf(await one(net, 'org1', shared.number, { identity: net.user('org3') })).includes(shared.value));
        },
    }, {
        name: 'memberOnlyRead: an outsider is given the block without the value, at a member\'s peer too',
        misuse: true,
        run: async (net) => {
            const { number, value } = await written(net, 'guarded');
            assert.ok(privateOf(await one(net, 'org1', number)).includes(value));
            assert.equal(privateOf(await one(net, 'org1', number, { identity: net.user('org3') })), '');
            await eventually(async () => await net.height('org3') > number);
            assert.equal(privateOf(await one(net, 'org3', number)), '');
        },
    }, {
        name: 'a reader whom nobody knows',
        misuse: true,
        run: async (net) => {
            await records(net);
            for (const identity of Object.values(net.refused)) {
                const { blocks, status } = await fetch(net, 'org1', { kind, start: 0, identity });
                assert.equal(blocks.length, 0);
                assert.equal(status, 'FORBIDDEN');
            }
        },
    }, {
        name: 'another one\'s signature',
        misuse: true,
        run: async (net) => {
            const { status } = await fetch(net, 'org1', { kind, start: 0, sign: net.user('org2').sign });
            assert.equal(status, 'FORBIDDEN');
        },
    }, {
        name: 'a channel that is not there',
        misuse: true,
        run: async (net) => {
            const { status } = await fetch(net, 'org1', { kind, start: 0, channel: 'elsewhere' });
            assert.equal(status, 'NOT_FOUND');
        },
    }, {
        name: 'a range that ends before it starts, and a question without a start',
        misuse: true,
        run: async (net) => {
            assert.equal((await fetch(net, 'org1', { kind, start: 2, stop: 1 })).status, 'BAD_REQUEST');
            assert.equal((await fetch(net, 'org1', { kind, start: undefined, stop: 1 })).status, 'BAD_REQUEST');
        },
    }, {
        name: 'a block that is not there yet, when the reader will not wait',
        misuse: true,
        run: async (net) => {
            assert.equal((await fetch(net, 'org1', { kind, start: 1_000_000, failIfNotReady: true })).status, 'NOT_FOUND');
        },
    }],
};
