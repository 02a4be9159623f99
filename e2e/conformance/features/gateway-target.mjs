import assert from 'node:assert/strict';
import { allOf, anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let any;
let both;
const membersIn = (transaction) => ['Org1MSP', 'Org2MSP', 'Org3MSP'].filter((m) => Buffer.from(transaction.getBytes()).includes(Buffer.from(`${m}\x12`)));
const put = (contract, endorsingOrganizations) => contract.newProposal('Put', { arguments: [newID(), 'v'], endorsingOrganizations });
const codeOf = async (transaction) => (await (await transaction.submit()).getStatus()).code;

export default {
    area: 'Gateway',
    title: 'Gateway: targeting organizations',
    about: '`endorsingOrganizations` of evaluate and submit',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        await net.deploy('basic', { name: 'target-both', policy: allOf('Org1MSP.peer', 'Org2MSP.peer') });
        [any, both] = [net.contract('org1', 'basic'), net.contract('org1', 'target-both')];
    },
    cases: [
        {
            name: 'the named organization endorses, though another would do',
            run: async (net) => {
                // The proposer is of Org1 and so in the transaction too.
                const transaction = await put(any, ['Org3MSP']).endorse();
                assert.deepEqual(membersIn(transaction), ['Org1MSP', 'Org3MSP']);
                assert.equal(await codeOf(transaction), 0);
                const own = await put(net.contract('org2', 'basic'), ['Org3MSP']).endorse();
                assert.deepEqual(membersIn(own), ['Org2MSP', 'Org3MSP']);
            },
        },
        {
            name: 'more organizations than the policy wants',
            run: async () => {
                const transaction = await put(any, ['Org1MSP', 'Org2MSP', 'Org3MSP']).endorse();
                assert.deepEqual(membersIn(transaction), ['Org1MSP', 'Org2MSP', 'Org3MSP']);
                assert.equal(await codeOf(transaction), 0);
            },
        },
        {
            name: 'an evaluation runs on a peer of the named organization',
            run: async (net) => {
                // A peer of Org3 says so: the contract runs for all in one process, so its answer does not; an error's detail does.
                const error = await rejects(any.evaluate('Fail', { arguments: ['where'], endorsingOrganizations: ['Org3MSP'] }), { type: 'GatewayError', code: 'UNKNOWN' });
                assert.deepEqual(error.details.map((d) => [d.mspId, d.address]), [['Org3MSP', net.member('org3').address]]);
            },
        },
        {
            name: 'without names the gateway plans by the contract’s policy',
            run: async () => {
                const transaction = await put(both).endorse();
                assert.deepEqual(membersIn(transaction), ['Org1MSP', 'Org2MSP']);
                assert.equal(await codeOf(transaction), 0);
            },
        },
        {
            name: 'too few named organizations make an invalid transaction',
            misuse: true,
            run: async () => assert.equal(await codeOf(await put(both, ['Org1MSP']).endorse()), 10),
        },
        {
            name: 'an organization that is not there',
            misuse: true,
            run: async () => {
                await rejects(put(any, ['Org9MSP']).endorse(), { type: 'EndorseError', code: 'UNAVAILABLE', message: /failed to find any endorsing peers for org\(s\): Org9MSP/ });
                await rejects(any.evaluate('Length', { arguments: ['x'], endorsingOrganizations: ['Org9MSP'] }), { type: 'GatewayError', code: 'FAILED_PRECONDITION' });
            },
        },
        {
            name: 'an organization beside one that is not there',
            misuse: true,
            run: () => rejects(put(any, ['Org1MSP', 'Org9MSP']).endorse(), { type: 'EndorseError', code: 'UNAVAILABLE', message: /Org9MSP/ }),
        },
        {
            name: 'an organization without peers: that of the orderers',
            misuse: true,
            run: () => rejects(put(any, ['OrdererMSP']).endorse(), { type: 'EndorseError', code: 'UNAVAILABLE', message: /OrdererMSP/ }),
        },
        {
            name: 'one named organization’s refusal is the transaction’s, with its detail',
            misuse: true,
            run: async (net) => {
                const error = await rejects(any.newProposal('Fail', { arguments: ['refused'], endorsingOrganizations: ['Org2MSP', 'Org3MSP'] }).endorse(), { type: 'EndorseError', code: 'ABORTED' });
                assert.ok(error.details.length > 0);
                for (const detail of error.details) assert.ok(['Org2MSP', 'Org3MSP'].includes(detail.mspId) && /refused/.test(detail.message), text(JSON.stringify(detail)));
                assert.ok(error.details.every((d) => d.address === net.setup.members.find((m) => m.mspId === d.mspId).address));
            },
        },
    ],
};
