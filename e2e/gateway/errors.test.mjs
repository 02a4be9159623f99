// The stock @hyperledger/fabric-gateway against a Hansa network: what goes wrong, and how a client learns of it.

import assert from 'node:assert/strict';
import test from 'node:test';
import { status as grpcStatus } from '@grpc/grpc-js';
import { gateway as gatewayproto, msp } from '@hyperledger/fabric-protos';
import { CommitError, CommitStatusError, EndorseError, GatewayError, StatusCode } from '@hyperledger/fabric-gateway';
import { deadline, gateway, grpcClient, identity, newID, setup, signer } from './setup.mjs';

const org1 = gateway('org1');
const network = org1.getNetwork(setup.channel);
const asset = network.getContract('asset');
// The package exports this class as a type only.
const SubmitError = { name: 'SubmitError' };
const anAsset = ['red', '5', 'Tom', '100'];

// rejects checks the error's exact class, its gRPC code and its text, with that of its details.
async function rejects(promise, Class, code, pattern) {
    let error;
    try {
        await promise;
    } catch (err) {
        error = err;
    }
    assert.ok(error, 'there was no error');
    assert.equal(error.constructor.name, Class.name, error.stack);
    assert.equal(grpcStatus[error.code], grpcStatus[code], error.message);
    assert.match([error.message, ...error.details.map(({ message }) => message)].join('\n'), pattern);
    return error;
}

// asRefused is the network as one of the identities that must not be let in sees it.
function asRefused(name) {
    const refused = setup.refused[name];
    return gateway('org1', { identity: identity(refused), signer: signer(refused) }).getNetwork(setup.channel);
}

test('EndorseError: the contract refuses', async () => {
    const error = await rejects(asset.submitTransaction('TransferAsset', newID(), 'Max'), EndorseError, grpcStatus.ABORTED, /does not exist/);
    assert.match(error.transactionId, /^[0-9a-f]{64}$/);
    assert.equal(error.details.length, 1);
    const [detail] = error.details;
    assert.equal(detail.mspId, 'Org1MSP');
    assert.equal(detail.address, setup.members.org1.address);
    assert.match(detail.message, /^chaincode response 500, the asset .* does not exist$/);
});

test('GatewayError: the contract refuses to evaluate', async () => {
    const error = await rejects(asset.evaluateTransaction('ReadAsset', newID()), GatewayError, grpcStatus.UNKNOWN, /does not exist/);
    assert.match(error.details[0].message, /^chaincode response 500, the asset .* does not exist$/);
});

test('CommitError: an MVCC conflict', async () => {
    const id = newID();
    await asset.submitTransaction('CreateAsset', id, ...anAsset);
    const late = await asset.newProposal('TransferAsset', { arguments: [id, 'Ann'] }).endorse();
    await asset.submitTransaction('TransferAsset', id, 'Max');
    const status = await (await late.submit()).getStatus();
    assert.equal(status.code, StatusCode.MVCC_READ_CONFLICT);
    assert.equal(status.successful, false);

    // submitTransaction itself throws: of simultaneous transfers one wins.
    const results = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => asset.submitTransaction('TransferAsset', id, `owner${i}`)));
    const failures = results.filter((r) => r.status === 'rejected').map((r) => r.reason);
    assert.ok(results.some((r) => r.status === 'fulfilled'));
    for (const failure of failures) {
        assert.equal(failure.constructor, CommitError, failure.stack);
        assert.equal(failure.code, StatusCode.MVCC_READ_CONFLICT);
        assert.match(failure.transactionId, /^[0-9a-f]{64}$/);
    }
});

test('a replayed transaction', async () => {
    const transaction = await asset.newProposal('CreateAsset', { arguments: [newID(), ...anAsset] }).endorse();
    assert.equal((await (await transaction.submit()).getStatus()).code, StatusCode.VALID);
    // What stands in the ledger stays as it is; the gateway tells the first verdict.
    const replayed = await transaction.submit();
    assert.equal((await replayed.getStatus()).code, StatusCode.VALID);
    // A replayed proposal is refused before it runs.
    const proposal = asset.newProposal('CreateAsset', { arguments: [newID(), ...anAsset] });
    const first = await proposal.endorse();
    await (await first.submit()).getStatus();
    await rejects(proposal.endorse(), EndorseError, grpcStatus.ABORTED, /duplicate transaction found/);
});

test('unknown contract, function, channel and member', async () => {
    const nowhere = network.getContract('nowhere');
    await rejects(nowhere.evaluateTransaction('ReadAsset', 'a'), GatewayError, grpcStatus.FAILED_PRECONDITION, /no peers available to evaluate chaincode nowhere in channel/);
    await rejects(nowhere.submitTransaction('CreateAsset', 'a'), EndorseError, grpcStatus.FAILED_PRECONDITION, /nowhere/);
    await rejects(asset.submitTransaction('NoSuchFunction'), EndorseError, grpcStatus.ABORTED, /NoSuchFunction/);
    const elsewhere = org1.getNetwork('elsewhere').getContract('asset');
    await rejects(elsewhere.evaluateTransaction('ReadAsset', 'a'), GatewayError, grpcStatus.UNAVAILABLE, /elsewhere/);
    await rejects(elsewhere.submitTransaction('ReadAsset', 'a'), EndorseError, grpcStatus.FAILED_PRECONDITION, /elsewhere/);
    await rejects(asset.submit('CreateAsset', { arguments: [newID(), ...anAsset], endorsingOrganizations: ['Org9MSP'] }),
        EndorseError, grpcStatus.UNAVAILABLE, /failed to find any endorsing peers for org\(s\): Org9MSP/);
    const events = org1.getNetwork('elsewhere').getChaincodeEvents('asset').then((stream) => stream[Symbol.asyncIterator]().next());
    await rejects(events, GatewayError, grpcStatus.PERMISSION_DENIED, /elsewhere/);
});

for (const [name, wrong] of [['expired', /expired/], ['stranger', /access denied|creator|identity/i], ['unknownMember', /Org9MSP|access denied|creator|identity/i]]) {
    test(`an identity that is refused: ${name}`, async () => {
        const refused = asRefused(name);
        const contract = refused.getContract('asset');
        await rejects(contract.submitTransaction('CreateAsset', newID(), ...anAsset), EndorseError, grpcStatus.ABORTED, wrong);
        await rejects(contract.evaluateTransaction('GetAllAssets'), GatewayError, grpcStatus.FAILED_PRECONDITION, wrong);
        const events = refused.getChaincodeEvents('asset').then((stream) => stream[Symbol.asyncIterator]().next());
        await rejects(events, GatewayError, grpcStatus.PERMISSION_DENIED, /policy/);
        const commit = await (await asset.newProposal('CreateAsset', { arguments: [newID(), ...anAsset] }).endorse()).submit();
        const theirs = gateway('org1', { identity: identity(setup.refused[name]), signer: signer(setup.refused[name]) }).newCommit(commit.getBytes());
        const status = await commit.getStatus();
        assert.equal(status.code, StatusCode.VALID);
        // The request names its identity, so another's signature does not fit.
        await rejects(theirs.getStatus(), CommitStatusError, grpcStatus.PERMISSION_DENIED, /policy/);
    });
}

test('a wrong signature at each step', async () => {
    const liar = gateway('org1', { signer: () => signer(setup.members.org2.user)(new Uint8Array(32)) });
    const theirs = liar.getNetwork(setup.channel).getContract('asset');
    await rejects(theirs.submitTransaction('CreateAsset', newID(), ...anAsset), EndorseError, grpcStatus.ABORTED, /signature|access denied/i);
    await rejects(theirs.evaluateTransaction('GetAllAssets'), GatewayError, grpcStatus.FAILED_PRECONDITION, /signature|access denied/i);

    const unsigned = asset.newProposal('CreateAsset', { arguments: [newID(), ...anAsset] });
    const transaction = await unsigned.endorse();
    const tampered = liar.newTransaction(transaction.getBytes());
    await rejects(tampered.submit(), SubmitError, grpcStatus.ABORTED, /FORBIDDEN|BAD_REQUEST/);
    const commit = await transaction.submit();
    await rejects(liar.newCommit(commit.getBytes()).getStatus(), CommitStatusError, grpcStatus.PERMISSION_DENIED, /policy/);
    assert.equal((await commit.getStatus()).code, StatusCode.VALID);
});

test('requests that are too large', async () => {
    // Above the channel's absolute limit of a transaction, which the orderer holds. By default the package takes answers of 4 MiB.
    const roomy = gateway('org1', { client: grpcClient('org1', { 'grpc.max_receive_message_length': -1 }) });
    const large = 'x'.repeat(4 * 1024 * 1024);
    await rejects(roomy.getNetwork(setup.channel).getContract('asset').submitTransaction('CreateAsset', newID(), large, '1', 'Tom', '1'),
        SubmitError, grpcStatus.ABORTED, /maximum allowed/);
    // Above what a peer takes in one message.
    const huge = 'x'.repeat(101 * 1024 * 1024);
    await rejects(asset.evaluateTransaction('ReadAsset', huge), GatewayError, grpcStatus.RESOURCE_EXHAUSTED, /larger than max/);
    // The connection goes on.
    await asset.submitTransaction('CreateAsset', newID(), ...anAsset);
});

test('deadlines', async () => {
    const impatient = gateway('org1', { endorseOptions: deadline(0.001), evaluateOptions: deadline(0.001) }).getNetwork(setup.channel).getContract('asset');
    await rejects(impatient.evaluateTransaction('GetAllAssets'), GatewayError, grpcStatus.DEADLINE_EXCEEDED, /deadline/i);
    await rejects(impatient.submitTransaction('CreateAsset', newID(), ...anAsset), EndorseError, grpcStatus.DEADLINE_EXCEEDED, /deadline/i);
    // The status of a transaction that never reaches the ledger is waited for until the deadline.
    const user = identity(setup.members.org1.user);
    const never = asset.newProposal('CreateAsset', { arguments: [newID(), ...anAsset] });
    const request = new gatewayproto.CommitStatusRequest();
    request.setChannelId(setup.channel);
    request.setTransactionId(never.getTransactionId());
    const creator = new msp.SerializedIdentity();
    creator.setMspid(user.mspId);
    creator.setIdBytes(user.credentials);
    request.setIdentity(creator.serializeBinary());
    const signed = new gatewayproto.SignedCommitStatusRequest();
    signed.setRequest(request.serializeBinary());
    const hopeful = gateway('org1', { commitStatusOptions: deadline(0.3) });
    await rejects(hopeful.newCommit(signed.serializeBinary()).getStatus(), CommitStatusError, grpcStatus.DEADLINE_EXCEEDED, /deadline/i);
});

test('a peer that cannot be reached', async () => {
    const nobody = gateway('org1', { client: grpcClient('org1', {}, '127.0.0.1:1') });
    await rejects(nobody.getNetwork(setup.channel).getContract('asset').evaluateTransaction('GetAllAssets'), GatewayError, grpcStatus.UNAVAILABLE, /ECONNREFUSED|connection/i);
});
