// `peer chaincode invoke` and `query`, by their wire form.

import assert from 'node:assert/strict';
import { newID, refused, rejects, succeeded, text } from '../lib/expect.mjs';
import { records } from '../lib/records.mjs';
import { invoke, query, submit } from '../lib/tools.mjs';
import { common, make, peer, propose, sha256, timestamp, transaction, unary } from '../lib/wire.mjs';

const contract = 'records';

export default {
    area: 'Tools',
    title: '`peer chaincode`',
    about: 'invoke with several peers, transient data and --waitForEvent, query; and proposals that no tool makes',
    setup: (net) => records(net),
    cases: [{
        name: 'query gives the contract\'s answer, endorsed, and changes nothing',
        run: async (net) => {
            const key = newID();
            const response = await net.process('org1', { contract, args: ['Put', key, 'not kept'] });
            assert.equal(text(succeeded(response)), 'not kept');
            assert.ok(response.getEndorsement().getSignature_asU8().length > 0);
            assert.equal(text(await query(net, 'org1', { contract, args: ['Get', key] })), '');
        },
    }, {
        name: 'invoke: several peers endorse the same bytes, and the transaction is committed',
        run: async (net) => {
            const key = newID();
            const { code, payload } = await invoke(net, ['org1', 'org2', 'org3'], { contract, args: ['Put', key, 'kept'] });
            assert.equal(code, 'VALID');
            assert.equal(text(payload), 'kept');
            assert.equal(text(await query(net, 'org1', { contract, args: ['Get', key] })), 'kept');
        },
    }, {
        name: 'invoke --waitForEvent: the filtered blocks tell of it',
        run: async (net) => {
            const { proposed, responses } = await net.endorse(['org1'], { contract, args: ['Put', newID(), 'x'] });
            const events = await net.blocks('org1', { kind: 'deliverFiltered', start: 'newest', stop: 2n ** 64n - 1n });
            try {
                assert.equal((await net.broadcast(await transaction(proposed, responses))).status, 'SUCCESS');
                for (;;) {
                    const block = (await events.next()).getFilteredBlock();
                    const found = block.getFilteredTransactionsList().find((tx) => tx.getTxid() === proposed.txId);
                    if (!found) continue;
                    assert.equal(found.getTxValidationCode(), peer.TxValidationCode.VALID);
                    assert.equal(block.getChannelId(), net.channel);
                    break;
                }
            } finally {
                events.close();
            }
        },
    }, {
        name: 'invoke --transient: the contract sees it, the ledger does not',
        run: async (net) => {
            const [key, value] = [newID(), newID('transient-secret')];
            const { proposed, responses } = await net.endorse(['org1'], { contract, args: ['PutPrivate', 'shared', key], transient: { value } });
            responses.forEach(succeeded);
            const envelope = await transaction(proposed, responses);
            assert.ok(!Buffer.from(envelope.getPayload_asU8()).includes(value));
            assert.equal((await submit(net, 'org1', envelope, proposed.txId)).code, 'VALID');
            assert.equal(text(await query(net, 'org1', { contract, args: ['GetPrivate', 'shared', key] })), value);
        },
    }, {
        name: 'the endorsement is over the result and the endorser; version and proposal hash are Fabric\'s',
        run: async (net) => {
            const { proposed, responses: [response] } = await net.endorse(['org1'], { contract, args: ['Put', newID(), 'x'] });
            assert.equal(response.getVersion(), 1);
            const result = peer.ProposalResponsePayload.deserializeBinary(response.getPayload_asU8());
            const visible = make(peer.ChaincodeProposalPayload, { input: proposed.payload.getInput_asU8() });
            assert.deepEqual(Buffer.from(result.getProposalHash_asU8()),
                sha256(proposed.header.getChannelHeader_asU8(), proposed.header.getSignatureHeader_asU8(), visible.serializeBinary()));
            const action = peer.ChaincodeAction.deserializeBinary(result.getExtension_asU8());
            assert.deepEqual([action.getChaincodeId().getName(), action.getChaincodeId().getVersion()], [contract, '1.0']);
        },
    }, {
        name: 'any type of the chaincode specification is taken',
        run: async (net) => {
            for (const specType of Object.values(peer.ChaincodeSpec.Type)) {
                succeeded(await net.process('org1', { contract, args: ['Get', 'x'], specType }));
            }
        },
    }, {
        name: 'a contract that fails: its message, status 500 and no endorsement',
        misuse: true,
        run: async (net) => {
            refused(await net.process('org1', { contract, args: ['Fail', 'as I was told'] }), 500, /as I was told/);
            refused(await net.process('org1', { contract, args: ['NoSuchFunction'] }), 500, /NoSuchFunction/);
        },
    }, {
        name: 'a contract and a channel that are not there',
        misuse: true,
        run: async (net) => {
            refused(await net.process('org1', { contract: 'nothing', args: ['Get'] }), 500,
                /make sure the chaincode nothing has been successfully defined on channel business and try again: chaincode nothing not found/);
            refused(await net.process('org1', { contract, args: ['Get'], channel: 'elsewhere' }), 500, /channel 'elsewhere' not found/);
        },
    }, {
        name: '--isInit for a contract that wants no initialization',
        misuse: true,
        run: async (net) => {
            refused(await net.process('org1', { contract, args: ['Init', 'a', 'b'], isInit: true }), 500, /chaincode 'records' does not require initialization but called as init/);
        },
    }, {
        name: 'a badly signed proposal, and one without signature',
        misuse: true,
        run: async (net) => {
            await rejects(net.process('org1', { contract, args: ['Get', 'x'], sign: net.user('org2').sign }),
                { code: 'UNKNOWN', message: /access denied: channel \[business\] creator org \[Org1MSP\]/ });
            await rejects(net.process('org1', { contract, args: ['Get', 'x'], sign: async () => Buffer.alloc(0) }), { code: 'UNKNOWN', message: /empty signature bytes/ });
        },
    }, {
        name: 'proposers whom nobody knows',
        misuse: true,
        run: async (net) => {
            const wrong = {
                expired: /client identity expired|identity expired/,
                stranger: /access denied: channel \[business\] creator org/,
                unknownMember: /access denied: channel \[business\] creator org/,
            };
            for (const [name, identity] of Object.entries(net.refused)) {
                await rejects(net.process('org1', { contract, args: ['Get', 'x'], identity }), { code: 'UNKNOWN', message: wrong[name] });
            }
        },
    }, {
        name: 'a transaction id that is not made of nonce and creator, an epoch, a header of another kind',
        misuse: true,
        run: async (net) => {
            const options = { contract, args: ['Get', 'x'] };
            await rejects(net.process('org1', { ...options, txId: '00'.repeat(32) }), { code: 'UNKNOWN', message: /incorrectly computed txid/ });
            await rejects(net.process('org1', { ...options, epoch: 1 }), { code: 'UNKNOWN', message: /epoch is non-zero/ });
            await rejects(net.process('org1', { ...options, nonce: Buffer.alloc(0) }), { code: 'UNKNOWN', message: /nonce is empty/ });
            await rejects(net.process('org1', { ...options, type: common.HeaderType.CONFIG_UPDATE }), { code: 'UNKNOWN', message: /invalid header type/ });
        },
    }, {
        name: 'what is no proposal at all',
        misuse: true,
        run: async (net) => {
            const signed = make(peer.SignedProposal, { proposalBytes: Buffer.from([0xff, 0xff]), signature: Buffer.from('x') });
            await rejects(unary(net.stub('endorser', 'org1'), 'processProposal', signed), { code: 'UNKNOWN', message: /error unmarshalling Proposal/ });
            await rejects(unary(net.stub('endorser', 'org1'), 'processProposal', new peer.SignedProposal()), { code: 'UNKNOWN', message: /incorrect timestamp 1970-01-01T00:00:00Z/ });
        },
    }, {
        name: 'a proposal of another time than now',
        misuse: true,
        run: async (net) => {
            for (const minutes of [-16, 16]) {
                await rejects(net.process('org1', { contract, args: ['Get', 'x'], timestamp: timestamp(new Date(Date.now() + 60_000 * minutes)) }),
                    { code: 'UNKNOWN', message: /request unauthorized due to incorrect timestamp .*, peer time .*, peer.authentication.timewindow 15m0s/ });
            }
            succeeded(await net.process('org1', { contract, args: ['Get', 'x'], timestamp: timestamp(new Date(Date.now() - 60_000 * 10)) }));
        },
    }, {
        name: 'a proposal whose transaction is committed already',
        misuse: true,
        run: async (net) => {
            const proposed = await propose({ identity: net.user('org1'), channel: net.channel, contract, args: ['Put', newID(), 'x'] });
            const send = () => unary(net.stub('endorser', 'org1'), 'processProposal', proposed.signed);
            const first = await send();
            assert.equal((await submit(net, 'org1', await transaction(proposed, [first]), proposed.txId)).code, 'VALID');
            await rejects(send(), { code: 'UNKNOWN', message: new RegExp(`duplicate transaction found \\[${proposed.txId}\\]. Creator`) });
        },
    }, {
        name: 'results that the endorsers do not agree on',
        misuse: true,
        run: async (net) => {
            const { proposed, responses } = await net.endorse(['org1', 'org2'], { contract, args: ['Put', newID(), 'x'] });
            // One payload carries both endorsements, so the other one's signature does not fit.
            const forged = Buffer.from(responses[0].getPayload_asU8());
            forged[forged.length - 1] ^= 1;
            const envelope = await transaction(proposed, responses, { payload: forged });
            const { code } = await submit(net, 'org1', envelope, proposed.txId);
            assert.notEqual(code, 'VALID');
        },
    }, {
        name: 'endorsements of another proposal',
        misuse: true,
        run: async (net) => {
            const one = await net.endorse(['org1'], { contract, args: ['Put', newID(), 'one'] });
            const other = await net.endorse(['org1'], { contract, args: ['Put', newID(), 'other'] });
            const { code } = await submit(net, 'org1', await transaction(one.proposed, other.responses), one.proposed.txId);
            assert.equal(code, 'INVALID_ENDORSER_TRANSACTION');
        },
    }],
};
