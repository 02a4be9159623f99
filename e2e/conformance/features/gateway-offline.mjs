import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, next, rejects, text } from '../lib/expect.mjs';

let offline;
let contract;
let user;
const sign = (what, who = user) => who.signDigest(what.getDigest());

async function endorsed(...args) {
    const unsigned = contract.newProposal(...args);
    const proposal = offline.newSignedProposal(unsigned.getBytes(), await sign(unsigned));
    return proposal.endorse();
}

export default {
    area: 'Gateway',
    title: 'Gateway: offline signing',
    about: 'a client without the key: every message is signed elsewhere',
    setup: async (net) => {
        await net.deploy('basic', { policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        user = net.user('org1');
        offline = net.gateway('org1', { offline: true });
        contract = offline.getNetwork(net.channel).getContract('basic');
    },
    cases: [
        {
            name: 'evaluate',
            run: async () => {
                const unsigned = contract.newProposal('Length', { arguments: ['seven77'] });
                assert.equal(text(await offline.newSignedProposal(unsigned.getBytes(), await sign(unsigned)).evaluate()), '7');
            },
        },
        {
            name: 'endorse, submit and commit status',
            run: async () => {
                const prepared = await endorsed('Put', { arguments: [newID(), 'v'] });
                const transaction = offline.newSignedTransaction(prepared.getBytes(), await sign(prepared));
                const unsignedCommit = await transaction.submit();
                const commit = offline.newSignedCommit(unsignedCommit.getBytes(), await sign(unsignedCommit));
                assert.equal((await commit.getStatus()).code, 0);
            },
        },
        {
            name: 'chaincode events and block events of each kind',
            run: async (net) => {
                const key = newID();
                const status = await (await net.contract('org1', 'basic').submitAsync('PutAndAnnounce', { arguments: [key, 'Signed', key] })).getStatus();
                const network = offline.getNetwork(net.channel);
                const request = network.newChaincodeEventsRequest('basic', { startBlock: status.blockNumber });
                const events = await offline.newSignedChaincodeEventsRequest(request.getBytes(), await sign(request)).getEvents();
                assert.equal(text((await next(events[Symbol.asyncIterator]())).payload), key);
                events.close();
                for (const [make, open, numberOf] of [
                    ['newBlockEventsRequest', 'newSignedBlockEventsRequest', (b) => b.getHeader().getNumber()],
                    ['newFilteredBlockEventsRequest', 'newSignedFilteredBlockEventsRequest', (b) => b.getNumber()],
                    ['newBlockAndPrivateDataEventsRequest', 'newSignedBlockAndPrivateDataEventsRequest', (b) => b.getBlock().getHeader().getNumber()],
                ]) {
                    const asked = network[make]({ startBlock: status.blockNumber });
                    const blocks = await offline[open](asked.getBytes(), await sign(asked)).getEvents();
                    assert.equal(numberOf(await next(blocks[Symbol.asyncIterator]())), Number(status.blockNumber), make);
                    blocks.close();
                }
            },
        },
        {
            name: 'a signature of other bytes at each step',
            misuse: true,
            run: async () => {
                const proposal = contract.newProposal('Put', { arguments: [newID(), 'v'] });
                const other = contract.newProposal('Put', { arguments: [newID(), 'w'] });
                await rejects(offline.newSignedProposal(proposal.getBytes(), await sign(other)).endorse(), { type: 'EndorseError', code: 'ABORTED' });
                await rejects(offline.newSignedProposal(proposal.getBytes(), await sign(other)).evaluate(), { type: 'GatewayError' });
                const prepared = await endorsed('Put', { arguments: [newID(), 'v'] });
                await rejects(offline.newSignedTransaction(prepared.getBytes(), await sign(proposal)).submit(), { type: 'SubmitError', code: 'ABORTED', message: /FORBIDDEN/ });
            },
        },
        {
            name: 'another user’s signature',
            misuse: true,
            run: async (net) => {
                const proposal = contract.newProposal('Put', { arguments: [newID(), 'v'] });
                const theirs = await sign(proposal, net.user('org2'));
                await rejects(offline.newSignedProposal(proposal.getBytes(), theirs).endorse(), { type: 'EndorseError', code: 'ABORTED' });
            },
        },
        {
            name: 'what is not signed is not sent by the client',
            misuse: true,
            run: () => rejects(contract.evaluateTransaction('Length', 'x'), { message: /sign/i }),
        },
        {
            name: 'a request for events under a signature that is none',
            misuse: true,
            run: async (net) => {
                const network = offline.getNetwork(net.channel);
                const request = network.newChaincodeEventsRequest('basic', { startBlock: 0n });
                const events = offline.newSignedChaincodeEventsRequest(request.getBytes(), Buffer.from([1, 2, 3])).getEvents();
                await rejects(events.then((stream) => next(stream[Symbol.asyncIterator]())), { type: 'GatewayError', code: 'PERMISSION_DENIED' });
                const blocks = network.newBlockEventsRequest({ startBlock: 0n });
                const stream = await offline.newSignedBlockEventsRequest(blocks.getBytes(), Buffer.from([1, 2, 3])).getEvents();
                await rejects(next(stream[Symbol.asyncIterator]()), { message: /FORBIDDEN|403/ });
            },
        },
    ],
};
