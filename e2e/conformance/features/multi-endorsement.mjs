import assert from 'node:assert/strict';
import { allOf, anyOf, outOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let all;
let two;
const put = (contract, more = {}) => contract.newProposal('Put', { arguments: [newID(), 'v'], ...more });
const membersIn = (transaction) => ['Org1MSP', 'Org2MSP', 'Org3MSP'].filter((m) => Buffer.from(transaction.getBytes()).includes(Buffer.from(`${m}\x12`)));
const statusOf = async (transaction) => (await (await transaction.submit()).getStatus()).code;
const ENDORSEMENT_POLICY_FAILURE = 10;

export default {
    area: 'Contract features',
    title: 'Endorsement by several members',
    about: 'policies of a contract: all, some of, the channel’s own; too few, wrong and foreign endorsements',
    setup: async (net) => {
        await net.deploy('basic', { name: 'of-all', policy: allOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') });
        await net.deploy('basic', { name: 'of-two', policy: outOf(2, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') });
        [all, two] = [net.contract('org1', 'of-all'), net.contract('org1', 'of-two')];
    },
    cases: [
        {
            name: 'all members endorse, and the transaction is valid',
            run: async () => {
                const transaction = await put(all).endorse();
                // The proposer’s own identity is in it as well.
                assert.deepEqual(membersIn(transaction), ['Org1MSP', 'Org2MSP', 'Org3MSP']);
                assert.equal(await statusOf(transaction), 0);
            },
        },
        {
            name: 'two of three suffice, and no more are asked',
            run: async () => {
                const transaction = await put(two).endorse();
                assert.equal(membersIn(transaction).length, 2);
                assert.equal(await statusOf(transaction), 0);
            },
        },
        {
            name: 'the channel’s default policy: a majority',
            run: async (net) => {
                await net.deploy('basic', { name: 'of-majority' });
                const transaction = await put(net.contract('org1', 'of-majority')).endorse();
                assert.equal(membersIn(transaction).length, 2);
                assert.equal(await statusOf(transaction), 0);
            },
        },
        {
            name: 'a policy within a policy',
            run: async (net) => {
                await net.deploy('basic', { name: 'of-nested', policy: allOf('Org3MSP.peer', anyOf('Org1MSP.peer', 'Org2MSP.peer')) });
                const transaction = await put(net.contract('org2', 'of-nested')).endorse();
                assert.ok(membersIn(transaction).includes('Org3MSP'));
                assert.equal(await statusOf(transaction), 0);
            },
        },
        {
            name: 'endorsements collected by hand, as the peer command does',
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1', 'org2', 'org3'], { contract: 'of-all', args: ['Put', newID(), 'v'] });
                assert.equal((await net.broadcast(await wire.transaction(proposed, responses))).status, 'SUCCESS');
                assert.equal(await net.verdict('org1', proposed.txId), 'VALID');
            },
        },
        {
            name: 'too few endorsements are ordered and invalid',
            misuse: true,
            run: async (net) => {
                const transaction = await put(all, { endorsingOrganizations: ['Org1MSP', 'Org2MSP'] }).endorse();
                assert.equal(await statusOf(transaction), ENDORSEMENT_POLICY_FAILURE);
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'of-two', args: ['Put', newID(), 'v'] });
                await net.broadcast(await wire.transaction(proposed, responses));
                assert.equal(await net.verdict('org1', proposed.txId), 'ENDORSEMENT_POLICY_FAILURE');
            },
        },
        {
            name: 'one member’s endorsement given twice counts once',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'of-two', args: ['Put', newID(), 'v'] });
                await net.broadcast(await wire.transaction(proposed, [responses[0], responses[0]]));
                assert.equal(await net.verdict('org1', proposed.txId), 'ENDORSEMENT_POLICY_FAILURE');
            },
        },
        {
            name: 'an endorsement whose signature is another’s does not count',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1', 'org2'], { contract: 'of-two', args: ['Put', newID(), 'v'] });
                const [first, second] = responses.map((r) => r.getEndorsement());
                second.setSignature(first.getSignature_asU8());
                await net.broadcast(await wire.transaction(proposed, responses, { endorsements: [first, second] }));
                assert.equal(await net.verdict('org1', proposed.txId), 'ENDORSEMENT_POLICY_FAILURE');
            },
        },
        {
            name: 'a client’s signature is not a peer’s endorsement',
            misuse: true,
            run: async (net) => {
                const { proposed, responses } = await net.endorse(['org1'], { contract: 'of-two', args: ['Put', newID(), 'v'] });
                const user = net.user('org2');
                const payload = responses[0].getPayload_asU8();
                const forged = wire.make(wire.peer.Endorsement, { endorser: user.creator, signature: await user.sign(Buffer.concat([payload, user.creator])) });
                await net.broadcast(await wire.transaction(proposed, responses, { endorsements: [responses[0].getEndorsement(), forged] }));
                assert.equal(await net.verdict('org1', proposed.txId), 'ENDORSEMENT_POLICY_FAILURE');
            },
        },
        {
            name: 'a result that was changed after it was endorsed',
            misuse: true,
            run: async (net) => {
                const key = newID();
                const { proposed, responses } = await net.endorse(['org1', 'org2'], { contract: 'of-two', args: ['Put', key, 'ten'] });
                const payload = Buffer.from(responses[0].getPayload_asU8());
                payload.write('one', payload.lastIndexOf('ten'));
                await net.broadcast(await wire.transaction(proposed, responses, { payload }));
                assert.equal(await net.verdict('org1', proposed.txId), 'ENDORSEMENT_POLICY_FAILURE');
                assert.equal(text(await two.evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'results that differ are not put together',
            misuse: true,
            run: () => rejects(two.submitTransaction('Differ', newID()), { type: 'EndorseError', code: 'ABORTED', message: /ProposalResponsePayloads do not match/ }),
        },
        {
            name: 'a policy that nobody can fulfil',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'of-nobody', policy: allOf('Org1MSP.peer', 'Org9MSP.peer') });
                await rejects(net.contract('org1', 'of-nobody').submitTransaction('Put', newID(), 'v'), { type: 'EndorseError', code: 'FAILED_PRECONDITION', message: /no combination of peers|no peer combination|endorsement/ });
            },
        },
        {
            name: 'a policy that wants an administrator’s endorsement is not fulfilled by peers',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'of-admins', policy: anyOf('Org1MSP.admin') });
                const transaction = await put(net.contract('org1', 'of-admins'), { endorsingOrganizations: ['Org1MSP'] }).endorse();
                assert.equal(await statusOf(transaction), ENDORSEMENT_POLICY_FAILURE);
            },
        },
    ],
};
