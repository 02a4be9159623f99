import assert from 'node:assert/strict';
import { allOf } from '../lib/contracts.mjs';
import { eventually, newID, refused, rejects, text } from '../lib/expect.mjs';

let contract;
let running;
const works = () => eventually(async () => text(await contract.evaluateTransaction('Length', 'abc')) === '3', 20);
const killed = async () => {
    const ended = new Promise((resolve) => running.child.once('exit', resolve));
    running.child.kill('SIGKILL');
    await ended;
};

export default {
    area: 'Contract features',
    title: 'Contracts as services',
    about: 'the life of a contract’s process: peers connect to it, miss it, and find it again',
    setup: async (net) => {
        await net.deploy('fragile', { policy: allOf('Org1MSP.peer', 'Org2MSP.peer') });
        running = await net.contracts.install('fragile');
        contract = net.contract('org1', 'fragile');
    },
    cases: [
        {
            name: 'one process serves every member’s peer, and every definition of its package',
            run: async (net) => {
                await net.deploy('fragile', { name: 'fragile-twin', policy: allOf('Org1MSP.peer', 'Org3MSP.peer') });
                for (const member of ['org1', 'org2', 'org3']) {
                    for (const name of ['fragile', 'fragile-twin']) assert.equal(text(await net.contract(member, name).evaluateTransaction('Length', 'ab')), '2');
                }
            },
        },
        {
            name: 'a process that was started again is found again, and has its state',
            run: async (net) => {
                const key = newID();
                await contract.submitTransaction('Put', key, 'before');
                await killed();
                await net.contracts.restart('fragile');
                await works();
                assert.equal(text(await contract.evaluateTransaction('Get', key)), 'before');
                await eventually(() => contract.submitTransaction('Put', key, 'after').then(() => true), 20);
            },
        },
        {
            name: 'many calls at once to one process',
            run: async () => {
                const all = await Promise.all(Array.from({ length: 200 }, (_, i) => contract.evaluateTransaction('Length', 'x'.repeat(i))));
                assert.deepEqual(all.map(text), Array.from({ length: 200 }, (_, i) => String(i)));
            },
        },
        {
            name: 'while the process is away calls fail, and do not hang',
            misuse: true,
            run: async (net) => {
                await killed();
                try {
                    await rejects(contract.evaluateTransaction('Length', 'x'), { type: 'GatewayError' });
                    await rejects(contract.submitTransaction('Put', newID(), 'v'), { type: 'EndorseError' });
                    refused(await net.process('org1', { contract: 'fragile', args: ['Length', 'x'] }), 500);
                } finally {
                    await net.contracts.restart('fragile');
                }
                await works();
            },
        },
        {
            name: 'a process that ends in the midst of a call: that call fails',
            misuse: true,
            run: async (net) => {
                const call = rejects(contract.evaluateTransaction('Sleep', '5000'), { type: 'GatewayError' });
                await new Promise((resolve) => setTimeout(resolve, 100));
                await killed();
                await call;
                await net.contracts.restart('fragile');
                await works();
            },
        },
        {
            name: 'a process that is frozen: the caller’s deadline ends the call, and others’ contracts go on',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'not-frozen', policy: allOf('Org1MSP.peer') });
                running.child.kill('SIGSTOP');
                try {
                    const error = await rejects(net.contract('org1', 'fragile', { seconds: 0.4 }).evaluateTransaction('Length', 'x'), { type: 'GatewayError' });
                    assert.ok([1, 4].includes(error.code), error.message); // CANCELLED or DEADLINE_EXCEEDED: whoever notices first
                    assert.equal(text(await net.contract('org1', 'not-frozen').evaluateTransaction('Length', 'x')), '1');
                } finally {
                    running.child.kill('SIGCONT');
                }
                await works();
            },
        },
        {
            name: 'a package whose contract never ran',
            misuse: true,
            run: async (net) => {
                const { packageOf } = await import('../lib/contracts.mjs');
                const made = packageOf('never_1.0', '127.0.0.1:1', {}, '300ms');
                await net.contracts.installPackage('org1', made.raw);
                const definition = net.contracts.definition({ name: 'never', policy: allOf('Org1MSP.peer') });
                await Promise.all(['org1', 'org2', 'org3'].map((m) => net.contracts.approve(m, definition, { packageId: m === 'org1' ? made.id : '' })));
                await net.contracts.commit(['org1', 'org2', 'org3'], definition);
                refused(await net.process('org1', { contract: 'never', args: ['Length', 'x'] }), 500);
                await rejects(net.contract('org1', 'never').submitTransaction('Length', 'x'), { type: 'EndorseError' });
            },
        },
    ],
};
