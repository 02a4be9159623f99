import assert from 'node:assert/strict';
import { checkpointers } from '@hyperledger/fabric-gateway';
import { allOf, anyOf, outOf } from '../lib/contracts.mjs';
import { eventually, newID, next, rejects, text } from '../lib/expect.mjs';

let two;
let elsewhere;
const membersIn = (transaction) => ['Org1MSP', 'Org2MSP', 'Org3MSP'].filter((m) => Buffer.from(transaction.getBytes()).includes(Buffer.from(`${m}\x12`)));
// without runs something while a node is down, and waits until the others have noticed that it is back.
async function without(net, node, run) {
    await net.without(node, run);
    await eventually(() => net.contract('org1', 'down-all').submitTransaction('Put', newID(), 'v').then(() => true), 30);
    for (const mspId of ['Org2MSP', 'Org3MSP']) {
        await eventually(() => elsewhere.evaluate('Length', { arguments: ['x'], endorsingOrganizations: [mspId] }).then(() => true), 30);
    }
}

export default {
    area: 'Gateway',
    title: 'Nodes that are down',
    about: 'the gateway tries another peer; what it says when there is none; clients that go on where they were',
    alone: true,
    setup: async (net) => {
        await net.deploy('basic', { name: 'down-two', policy: outOf(2, 'Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') });
        await net.deploy('basic', { name: 'down-all', policy: allOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') });
        // Only Org2 and Org3 have this package.
        await net.deploy('basic-too', { name: 'down-elsewhere', members: ['org2', 'org3'], policy: anyOf('Org2MSP.peer', 'Org3MSP.peer') });
        [two, elsewhere] = [net.contract('org1', 'down-two'), net.contract('org1', 'down-elsewhere')];
    },
    cases: [
        {
            name: 'two of three endorse, whichever one is down',
            run: async (net) => {
                for (const [node, rest] of [['peer0.org2', ['Org1MSP', 'Org3MSP']], ['peer0.org3', ['Org1MSP', 'Org2MSP']]]) {
                    await without(net, node, async () => {
                        for (let i = 0; i < 3; i++) {
                            const transaction = await two.newProposal('Put', { arguments: [newID(), 'v'] }).endorse();
                            assert.deepEqual(membersIn(transaction), rest);
                            assert.equal((await (await transaction.submit()).getStatus()).code, 0);
                        }
                    });
                }
            },
        },
        {
            name: 'a contract that only other members run is evaluated and endorsed by those that are up',
            run: async (net) => {
                const key = newID();
                await elsewhere.submitTransaction('Put', key, 'v');
                for (const node of ['peer0.org2', 'peer0.org3']) {
                    await without(net, node, async () => {
                        assert.equal(text(await elsewhere.evaluateTransaction('Get', key)), 'v');
                        await elsewhere.submitTransaction('Put', newID(), 'v');
                    });
                }
            },
        },
        {
            name: 'a peer that comes back has what it missed, and endorses again',
            run: async (net) => {
                const key = newID();
                await without(net, 'peer0.org3', () => two.submitTransaction('Put', key, 'missed'));
                await eventually(async () => text(await net.contract('org3', 'down-two').evaluateTransaction('Get', key)) === 'missed', 20);
            },
        },
        {
            name: 'who listens to events goes on from its checkpoint when the peer is back, and misses nothing',
            run: async (net) => {
                const network = net.gateway('org3').getNetwork(net.channel);
                const checkpoint = checkpointers.inMemory();
                const first = await network.getChaincodeEvents('down-two', { checkpoint });
                const iterator = first[Symbol.asyncIterator]();
                const sent = ['one', 'two', 'three'];
                await two.submitTransaction('Announce', 'Down', sent[0]);
                const event = await next(iterator);
                await checkpoint.checkpointChaincodeEvent(event);
                await without(net, 'peer0.org3', async () => {
                    await rejects(next(iterator), { type: 'GatewayError' });
                    for (const payload of sent.slice(1)) await two.submitTransaction('Announce', 'Down', payload);
                });
                const seen = [];
                const rest = await eventually(() => network.getChaincodeEvents('down-two', { checkpoint }));
                const again = rest[Symbol.asyncIterator]();
                for (let i = 0; i < 2; i++) seen.push(text((await next(again)).payload));
                rest.close();
                assert.deepEqual(seen, sent.slice(1));
            },
        },
        {
            name: 'a policy of all, and one is down: an error, soon',
            misuse: true,
            run: (net) => without(net, 'peer0.org2', async () => {
                const error = await rejects(net.contract('org1', 'down-all').submitTransaction('Put', newID(), 'v'), { type: 'EndorseError' });
                assert.ok([9, 10, 14].includes(error.code), error.message); // FAILED_PRECONDITION, ABORTED, UNAVAILABLE
            }),
        },
        {
            name: 'the organization that is named has no peer up: an error that names it',
            misuse: true,
            run: (net) => without(net, 'peer0.org2', async () => {
                const error = await rejects(two.submit('Put', { arguments: [newID(), 'v'], endorsingOrganizations: ['Org2MSP'] }), { type: 'EndorseError' });
                assert.ok([10, 14].includes(error.code), error.message);
                assert.match([error.message, ...error.details.map((d) => d.mspId)].join(), /Org2MSP/);
            }),
        },
        {
            name: 'no orderer is up: UNAVAILABLE, and the network goes on when it is back',
            misuse: true,
            run: async (net) => {
                await without(net, 'orderer0', () => rejects(two.submitTransaction('Put', newID(), 'v'), { type: 'SubmitError', code: 'UNAVAILABLE', message: /no orderers could successfully process transaction|no orderer nodes available/ }));
            },
        },
        {
            name: 'the client’s own peer is down: UNAVAILABLE, and the same client goes on when it is back',
            misuse: true,
            run: async (net) => {
                const contract = net.contract('org2', 'down-two');
                await contract.evaluateTransaction('Length', 'x');
                await net.without('peer0.org2', () => rejects(contract.evaluateTransaction('Length', 'x'), { type: 'GatewayError', code: 'UNAVAILABLE' }));
                await eventually(async () => text(await contract.evaluateTransaction('Length', 'xx')) === '2', 20);
            },
        },
    ],
};
