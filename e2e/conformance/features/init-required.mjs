import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, refused, rejects, succeeded, text } from '../lib/expect.mjs';
import * as wire from '../lib/wire.mjs';

let serial = 0;
// fresh is a contract that wants to be initialized and has not been.
async function fresh(net) {
    const name = `init-${++serial}`;
    await net.deploy('basic', { name, initRequired: true, policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
    return name;
}

// initialize submits a call with the flag, as `peer chaincode invoke --isInit` does.
async function initialize(net, name, ...args) {
    const { proposed, responses } = await net.endorse(['org1'], { contract: name, args, isInit: true });
    succeeded(responses[0]);
    const answer = await net.broadcast(await wire.transaction(proposed, responses));
    assert.equal(answer.status, 'SUCCESS', answer.info);
    return net.verdict('org1', proposed.txId);
}

export default {
    area: 'Contract features',
    title: 'Initialization required',
    about: 'definitions with `--init-required`, and calls with `--isInit`',
    cases: [
        {
            name: 'once initialized, the contract works',
            run: async (net) => {
                const name = await fresh(net);
                const key = newID();
                assert.equal(await initialize(net, name, 'Put', key, 'first'), 'VALID');
                assert.equal(text(await net.contract('org1', name).evaluateTransaction('Get', key)), 'first');
                await net.contract('org1', name).submitTransaction('Put', key, 'second');
            },
        },
        {
            name: 'an upgrade to another version wants to be initialized anew',
            run: async (net) => {
                const name = await fresh(net);
                await initialize(net, name, 'Put', 'k', 'v');
                await net.deploy('basic', { name, initRequired: true, version: '2.0', sequence: 2, policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
                refused(await net.process('org1', { contract: name, args: ['Get', 'k'] }), 500, /has not been initialized for this version/);
                assert.equal(await initialize(net, name, 'Get', 'k'), 'VALID');
                assert.equal(text(await net.contract('org1', name).evaluateTransaction('Get', 'k')), 'v');
            },
        },
        {
            name: 'a contract that wants no initialization may not be called with the flag',
            misuse: true,
            run: async (net) => {
                await net.deploy('basic', { name: 'init-none', policy: anyOf('Org1MSP.peer') });
                refused(await net.process('org1', { contract: 'init-none', args: ['Put', 'k', 'v'], isInit: true }), 500, /chaincode 'init-none' does not require initialization but called as init/);
            },
        },
        {
            name: 'before it is initialized nothing can be called',
            misuse: true,
            run: async (net) => {
                const name = await fresh(net);
                const wanted = new RegExp(`chaincode '${name}' has not been initialized for this version, must call as init first`);
                refused(await net.process('org1', { contract: name, args: ['Put', 'k', 'v'] }), 500, wanted);
                await rejects(net.contract('org1', name).evaluateTransaction('Get', 'k'), { type: 'GatewayError', message: wanted });
                await rejects(net.contract('org1', name).submitTransaction('Put', 'k', 'v'), { type: 'EndorseError', message: wanted });
            },
        },
        {
            name: 'it cannot be initialized twice',
            misuse: true,
            run: async (net) => {
                const name = await fresh(net);
                await initialize(net, name, 'Put', 'k', 'v');
                refused(await net.process('org1', { contract: name, args: ['Put', 'k', 'w'], isInit: true }), 500,
                    new RegExp(`chaincode '${name}' is already initialized but called as init`));
            },
        },
        {
            name: 'of two initializations at once one is valid',
            misuse: true,
            run: async (net) => {
                const name = await fresh(net);
                const both = await Promise.all([1, 2].map((n) => net.endorse(['org1'], { contract: name, args: ['Put', `k${n}`, 'v'], isInit: true })));
                for (const { proposed, responses } of both) await net.broadcast(await wire.transaction(proposed, responses));
                const codes = await Promise.all(both.map(({ proposed }) => net.verdict('org1', proposed.txId)));
                assert.deepEqual(codes, ['VALID', 'MVCC_READ_CONFLICT']);
            },
        },
        {
            name: 'an initialization that fails does not count',
            misuse: true,
            run: async (net) => {
                const name = await fresh(net);
                refused(await net.process('org1', { contract: name, args: ['Fail', 'no'], isInit: true }), 500, /no/);
                refused(await net.process('org1', { contract: name, args: ['Get', 'k'] }), 500, /has not been initialized/);
            },
        },
    ],
};
