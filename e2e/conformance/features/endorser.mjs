import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, refused, rejects, succeeded, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

const call = (net, options) => net.process('org1', { contract: 'basic', args: ['Length', 'four'], ...options });

export default {
    area: 'Services',
    title: 'Endorser of a peer',
    about: '`protos.Endorser/ProcessProposal`, as `peer chaincode query` and `invoke` call it',
    setup: (net) => net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) }),
    cases: [
        {
            name: 'an answer with payload, endorsement and the contract’s response',
            run: async (net) => {
                const answer = await call(net);
                assert.equal(text(succeeded(answer)), '4');
                assert.equal(answer.getVersion(), 1);
                assert.ok(answer.getEndorsement().getSignature_asU8().length > 0);
                const payload = wire.peer.ProposalResponsePayload.deserializeBinary(answer.getPayload_asU8());
                const action = wire.peer.ChaincodeAction.deserializeBinary(payload.getExtension_asU8());
                assert.deepEqual([action.getChaincodeId().getName(), action.getChaincodeId().getVersion()], ['basic', '1.0']);
                assert.equal(text(action.getResponse().getPayload_asU8()), '4');
            },
        },
        {
            name: 'the read-write set: the contract’s reads and writes, and its definition’s version',
            run: async (net) => {
                const key = newID();
                const answer = await call(net, { args: ['Add', key, '3'] });
                const payload = wire.peer.ProposalResponsePayload.deserializeBinary(answer.getPayload_asU8());
                const action = wire.peer.ChaincodeAction.deserializeBinary(payload.getExtension_asU8());
                const sets = wire.ledger.rwset.TxReadWriteSet.deserializeBinary(action.getResults_asU8()).getNsRwsetList();
                assert.deepEqual(sets.map((s) => s.getNamespace()), ['_lifecycle', 'basic']);
                const [definition, own] = sets.map((s) => wire.ledger.rwset.kvrwset.KVRWSet.deserializeBinary(s.getRwset_asU8()));
                assert.deepEqual(definition.getReadsList().map((r) => r.getKey()), ['namespaces/fields/basic/Sequence']);
                assert.deepEqual(own.getReadsList().map((r) => [r.getKey(), r.getVersion()]), [[key, undefined]]);
                assert.deepEqual(own.getWritesList().map((w) => [w.getKey(), text(w.getValue_asU8())]), [[key, '3']]);
            },
        },
        {
            name: 'every member’s peer gives the same result, byte for byte',
            run: async (net) => {
                const { responses } = await net.endorse(['org1', 'org2', 'org3'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                const payloads = responses.map((r) => Buffer.from(r.getPayload_asU8()).toString('hex'));
                assert.equal(new Set(payloads).size, 1);
            },
        },
        {
            name: 'a contract’s error: status 500 and no endorsement',
            misuse: true,
            run: async (net) => refused(await call(net, { args: ['Fail', 'not so'] }), 500, /not so/),
        },
        {
            name: 'a contract and a channel that are not there',
            misuse: true,
            run: async (net) => {
                refused(await call(net, { contract: 'nowhere' }), 500, /chaincode nowhere not found|nowhere/);
                refused(await call(net, { channel: 'elsewhere' }), 500, /channel 'elsewhere' not found/);
            },
        },
        {
            name: 'a proposal that is empty or cannot be read',
            misuse: true,
            run: async (net) => {
                for (const signed of [new wire.peer.SignedProposal(), wire.make(wire.peer.SignedProposal, { proposalBytes: Buffer.from('nonsense'), signature: Buffer.from('x') })]) {
                    await rejects(wire.unary(net.stub('endorser', 'org1'), 'processProposal', signed), { code: 'UNKNOWN' });
                }
            },
        },
        {
            name: 'headers of another type, an epoch, no nonce, another transaction’s id',
            misuse: true,
            run: async (net) => {
                for (const wrong of [{ type: wire.common.HeaderType.MESSAGE }, { epoch: 1 }, { nonce: Buffer.alloc(0) }, { txId: 'ab'.repeat(32) }, { creator: Buffer.alloc(0) }]) {
                    await rejects(call(net, wrong), { code: 'UNKNOWN' });
                }
            },
        },
        {
            name: 'a signature that is missing, another’s, or of another proposal',
            misuse: true,
            run: async (net) => {
                for (const sign of [async () => Buffer.alloc(0), net.user('org2').sign, () => net.user('org1').sign(Buffer.from('other'))]) {
                    await rejects(call(net, { sign }), { code: 'UNKNOWN', message: /access denied|empty signature bytes/ });
                }
            },
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) await rejects(call(net, { identity }), { code: 'UNKNOWN' });
            },
        },
        {
            name: 'a creator that is no identity',
            misuse: true,
            run: (net) => rejects(call(net, { creator: Buffer.from('nobody') }), { code: 'UNKNOWN' }),
        },
        {
            name: 'a proposal whose transaction is on the ledger already',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'basic', args: ['Put', newID(), 'v'] });
                await net.broadcast(await wire.transaction(proposed, responses));
                assert.equal(await net.verdict('org1', proposed.txId), 'VALID');
                await rejects(wire.unary(net.stub('endorser', 'org1'), 'processProposal', proposed.signed), { code: 'UNKNOWN', message: /duplicate transaction found/ });
            },
        },
        {
            name: 'the header’s contract and the input’s contract differ',
            misuse: true,
            run: async (net) => {
                const extension = wire.make(wire.peer.ChaincodeHeaderExtension, { chaincodeId: wire.make(wire.peer.ChaincodeID, { name: 'nowhere' }) });
                refused(await call(net, { extension }), 500);
            },
        },
        {
            name: 'functions that the peer’s own contracts do not have',
            misuse: true,
            run: async (net) => {
                refused(await call(net, { contract: 'lscc', args: ['install', 'x'] }), 500);
                refused(await call(net, { contract: 'cscc', args: ['Nonsense', 'x'] }), 500, /Requested function Nonsense not found/);
            },
        },
    ],
};
