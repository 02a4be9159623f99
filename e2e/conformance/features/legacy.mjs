import assert from 'node:assert/strict';
import fabricNetwork from 'fabric-network';
import { allOf } from '../lib/contracts.mjs';
import { eventually, newID, rejects } from '../lib/expect.mjs';

const { DefaultEventHandlerStrategies, DefaultQueryHandlerStrategies } = fabricNetwork;
let network;
let contract;

async function submit(members, name, ...args) {
    const transaction = contract.createTransaction(name);
    transaction.setEndorsingOrganizations(...members);
    return { result: (await transaction.submit(...args)).toString(), txId: transaction.getTransactionId() };
}
const both = ['Org1MSP', 'Org2MSP'];

export default {
    area: 'Services',
    title: 'fabric-network without discovery',
    about: 'the older client with a connection profile of `hansa up`: proposals to the peers, envelopes to the orderer, events by Deliver',
    setup: async (net) => {
        await net.deploy('basic', { name: 'profile', policy: allOf('Org1MSP.peer', 'Org2MSP.peer') });
        network = await net.legacy('org1', {
            discovery: { enabled: false },
            eventHandlerOptions: { strategy: DefaultEventHandlerStrategies.MSPID_SCOPE_ALLFORTX, commitTimeout: 30 },
            queryHandlerOptions: { strategy: DefaultQueryHandlerStrategies.MSPID_SCOPE_SINGLE },
        });
        contract = network.getContract('profile');
    },
    cases: [
        {
            name: 'submit to named members, and evaluate',
            run: async () => {
                const key = newID();
                assert.equal((await submit(both, 'Add', key, '4')).result, '4');
                assert.equal((await contract.evaluateTransaction('Get', key)).toString(), '4');
            },
        },
        {
            name: 'transient data',
            run: async () => {
                const transaction = contract.createTransaction('Transient').setTransient({ note: Buffer.from('hidden') });
                assert.equal((await transaction.evaluate('note')).toString(), 'hidden');
            },
        },
        {
            name: 'contract events, with their transactions and blocks',
            run: async () => {
                const seen = [];
                const listener = await contract.addContractListener(async (event) => seen.push(event));
                const key = newID();
                const { txId } = await submit(both, 'PutAndAnnounce', key, 'Legacy', key);
                const event = await eventually(() => seen.find((e) => e.payload.toString() === key));
                contract.removeContractListener(listener);
                assert.deepEqual([event.eventName, event.chaincodeId, event.getTransactionEvent().transactionId], ['Legacy', 'profile', txId]);
                assert.ok(event.getTransactionEvent().isValid);
            },
        },
        {
            name: 'block events: whole, filtered, and replayed from a number',
            run: async () => {
                for (const [type, numberOf] of [['full', (b) => b.blockNumber], ['filtered', (b) => b.blockNumber]]) {
                    const numbers = [];
                    const listener = await network.addBlockListener(async (block) => numbers.push(Number(numberOf(block))), { startBlock: 1, type });
                    await eventually(() => numbers.length >= 3);
                    network.removeBlockListener(listener);
                    assert.deepEqual(numbers.slice(0, 3), [1, 2, 3]);
                }
            },
        },
        {
            name: 'commit listeners hear of a transaction from each peer',
            run: async (net) => {
                const transaction = contract.createTransaction('Put');
                transaction.setEndorsingOrganizations(...both);
                const heard = [];
                const peers = network.getChannel().getEndorsers();
                const listener = await network.addCommitListener((err, event) => heard.push(err ?? event), peers, transaction.getTransactionId());
                await transaction.submit(newID(), 'v');
                await eventually(() => heard.length >= net.mspIds.length);
                network.removeCommitListener(listener);
                assert.ok(heard.every((e) => e.isValid && e.status === 'VALID'));
            },
        },
        {
            name: 'what the contract throws',
            misuse: true,
            run: async () => {
                await rejects(contract.evaluateTransaction('Fail', 'no way'), { message: /no way/ });
                await rejects(submit(both, 'Fail', 'no way'), { message: /no way/ });
            },
        },
        {
            name: 'too few endorsements: the client learns the code',
            misuse: true,
            run: () => rejects(submit(['Org1MSP'], 'Put', newID(), 'v'), { message: /ENDORSEMENT_POLICY_FAILURE/ }),
        },
        {
            name: 'a conflict: the client learns the code',
            misuse: true,
            run: async () => {
                const key = newID();
                const results = await Promise.allSettled(Array.from({ length: 6 }, () => submit(both, 'Add', key, '1')));
                const failures = results.filter((r) => r.status === 'rejected').map((r) => r.reason.message);
                for (const message of failures) assert.match(message, /MVCC_READ_CONFLICT|do not match/);
                assert.equal(Number((await contract.evaluateTransaction('Get', key)).toString()), 6 - failures.length);
            },
        },
        {
            name: 'a contract that is not there',
            misuse: true,
            run: () => rejects(network.getContract('nowhere').evaluateTransaction('Get', 'k'), { message: /nowhere/ }),
        },
        {
            name: 'identities that are expired, unknown, or of an unknown member',
            misuse: true,
            run: async (net) => {
                for (const identity of Object.values(net.refused)) {
                    const open = net.legacy('org1', { identity, discovery: { enabled: false } });
                    await rejects(open.then((n) => n.getContract('profile').evaluateTransaction('Get', 'k')), { message: /access denied|expired|creator|Query failed/i });
                }
            },
        },
    ],
};
