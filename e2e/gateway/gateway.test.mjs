// The stock @hyperledger/fabric-gateway against a Hansa network: transactions and events.

import assert from 'node:assert/strict';
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import test from 'node:test';
import { checkpointers, connect, StatusCode } from '@hyperledger/fabric-gateway';
import { eventually, gateway, grpcClient, identity, newID, next, setup, signer, text } from './setup.mjs';

const org1 = gateway('org1');
const org2 = gateway('org2');
const network = org1.getNetwork(setup.channel);
const asset = network.getContract('asset');

function create(id, contract = asset) {
    return contract.submitTransaction('CreateAsset', id, 'red', '5', 'Tom', '100');
}

test('evaluate and submit', async () => {
    const id = newID();
    assert.equal(JSON.parse(text(await create(id))).Owner, 'Tom');
    assert.equal(JSON.parse(text(await asset.evaluateTransaction('ReadAsset', id))).Color, 'red');
    assert.equal(text(await asset.submitTransaction('TransferAsset', id, 'Max')), 'Tom');
    // The other member's peer commits the same blocks, in its own time.
    const theirs = org2.getNetwork(setup.channel).getContract('asset');
    await eventually(async () => text(await theirs.evaluateTransaction('AssetExists', id)) === 'true');
    // What is evaluated is not recorded.
    const other = newID();
    await asset.evaluateTransaction('CreateAsset', other, 'red', '5', 'Tom', '100');
    assert.equal(text(await asset.evaluateTransaction('AssetExists', other)), 'false');
});

test('submitAsync tells the result before the commit, getStatus the block', async () => {
    const id = newID();
    const commit = await asset.submitAsync('CreateAsset', { arguments: [id, 'blue', '1', 'Ann', '7'] });
    assert.equal(JSON.parse(text(commit.getResult())).Color, 'blue');
    const status = await commit.getStatus();
    assert.equal(status.successful, true);
    assert.equal(status.code, StatusCode.VALID);
    assert.equal(status.transactionId, commit.getTransactionId());
    assert.ok(status.blockNumber > 0n);
});

test('arguments are bytes: empty, binary and long ones', async () => {
    const id = newID();
    const color = 'ä\u0000€' + 'x'.repeat(200_000);
    await asset.submitTransaction('CreateAsset', id, color, '1', '', '1');
    const stored = JSON.parse(text(await asset.evaluateTransaction('ReadAsset', id)));
    assert.equal(stored.Color, color);
    assert.equal(stored.Owner, '');
});

test('transient data reaches the contract and its collection, and not the ledger', async () => {
    const id = newID();
    const secret = `secret-${id}`;
    const commit = await asset.submitAsync('PutDetails', { arguments: [id], transientData: { details: secret } });
    const { code, blockNumber } = await commit.getStatus();
    assert.equal(code, StatusCode.VALID);
    for (const member of [org1, org2]) {
        const contract = member.getNetwork(setup.channel).getContract('asset');
        await eventually(async () => text(await contract.evaluateTransaction('ReadDetails', id)) === secret);
    }
    const hash = crypto.createHash('sha256').update(secret).digest('hex');
    assert.equal(text(await asset.evaluateTransaction('DetailsHash', id)), hash);

    const blocks = await network.getBlockEvents({ startBlock: blockNumber });
    const block = Buffer.from((await next(blocks[Symbol.asyncIterator]())).serializeBinary());
    blocks.close();
    assert.ok(block.includes(Buffer.from(hash, 'hex')));
    assert.ok(!block.includes(secret));

    const full = await network.getBlockAndPrivateDataEvents({ startBlock: blockNumber });
    const withPrivate = await next(full[Symbol.asyncIterator]());
    full.close();
    assert.equal(withPrivate.getBlock().getHeader().getNumber(), Number(blockNumber));
    assert.ok(Buffer.from(withPrivate.getPrivateDataMapMap().get(0).serializeBinary()).includes(secret));

    const missing = asset.submit('PutDetails', { arguments: [newID()] });
    await assert.rejects(missing, (err) => err.details.some(({ message }) => message.includes('the transient map has no "details"')));
});

test('explicit endorsing organizations', async () => {
    const both = network.getContract('both');
    const id = newID();
    const endorsers = (transaction) => ['Org1MSP', 'Org2MSP'].filter((msp) => text(transaction.getBytes()).includes(`${msp}\x12`));
    const arguments_ = [id, 'red', '5', 'Tom', '100'];
    const byPolicy = await both.newProposal('CreateAsset', { arguments: arguments_ }).endorse();
    assert.deepEqual(endorsers(byPolicy), ['Org1MSP', 'Org2MSP']);
    const status = await (await byPolicy.submit()).getStatus();
    assert.equal(status.code, StatusCode.VALID);

    // One endorsement where two are wanted is ordered, and found invalid.
    const tooFew = await both.newProposal('CreateAsset', { arguments: [newID(), ...arguments_.slice(1)], endorsingOrganizations: ['Org1MSP'] }).endorse();
    const refused = await (await tooFew.submit()).getStatus();
    assert.equal(refused.code, StatusCode.ENDORSEMENT_POLICY_FAILURE);
    assert.equal(refused.successful, false);

    // Evaluated by the other member's peer, through our own member's.
    assert.equal(text(await asset.evaluate('Whoami', { endorsingOrganizations: ['Org2MSP'] })), 'Org1MSP');
});

test('offline signing of every step', async () => {
    const { user } = setup.members.org1;
    const sign = signer(user);
    const offline = connect({ client: grpcClient('org1'), identity: identity(user) });
    const contract = offline.getNetwork(setup.channel).getContract('asset');
    const id = newID();

    const unsigned = contract.newProposal('CreateAsset', { arguments: [id, 'red', '5', 'Tom', '100'] });
    const proposal = offline.newSignedProposal(unsigned.getBytes(), await sign(unsigned.getDigest()));
    const unsignedTransaction = await proposal.endorse();
    const transaction = offline.newSignedTransaction(unsignedTransaction.getBytes(), await sign(unsignedTransaction.getDigest()));
    const unsignedCommit = await transaction.submit();
    const commit = offline.newSignedCommit(unsignedCommit.getBytes(), await sign(unsignedCommit.getDigest()));
    const status = await commit.getStatus();
    assert.equal(status.code, StatusCode.VALID);

    const unsignedQuery = contract.newProposal('ReadAsset', { arguments: [id] });
    const query = offline.newSignedProposal(unsignedQuery.getBytes(), await sign(unsignedQuery.getDigest()));
    assert.equal(JSON.parse(text(await query.evaluate())).ID, id);

    const unsignedEvents = offline.getNetwork(setup.channel).newChaincodeEventsRequest('asset', { startBlock: status.blockNumber });
    const events = await offline.newSignedChaincodeEventsRequest(unsignedEvents.getBytes(), await sign(unsignedEvents.getDigest())).getEvents();
    assert.equal(text((await next(events[Symbol.asyncIterator]())).payload), id);
    events.close();

    const unsignedBlocks = offline.getNetwork(setup.channel).newBlockEventsRequest({ startBlock: 0n });
    const blocks = await offline.newSignedBlockEventsRequest(unsignedBlocks.getBytes(), await sign(unsignedBlocks.getDigest())).getEvents();
    assert.equal((await next(blocks[Symbol.asyncIterator]())).getHeader().getNumber(), 0);
    blocks.close();
    offline.close();
});

test('chaincode events: live, replayed, and on from a checkpoint', async () => {
    const live = await network.getChaincodeEvents('asset');
    const iterator = live[Symbol.asyncIterator]();
    const ids = [newID(), newID(), newID()];
    const seen = [];
    for (const id of ids) {
        await create(id);
        const event = await next(iterator);
        assert.equal(event.eventName, 'AssetCreated');
        assert.equal(event.chaincodeName, 'asset');
        assert.equal(text(event.payload), id);
        seen.push(event);
    }
    live.close();

    const replay = await network.getChaincodeEvents('asset', { startBlock: seen[0].blockNumber });
    const again = replay[Symbol.asyncIterator]();
    for (const event of seen) {
        assert.deepEqual(await next(again), event);
    }
    replay.close();

    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'checkpoint-'));
    try {
        const checkpointer = await checkpointers.file(path.join(folder, 'checkpoint.json'));
        const first = await network.getChaincodeEvents('asset', { startBlock: seen[0].blockNumber, checkpoint: checkpointer });
        const event = await next(first[Symbol.asyncIterator]());
        await checkpointer.checkpointChaincodeEvent(event);
        first.close();
        const restored = await checkpointers.file(path.join(folder, 'checkpoint.json'));
        const rest = await network.getChaincodeEvents('asset', { startBlock: 0n, checkpoint: restored });
        assert.deepEqual(await next(rest[Symbol.asyncIterator]()), seen[1]);
        rest.close();
    } finally {
        fs.rmSync(folder, { recursive: true });
    }
});

test('invalid transactions and other contracts raise no events', async () => {
    const events = await network.getChaincodeEvents('asset');
    await network.getContract('both').submitTransaction('CreateAsset', newID(), 'red', '5', 'Tom', '100');
    const id = newID();
    const race = await Promise.all([1, 2].map(() => asset.newProposal('CreateAsset', { arguments: [id, 'red', '5', 'Tom', '100'] }).endorse()));
    const codes = [];
    for (const transaction of race) {
        codes.push((await (await transaction.submit()).getStatus()).code);
    }
    assert.deepEqual(codes, [StatusCode.VALID, StatusCode.MVCC_READ_CONFLICT]);
    const last = newID();
    await create(last);
    const iterator = events[Symbol.asyncIterator]();
    assert.equal(text((await next(iterator)).payload), id);
    assert.equal(text((await next(iterator)).payload), last);
    events.close();
});

test('block events and filtered ones', async () => {
    const commit = await asset.submitAsync('CreateAsset', { arguments: [newID(), 'red', '5', 'Tom', '100'] });
    const { blockNumber, transactionId } = await commit.getStatus();

    const blocks = await network.getBlockEvents({ startBlock: blockNumber });
    const block = await next(blocks[Symbol.asyncIterator]());
    assert.equal(block.getHeader().getNumber(), Number(blockNumber));
    assert.ok(Buffer.from(block.getData().getDataList()[0]).includes(transactionId));
    blocks.close();

    const filtered = await network.getFilteredBlockEvents({ startBlock: blockNumber });
    const lean = await next(filtered[Symbol.asyncIterator]());
    assert.equal(lean.getNumber(), Number(blockNumber));
    const [transaction] = lean.getFilteredTransactionsList();
    assert.equal(transaction.getTxid(), transactionId);
    const [action] = transaction.getTransactionActions().getChaincodeActionsList();
    assert.equal(action.getChaincodeEvent().getEventName(), 'AssetCreated');
    assert.equal(text(action.getChaincodeEvent().getPayload()), '', 'filtered events carry no payload');
    filtered.close();

    const live = await network.getBlockEvents();
    const iterator = live[Symbol.asyncIterator]();
    const pending = next(iterator);
    await create(newID());
    assert.ok((await pending).getHeader().getNumber() > Number(blockNumber));
    live.close();
});

test('many at once', async () => {
    const ids = Array.from({ length: 100 }, newID);
    await Promise.all(ids.map((id) => create(id)));
    const all = JSON.parse(text(await asset.evaluateTransaction('GetAllAssets'))).map(({ ID }) => ID);
    assert.deepEqual(ids.filter((id) => !all.includes(id)), []);
});
