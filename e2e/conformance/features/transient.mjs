import assert from 'node:assert/strict';
import { allOf, anyOf } from '../lib/contracts.mjs';
import { newID, next, rejects, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let basic;

export default {
    area: 'Contract features',
    title: 'Transient data',
    about: '`getTransient`: what the endorsers see and the ledger does not',
    setup: async (net) => {
        await net.deploy('basic', { name: 'transient', policy: allOf('Org1MSP.peer', 'Org2MSP.peer') });
        basic = net.contract('org1', 'transient');
    },
    cases: [
        {
            name: 'evaluate and submit bring it to the contract',
            run: async () => {
                const call = { arguments: ['note'], transientData: { note: 'for your eyes' } };
                assert.equal(text(await basic.evaluate('Transient', call)), 'for your eyes');
                assert.equal(text(await basic.submit('Transient', call)), 'for your eyes');
            },
        },
        {
            name: 'several values, and bytes of any kind',
            run: async () => {
                const transientData = { a: Buffer.from('1'), b: Buffer.from([]), 'ä€': Buffer.from('x') };
                assert.deepEqual(JSON.parse(text(await basic.evaluate('TransientNames', { transientData }))), ['a', 'b', 'ä€']);
            },
        },
        {
            name: 'neither the transaction nor the block holds it',
            run: async (net) => {
                const secret = newID('secret');
                // The answer would be on the ledger: this contract answers with the names alone.
                const commit = await basic.submitAsync('TransientNames', { transientData: { hidden: secret } });
                const { blockNumber } = await commit.getStatus();
                const blocks = await net.gateway('org1').getNetwork(net.channel).getBlockEvents({ startBlock: blockNumber });
                const block = Buffer.from((await next(blocks[Symbol.asyncIterator]())).serializeBinary());
                blocks.close();
                assert.ok(block.includes(commit.getTransactionId()));
                assert.ok(!block.includes(secret));
            },
        },
        { name: 'a name that was not given is not there', misuse: true, run: async () => assert.equal(text(await basic.evaluate('Transient', { arguments: ['none'], transientData: { other: 'x' } })), '') },
        {
            name: 'each call has its own',
            misuse: true,
            run: async () => {
                await basic.evaluate('Transient', { arguments: ['note'], transientData: { note: 'mine' } });
                assert.equal(text(await basic.evaluate('Transient', { arguments: ['note'] })), '');
            },
        },
        {
            name: 'a proposal whose transient data was changed on the way is refused',
            misuse: true,
            run: async (net) => {
                const proposed = await wire.propose({
                    identity: net.user('org1'), channel: net.channel, contract: 'transient', args: ['Transient', 'note'], transient: { note: 'ten' },
                });
                const payload = proposed.payload.clone();
                payload.getTransientmapMap().set('note', Buffer.from('one'));
                const proposal = wire.make(wire.peer.Proposal, { header: proposed.proposal.getHeader_asU8(), payload: wire.bytes(payload) });
                proposed.signed.setProposalBytes(wire.bytes(proposal));
                await rejects(wire.unary(net.stub('endorser', 'org1'), 'processProposal', proposed.signed), { code: 'UNKNOWN', message: /access denied|signature/ });
            },
        },
        {
            name: 'a transaction that carries transient data is not valid',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'transient-any', policy: anyOf('Org1MSP.peer') });
                const { proposed, responses } = await net.endorse(['org1'], {
                    contract: 'transient-any', args: ['TransientNames'], transient: { note: 'in the open' },
                });
                const open = { ...proposed, payload: { getInput_asU8: () => proposed.payload.getInput_asU8() } };
                const envelope = await wire.transaction(open, responses, { actions: (action) => {
                    const inner = wire.peer.ChaincodeActionPayload.deserializeBinary(action.getPayload_asU8());
                    inner.setChaincodeProposalPayload(wire.bytes(proposed.payload));
                    action.setPayload(wire.bytes(inner));
                    return [action];
                } });
                assert.equal((await net.broadcast(envelope)).status, 'SUCCESS');
                // Its proposal hash is that of the payload without transient data.
                assert.notEqual(await net.verdict('org1', proposed.txId), 'VALID');
            },
        },
    ],
};
