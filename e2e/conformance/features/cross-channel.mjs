import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

const channel = 'neighbour';
let here;
let there;
const ask = (contract, call, on = channel) => ['Ask', contract, JSON.stringify(call), on];

export default {
    area: 'Contract features',
    title: 'Contracts of another channel',
    about: '`invokeChaincode` of a contract of another channel, to read',
    setup: async (net) => {
        const anyPeer = anyOf(...net.mspIds.map((m) => `${m}.peer`));
        await net.addChannel(channel, { members: ['org1', 'org2'] });
        await Promise.all([
            net.deploy('basic', { name: 'here', policy: anyPeer }),
            net.deploy('basic', { name: 'there', channel, members: ['org1', 'org2'], policy: anyOf('Org1MSP.peer', 'Org2MSP.peer') }),
        ]);
        here = net.contract('org1', 'here');
        there = net.contract('org1', 'there', { channel });
    },
    cases: [
        {
            name: 'a value of the other channel is read',
            run: async () => {
                const key = newID();
                await there.submitTransaction('Put', key, 'over there');
                assert.equal(text(await here.evaluateTransaction(...ask('there', ['Get', key]))), 'over there');
            },
        },
        {
            name: 'a transaction that read there is valid, and depends on nothing there',
            run: async () => {
                const [key, mine] = [newID(), newID()];
                await there.submitTransaction('Put', key, '1');
                const late = await here.newProposal('AskAndPut', { arguments: ['there', JSON.stringify(['Get', key]), channel, mine] }).endorse();
                await there.submitTransaction('Put', key, '2');
                assert.equal((await (await late.submit()).getStatus()).code, 0);
                assert.equal(text(await here.evaluateTransaction('Get', mine)), 'asked');
            },
        },
        {
            name: 'the same member uses both channels apart',
            run: async () => {
                const key = newID();
                await here.submitTransaction('Put', key, 'here');
                await there.submitTransaction('Put', key, 'there');
                assert.deepEqual([text(await here.evaluateTransaction('Get', key)), text(await there.evaluateTransaction('Get', key))], ['here', 'there']);
            },
        },
        {
            name: 'the called contract knows its own channel',
            run: async () => assert.equal(JSON.parse(text(await here.evaluateTransaction(...ask('there', ['Call'])))).channel, channel),
        },
        {
            name: 'writes over there are not made',
            misuse: true,
            run: async () => {
                const key = newID();
                await here.submitTransaction(...ask('there', ['Put', key, 'lost']));
                assert.equal(text(await there.evaluateTransaction('Get', key)), '');
                assert.equal(text(await here.evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'a channel that the peer has not joined',
            misuse: true,
            run: () => rejects(here.evaluateTransaction(...ask('there', ['Get', 'k'], 'nowhere')), { type: 'GatewayError', code: 'UNKNOWN', message: /nowhere/ }),
        },
        {
            name: 'a contract that is of this channel and not of that',
            misuse: true,
            run: () => rejects(here.evaluateTransaction(...ask('here', ['Get', 'k'])), { type: 'GatewayError', code: 'UNKNOWN', message: /here/ }),
        },
        {
            name: 'who may not use the other channel may not through a contract either',
            misuse: true,
            run: async (net) => {
                // Org3 is no member of the other channel; its user asks a peer that is.
                const answer = await net.process('org1', { identity: net.user('org3'), contract: 'here', args: ask('there', ['Get', 'k']) });
                assert.equal(answer.getResponse().getStatus(), 500, text(answer.getResponse().getPayload_asU8()));
            },
        },
        {
            name: 'a member outside of a channel cannot use it',
            misuse: true,
            run: async (net) => {
                const outsider = net.contract('org1', 'there', { channel, identity: net.user('org3') });
                await rejects(outsider.submitTransaction('Put', newID(), 'v'), { type: 'EndorseError', message: /access denied|creator|denied/ });
                await rejects(outsider.evaluateTransaction('Get', 'k'), { type: 'GatewayError', message: /access denied|creator|denied/ });
            },
        },
    ],
};
