// `peer channel` join, list, getinfo and fetch, and what qscc and cscc tell, by their wire form.

import assert from 'node:assert/strict';
import { eventually, newID, refused, rejects, succeeded } from '../lib/expect.mjs';
import { records } from '../lib/records.mjs';
import { fetch, invoke, query, sameBytes } from '../lib/tools.mjs';
import { common, peer, sha256 } from '../lib/wire.mjs';

const qscc = (net, member, method, ...args) => net.process(member, { contract: 'qscc', args: [method, ...args] });
const cscc = (net, member, method, ...args) => net.process(member, { contract: 'cscc', args: [method, ...args], channel: '', type: common.HeaderType.CONFIG });
const asAdmin = (net, member, method, ...args) => net.process(member, { contract: 'cscc', args: [method, ...args], channel: '', type: common.HeaderType.CONFIG, user: 'Admin' });

const infoOf = async (net, member, channel = net.channel) => common.BlockchainInfo.deserializeBinary(
    await query(net, member, { contract: 'qscc', args: ['GetChainInfo', channel], channel: '' }));
const blockOf = (response) => common.Block.deserializeBinary(succeeded(response));

// written commits a transaction and gives its id and its block's number.
async function written(net) {
    const commit = await (await records(net)).submitAsync('Put', { arguments: [newID(), 'x'] });
    const { blockNumber } = await commit.getStatus();
    return { txId: commit.getTransactionId(), number: Number(blockNumber) };
}

// der is the length-prefixed form of a header's parts, over which its hash goes.
function headerHash(header) {
    const length = (n) => (n < 128 ? [n] : [0x81, n]);
    const octets = (b) => [0x04, ...length(b.length), ...b];
    let number = [...Buffer.from(BigInt(header.getNumber()).toString(16).replace(/^(.(..)*)$/, '0$1'), 'hex')];
    if (number[0] & 0x80) number = [0, ...number];
    const body = [0x02, number.length, ...number, ...octets(header.getPreviousHash_asU8()), ...octets(header.getDataHash_asU8())];
    return sha256(Buffer.from([0x30, ...length(body.length), ...body]));
}

export default {
    area: 'Tools',
    title: '`peer channel`',
    about: 'join, list, getinfo, fetch oldest, newest, config and N, from peers and orderers; qscc and cscc',
    setup: (net) => records(net),
    cases: [{
        name: 'getinfo: height and hashes are those of the newest block',
        run: async (net) => {
            await written(net);
            await eventually(async () => {
                const info = await infoOf(net, 'org1');
                const newest = blockOf(await qscc(net, 'org1', 'GetBlockByNumber', net.channel, String(info.getHeight() - 1)));
                sameBytes(info.getCurrentblockhash_asU8(), headerHash(newest.getHeader()));
                sameBytes(info.getPreviousblockhash_asU8(), newest.getHeader().getPreviousHash_asU8());
                return true;
            });
        },
    }, {
        name: 'list: the channels that a peer has joined; a member may ask',
        run: async (net) => {
            const answer = peer.ChannelQueryResponse.deserializeBinary(succeeded(await cscc(net, 'org1', 'GetChannels')));
            assert.ok(answer.getChannelsList().some((c) => c.getChannelId() === net.channel));
        },
    }, {
        name: 'join: a peer follows a new channel from its first block on',
        run: async (net) => {
            const name = newID('joined');
            const block = await net.genesis(name, { members: ['org1', 'org2'] });
            assert.equal((await net.participation('POST', '', block)).status, 201);
            succeeded(await asAdmin(net, 'org1', 'JoinChain', block));
            assert.equal((await infoOf(net, 'org1', name)).getHeight(), 1);
            const { blocks } = await fetch(net, 'org1', { channel: name, start: 0 });
            sameBytes(blocks[0].getHeader().serializeBinary(), common.Block.deserializeBinary(block).getHeader().serializeBinary());
            const answer = peer.ChannelQueryResponse.deserializeBinary(succeeded(await cscc(net, 'org1', 'GetChannels')));
            assert.ok(answer.getChannelsList().some((c) => c.getChannelId() === name));
        },
    }, {
        name: 'fetch oldest, newest and N give one block each, from the orderer and from a peer',
        run: async (net) => {
            const { number } = await written(net);
            for (const where of ['orderer', 'org1']) {
                for (const [start, want] of [['oldest', 0], [number, number], [1, 1]]) {
                    const { blocks, status } = await fetch(net, where, { start });
                    assert.equal(status, 'SUCCESS');
                    assert.deepEqual(blocks.map((b) => b.getHeader().getNumber()), [want]);
                }
                const { blocks, status } = await fetch(net, where, { start: 'newest' });
                assert.equal(status, 'SUCCESS');
                assert.ok(blocks.length === 1 && blocks[0].getHeader().getNumber() >= number);
            }
        },
    }, {
        name: 'fetch config: the newest block names the configuration\'s',
        run: async (net) => {
            const { blocks: [newest] } = await fetch(net, 'orderer', { start: 'newest' });
            const [signatures] = newest.getMetadata().getMetadataList_asU8();
            const metadata = common.OrdererBlockMetadata.deserializeBinary(common.Metadata.deserializeBinary(signatures).getValue_asU8());
            const { blocks: [config] } = await fetch(net, 'orderer', { start: metadata.getLastConfig().getIndex() });
            const payload = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(config.getData().getDataList_asU8()[0]).getPayload_asU8());
            assert.equal(common.ChannelHeader.deserializeBinary(payload.getHeader().getChannelHeader_asU8()).getType(), common.HeaderType.CONFIG);
            const block = blockOf(await cscc(net, 'org1', 'GetConfigBlock', net.channel));
            assert.equal(block.getHeader().getNumber(), config.getHeader().getNumber());
        },
    }, {
        name: 'GetChannelConfig tells the configuration, with the orderers\' addresses',
        run: async (net) => {
            const config = common.Config.deserializeBinary(succeeded(await cscc(net, 'org1', 'GetChannelConfig', net.channel)));
            const groups = config.getChannelGroup().getGroupsMap();
            const members = [...groups.get('Application').getGroupsMap().keys()];
            assert.deepEqual(members.sort(), ['org1', 'org2', 'org3']);
            const endpoints = groups.get('Orderer').getGroupsMap().get('orderer').getValuesMap().get('Endpoints');
            assert.ok(Buffer.from(endpoints.getValue_asU8()).includes(net.orderers[0].address));
        },
    }, {
        name: 'qscc: a block by number, by hash and by a transaction in it is the same',
        run: async (net) => {
            const { txId, number } = await written(net);
            const byNumber = succeeded(await qscc(net, 'org1', 'GetBlockByNumber', net.channel, String(number)));
            const hash = headerHash(common.Block.deserializeBinary(byNumber).getHeader());
            sameBytes(succeeded(await qscc(net, 'org1', 'GetBlockByHash', net.channel, hash)), byNumber);
            sameBytes(succeeded(await qscc(net, 'org1', 'GetBlockByTxID', net.channel, txId)), byNumber);
        },
    }, {
        name: 'qscc: a transaction with its validation code, an invalid one too',
        run: async (net) => {
            const { txId } = await written(net);
            const good = peer.ProcessedTransaction.deserializeBinary(succeeded(await qscc(net, 'org1', 'GetTransactionByID', net.channel, txId)));
            assert.equal(good.getValidationcode(), peer.TxValidationCode.VALID);
            assert.ok(Buffer.from(good.getTransactionenvelope().getPayload_asU8()).includes(txId));
            const bad = await invoke(net, ['org1'], { contract: 'records', args: ['PutPrivate', 'agreed', newID()], transient: { value: 'x' } });
            const found = peer.ProcessedTransaction.deserializeBinary(succeeded(await qscc(net, 'org1', 'GetTransactionByID', net.channel, bad.txId)));
            assert.equal(found.getValidationcode(), peer.TxValidationCode.ENDORSEMENT_POLICY_FAILURE);
        },
    }, {
        name: 'joining twice',
        misuse: true,
        run: async (net) => {
            const { blocks: [genesis] } = await fetch(net, 'org1', { start: 0 });
            refused(await asAdmin(net, 'org1', 'JoinChain', genesis.serializeBinary()), 500,
                /cannot create ledger from genesis block: ledger \[business\] already exists with state \[ACTIVE\]/);
        },
    }, {
        name: 'joining as somebody who is not the peer\'s administrator',
        misuse: true,
        run: async (net) => {
            const block = await net.genesis(newID('denied'), { members: ['org1'] });
            refused(await cscc(net, 'org1', 'JoinChain', block), 500,
                /access denied for \[JoinChain\]\[denied-.*\]: \[Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with policy \[Admins\]/);
        },
    }, {
        name: 'joining with what is no genesis block',
        misuse: true,
        run: async (net) => {
            refused(await asAdmin(net, 'org1', 'JoinChain', Buffer.from('garbage')), 500, /Failed to reconstruct the genesis block/);
            const { number } = await written(net);
            const { blocks: [other] } = await fetch(net, 'org1', { start: number });
            refused(await asAdmin(net, 'org1', 'JoinChain', other.serializeBinary()), 500, /"JoinChain" for channelID = business failed because of validation of configuration block/);
            refused(await asAdmin(net, 'org1', 'JoinChain'), 500, /Incorrect number of arguments, 1/);
        },
    }, {
        name: 'questions for blocks and transactions that are not there',
        misuse: true,
        run: async (net) => {
            refused(await qscc(net, 'org1', 'GetBlockByNumber', net.channel, '1000000'), 500, /Failed to get block number 1000000, error no such block number \[1000000\] in index/);
            refused(await qscc(net, 'org1', 'GetBlockByNumber', net.channel, 'ten'), 500, /Failed to parse block number with error strconv.ParseUint: parsing "ten": invalid syntax/);
            refused(await qscc(net, 'org1', 'GetBlockByTxID', net.channel, 'none'), 500, /Failed to get block for txID none, error no such transaction ID \[none\] in index/);
            refused(await qscc(net, 'org1', 'GetTransactionByID', net.channel, 'none'), 500, /Failed to get transaction with id none, error no such transaction ID \[none\] in index/);
            refused(await qscc(net, 'org1', 'GetBlockByHash', net.channel, Buffer.alloc(32)), 500, /Failed to get block hash/);
        },
    }, {
        name: 'questions for channels and functions that are not there, and too few arguments',
        misuse: true,
        run: async (net) => {
            refused(await qscc(net, 'org1', 'GetChainInfo', 'elsewhere'), 500, /Invalid chain ID, elsewhere/);
            refused(await qscc(net, 'org1', 'NoSuchFunction', net.channel, 'x'), 500, /access denied for \[NoSuchFunction\]\[business\]: \[Unmapped policy for qscc\/NoSuchFunction\]/);
            refused(await qscc(net, 'org1', 'GetBlockByNumber', net.channel), 500, /missing 3rd argument for GetBlockByNumber/);
            refused(await qscc(net, 'org1', 'GetChainInfo'), 500, /Incorrect number of arguments, 1/);
            refused(await cscc(net, 'org1', 'NoSuchFunction', 'x'), 500, /Requested function NoSuchFunction not found./);
            refused(await cscc(net, 'org1', 'GetChannelConfig', 'elsewhere'), 500, /elsewhere/);
            refused(await cscc(net, 'org1', 'GetConfigBlock', ''), 500, /ChannelID|channel/i);
        },
    }, {
        name: 'fetching blocks that are not there, from a channel that is not there, or backwards',
        misuse: true,
        run: async (net) => {
            for (const where of ['orderer', 'org1']) {
                assert.equal((await fetch(net, where, { start: 1_000_000, failIfNotReady: true })).status, 'NOT_FOUND');
                assert.equal((await fetch(net, where, { start: 0, channel: 'elsewhere' })).status, 'NOT_FOUND');
                assert.equal((await fetch(net, where, { start: 1, stop: 0 })).status, 'BAD_REQUEST');
                assert.equal((await fetch(net, where, { start: 0, info: Buffer.from([0xff]) })).status, 'BAD_REQUEST');
            }
        },
    }, {
        name: 'fetching as somebody whom nobody knows, or with another one\'s signature',
        misuse: true,
        run: async (net) => {
            for (const where of ['orderer', 'org1']) {
                for (const identity of Object.values(net.refused)) {
                    assert.equal((await fetch(net, where, { start: 0, identity })).status, 'FORBIDDEN');
                }
                assert.equal((await fetch(net, where, { start: 0, sign: net.user('org2').sign })).status, 'FORBIDDEN');
            }
        },
    }, {
        name: 'asking a peer as somebody whom nobody knows',
        misuse: true,
        run: async (net) => {
            for (const identity of Object.values(net.refused)) {
                await rejects(net.process('org1', { contract: 'qscc', args: ['GetChainInfo', net.channel], channel: '', identity }), { message: /access denied|expired/ });
            }
        },
    }],
};
