import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { checkpointers } from '@hyperledger/fabric-gateway';
import { anyOf } from '../lib/contracts.mjs';
import { newID, next, rejects, text } from '../lib/expect.mjs';

let network;
let contract;
const put = async () => (await contract.submitAsync('PutAndAnnounce', { arguments: [newID(), 'Put', 'payload'] })).getStatus();
const watch = async (kind, options, from = network) => {
    const stream = await from[kind](options);
    const iterator = stream[Symbol.asyncIterator]();
    return { next: () => next(iterator), close: () => stream.close() };
};

export default {
    area: 'Gateway',
    title: 'Block events of the Gateway client',
    about: '`getBlockEvents`, `getFilteredBlockEvents`, `getBlockAndPrivateDataEvents`',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        network = net.gateway('org1').getNetwork(net.channel);
        contract = network.getContract('basic');
    },
    cases: [
        {
            name: 'whole blocks from a number on, linked by their hashes',
            run: async () => {
                const blocks = await watch('getBlockEvents', { startBlock: 0n });
                let before;
                for (let i = 0; i < 5; i++) {
                    const block = await blocks.next();
                    assert.equal(block.getHeader().getNumber(), i);
                    if (before) assert.deepEqual(block.getHeader().getPreviousHash_asU8(), hashOf(before.getHeader()));
                    before = block;
                }
                blocks.close();
            },
        },
        {
            name: 'live blocks, with the transaction in them',
            run: async () => {
                const blocks = await watch('getBlockEvents');
                const { transactionId, blockNumber } = await put();
                for (;;) {
                    const block = await blocks.next();
                    if (block.getHeader().getNumber() < Number(blockNumber)) continue;
                    assert.ok(block.getData().getDataList_asU8().some((raw) => text(raw).includes(transactionId)));
                    break;
                }
                blocks.close();
            },
        },
        {
            name: 'filtered blocks: ids, codes and event names, no payloads',
            run: async (net) => {
                const { transactionId, blockNumber } = await put();
                const blocks = await watch('getFilteredBlockEvents', { startBlock: blockNumber });
                const block = await blocks.next();
                blocks.close();
                assert.deepEqual([block.getNumber(), block.getChannelId()], [Number(blockNumber), net.channel]);
                const transaction = block.getFilteredTransactionsList().find((t) => t.getTxid() === transactionId);
                assert.deepEqual([transaction.getType(), transaction.getTxValidationCode()], [3, 0]);
                const event = transaction.getTransactionActions().getChaincodeActionsList()[0].getChaincodeEvent();
                assert.deepEqual([event.getEventName(), event.getChaincodeId(), text(event.getPayload_asU8())], ['Put', 'basic', '']);
            },
        },
        {
            name: 'on from a checkpoint: after the block that was dealt with',
            run: async () => {
                const { blockNumber } = await put();
                await put();
                const checkpoint = checkpointers.inMemory();
                await checkpoint.checkpointBlock(blockNumber);
                const blocks = await watch('getBlockEvents', { startBlock: 0n, checkpoint });
                assert.equal((await blocks.next()).getHeader().getNumber(), Number(blockNumber) + 1);
                blocks.close();
            },
        },
        {
            name: 'blocks with private data are blocks, where there is none',
            run: async () => {
                const { blockNumber } = await put();
                const blocks = await watch('getBlockAndPrivateDataEvents', { startBlock: blockNumber });
                assert.equal((await blocks.next()).getBlock().getHeader().getNumber(), Number(blockNumber));
                blocks.close();
            },
        },
        {
            name: 'a channel that is not there',
            misuse: true,
            run: async (net) => {
                const blocks = await watch('getBlockEvents', { startBlock: 0n }, net.gateway('org1').getNetwork('elsewhere'));
                await rejects(blocks.next(), { message: /NOT_FOUND|404/ });
            },
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) {
                    for (const kind of ['getBlockEvents', 'getFilteredBlockEvents', 'getBlockAndPrivateDataEvents']) {
                        const blocks = await watch(kind, { startBlock: 0n }, net.gateway('org1', { identity }).getNetwork(net.channel));
                        await rejects(blocks.next(), { message: /FORBIDDEN|403|BAD_REQUEST|400/ });
                    }
                }
            },
        },
        {
            name: 'a signature that is another’s',
            misuse: true,
            run: async (net) => {
                const liar = net.gateway('org1', { signer: (digest) => net.user('org2').signDigest(digest) });
                await rejects((await watch('getBlockEvents', { startBlock: 0n }, liar.getNetwork(net.channel))).next(), { message: /FORBIDDEN|403/ });
            },
        },
        {
            name: 'the next block is waited for; one after it is not: NOT_FOUND',
            misuse: true,
            run: async (net) => {
                const height = await net.height('org1');
                const blocks = await watch('getBlockEvents', { startBlock: BigInt(height) });
                const tooFar = await watch('getBlockEvents', { startBlock: BigInt(height) + 1000n });
                await rejects(tooFar.next(), { message: /NOT_FOUND|404/ });
                await put();
                assert.equal((await blocks.next()).getHeader().getNumber(), height);
                blocks.close();
            },
        },
    ],
};

// hashOf is the hash of a block's header: SHA-256 of its number, previous hash and data hash in ASN.1.
function hashOf(header) {
    const octets = (raw) => Buffer.concat([Buffer.from([4, raw.length]), raw]);
    const number = Buffer.from([2, 1, header.getNumber()]);
    const body = Buffer.concat([number, octets(header.getPreviousHash_asU8()), octets(header.getDataHash_asU8())]);
    return new Uint8Array(createHash('sha256').update(Buffer.concat([Buffer.from([0x30, body.length]), body])).digest());
}
