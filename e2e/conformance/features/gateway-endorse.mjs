import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let basic;
const ask = (net, signed, more = {}) => wire.unary(net.stub('gateway', 'org1'), 'endorse', wire.make(wire.gateway.EndorseRequest, { channelId: net.channel, proposedTransaction: signed, ...more }));

export default {
    area: 'Gateway',
    title: 'Gateway: endorse',
    about: '`gateway.Gateway/Endorse`: a transaction that is ready to be signed',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        basic = net.contract('org1', 'basic');
    },
    cases: [
        {
            name: 'the result is there before anything is ordered',
            run: async (net) => {
                const before = await net.height('org1');
                const transaction = await basic.newProposal('PutThenGet', { arguments: [newID(), 'v'] }).endorse();
                assert.equal(text(transaction.getResult()), '');
                assert.match(transaction.getTransactionId(), /^[0-9a-f]{64}$/);
                assert.equal(await net.height('org1'), before);
            },
        },
        {
            name: 'the prepared transaction is unsigned, and has the proposal’s header',
            run: async (net) => {
                const { signed, header, txId } = await wire.propose({ identity: net.user('org1'), channel: net.channel, contract: 'basic', args: ['Put', newID(), 'v'] });
                const prepared = (await ask(net, signed, { transactionId: txId })).getPreparedTransaction();
                assert.equal(prepared.getSignature_asU8().length, 0);
                const payload = wire.common.Payload.deserializeBinary(prepared.getPayload_asU8());
                assert.deepEqual(wire.bytes(payload.getHeader()), wire.bytes(header));
            },
        },
        {
            name: 'the endorser’s signature covers the answer and the endorser',
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                const endorsement = responses[0].getEndorsement();
                const { X509Certificate, verify } = await import('node:crypto');
                const endorser = wire.msp.SerializedIdentity.deserializeBinary(endorsement.getEndorser_asU8());
                assert.equal(endorser.getMspid(), 'Org1MSP');
                const key = new X509Certificate(Buffer.from(endorser.getIdBytes_asU8())).publicKey;
                const signed = Buffer.concat([responses[0].getPayload_asU8(), endorsement.getEndorser_asU8()]);
                assert.ok(verify('sha256', signed, key, endorsement.getSignature_asU8()));
                // Its payload names the proposal by hash.
                const hash = wire.peer.ProposalResponsePayload.deserializeBinary(responses[0].getPayload_asU8()).getProposalHash_asU8();
                const header = proposed.header;
                const visible = wire.make(wire.peer.ChaincodeProposalPayload, { input: proposed.payload.getInput_asU8() });
                assert.deepEqual(Buffer.from(hash), wire.sha256(header.getChannelHeader_asU8(), header.getSignatureHeader_asU8(), wire.bytes(visible)));
            },
        },
        {
            name: 'what the contract throws is ABORTED, with the peer’s detail',
            misuse: true,
            run: async (net) => {
                const error = await rejects(basic.newProposal('Fail', { arguments: ['out of stock'] }).endorse(), {
                    type: 'EndorseError', code: 'ABORTED', message: /failed to endorse transaction, see attached details for more info/,
                });
                assert.deepEqual(error.details, [{ mspId: 'Org1MSP', address: net.member('org1').address, message: 'chaincode response 500, out of stock' }]);
                assert.match(error.transactionId, /^[0-9a-f]{64}$/);
            },
        },
        {
            name: 'a contract and a channel that are not there',
            misuse: true,
            run: async (net) => {
                await rejects(net.contract('org1', 'nowhere').newProposal('Put').endorse(), { type: 'EndorseError', code: 'FAILED_PRECONDITION', message: /nowhere/ });
                await rejects(net.contract('org1', 'basic', { channel: 'elsewhere' }).newProposal('Put').endorse(), { type: 'EndorseError', message: /elsewhere/ });
            },
        },
        {
            name: 'a request without a signed proposal, or with nonsense for one',
            misuse: true,
            run: async (net) => {
                await rejects(ask(net, undefined), { code: 'INVALID_ARGUMENT', message: /the proposed transaction must contain a signed proposal/ });
                await rejects(ask(net, wire.make(wire.peer.SignedProposal, { proposalBytes: Buffer.from('nonsense') })), { code: 'INVALID_ARGUMENT' });
            },
        },
        {
            name: 'a proposal that names no contract',
            misuse: true,
            run: async (net) => {
                const { signed } = await wire.propose({ identity: net.user('org1'), channel: net.channel, contract: '', args: ['Put'] });
                await rejects(ask(net, signed), { code: 'INVALID_ARGUMENT' });
            },
        },
        {
            name: 'a transaction id that is not made of nonce and creator',
            misuse: true,
            run: async (net) => {
                const { signed } = await wire.propose({ identity: net.user('org1'), channel: net.channel, contract: 'basic', args: ['Put', newID(), 'v'], txId: 'ab'.repeat(32) });
                await rejects(ask(net, signed), { code: 'ABORTED' });
            },
        },
        {
            name: 'a proposal whose transaction is on the ledger already',
            misuse: true,
            run: async () => {
                const proposal = basic.newProposal('Put', { arguments: [newID(), 'v'] });
                await (await (await proposal.endorse()).submit()).getStatus();
                await rejects(proposal.endorse(), { type: 'EndorseError', code: 'ABORTED', message: /duplicate transaction found/ });
            },
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) {
                    await rejects(net.contract('org1', 'basic', { identity }).newProposal('Put', { arguments: [newID(), 'v'] }).endorse(), { type: 'EndorseError', code: 'ABORTED' });
                }
            },
        },
        {
            name: 'a signature that is missing or another’s',
            misuse: true,
            run: async (net) => {
                for (const sign of [async () => Buffer.alloc(0), net.user('org2').sign, async () => Buffer.from('no signature')]) {
                    const { signed } = await wire.propose({ identity: net.user('org1'), channel: net.channel, contract: 'basic', args: ['Put', newID(), 'v'], sign });
                    await rejects(ask(net, signed), { code: 'ABORTED' });
                }
            },
        },
        {
            name: 'a contract that takes longer than the caller waits',
            misuse: true,
            run: async (net) => {
                const error = await rejects(net.contract('org1', 'basic', { seconds: 0.3 }).newProposal('Sleep', { arguments: ['2000'] }).endorse(), { type: 'EndorseError' });
                assert.ok([1, 4].includes(error.code), error.message); // CANCELLED or DEADLINE_EXCEEDED: whoever notices first
            },
        },
    ],
};
