import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, rejects, text } from '../lib/expect.mjs';

let network;
const anyPeer = (net) => anyOf(...net.mspIds.map((m) => `${m}.peer`));

export default {
    area: 'Contract features',
    title: 'Several contracts of one package',
    about: 'names of contracts and their functions, hooks before transactions, unknown functions; several definitions of one package',
    setup: async (net) => {
        await net.deploy('basic', { name: 'package', policy: anyPeer(net) });
        network = net.gateway('org1').getNetwork(net.channel);
    },
    cases: [
        {
            name: 'the default contract is called without a name, and by its name',
            run: async () => {
                const key = newID();
                await network.getContract('package').submitTransaction('Put', key, 'one');
                assert.equal(text(await network.getContract('package', 'basic').evaluateTransaction('Get', key)), 'one');
            },
        },
        {
            name: 'the second contract is called by its name, and has functions of its own',
            run: async () => {
                const key = newID();
                const second = network.getContract('package', 'ledger.second');
                await second.submitTransaction('Put', key, 'two');
                assert.equal(text(await second.evaluateTransaction('Get', key)), 'two');
                assert.equal(text(await network.getContract('package').evaluateTransaction('Get', `second:${key}`)), 'two');
            },
        },
        {
            name: 'the full name of a function',
            run: async () => assert.equal(text(await network.getContract('package').evaluateTransaction('ledger.second:Before')), 'ledger.second:Before'),
        },
        {
            name: 'two definitions of one package have states of their own',
            run: async (net) => {
                await net.deploy('basic', { name: 'twin', policy: anyPeer(net) });
                const key = newID();
                await network.getContract('package').submitTransaction('Put', key, 'one');
                assert.equal(text(await network.getContract('twin').evaluateTransaction('Get', key)), '');
            },
        },
        {
            name: 'a contract that the package does not have',
            misuse: true,
            run: () => rejects(network.getContract('package', 'third').evaluateTransaction('Get', 'k'), { type: 'GatewayError', code: 'UNKNOWN', message: /Contract name is not known|third/ }),
        },
        {
            name: 'a function that the default contract does not have',
            misuse: true,
            run: () => rejects(network.getContract('package').submitTransaction('Nonsense'), { type: 'EndorseError', code: 'ABORTED', message: /Nonsense/ }),
        },
        {
            name: 'a function that the second contract does not have goes to its own handler',
            misuse: true,
            run: () => rejects(network.getContract('package', 'ledger.second').submitTransaction('Delete', 'k'), { type: 'EndorseError', code: 'ABORTED', message: /the ledger knows no ledger\.second:Delete/ }),
        },
        {
            name: 'a call without a function',
            misuse: true,
            run: () => rejects(network.getContract('package').evaluateTransaction(''), { type: 'GatewayError', code: 'UNKNOWN' }),
        },
    ],
};
