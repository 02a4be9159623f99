import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { rejects, refused, text } from '../lib/expect.mjs';

let contract;

export default {
    area: 'Contract features',
    title: 'Contract metadata',
    about: '`org.hyperledger.fabric:GetMetadata`',
    setup: async (net) => {
        await net.deploy('basic', { name: 'described', policy: anyOf(...net.mspIds.map((m) => `${m}.peer`)) });
        contract = net.contract('org1', 'described');
    },
    cases: [
        {
            name: 'the contracts of the package and their functions',
            run: async () => {
                const { contracts } = JSON.parse(text(await contract.evaluateTransaction('org.hyperledger.fabric:GetMetadata')));
                assert.deepEqual(Object.keys(contracts).sort(), ['basic', 'ledger.second', 'org.hyperledger.fabric']);
                const names = contracts.basic.transactions.map((t) => t.name);
                for (const name of ['Put', 'Get', 'Range']) assert.ok(names.includes(name), name);
            },
        },
        {
            name: 'the package’s title and version, by each member’s peer',
            run: async (net) => {
                for (const member of ['org1', 'org2', 'org3']) {
                    const { info } = JSON.parse(text(await net.contract(member, 'described').evaluateTransaction('org.hyperledger.fabric:GetMetadata')));
                    assert.deepEqual([info.title, info.version], ['basic', '1.0.0']);
                }
            },
        },
        {
            name: 'metadata of a contract that is not there',
            misuse: true,
            run: (net) => rejects(net.contract('org1', 'undescribed').evaluateTransaction('org.hyperledger.fabric:GetMetadata'), {
                type: 'GatewayError', code: 'FAILED_PRECONDITION', message: /no peers available to evaluate chaincode undescribed in channel business/,
            }),
        },
        {
            name: 'another function of the system contract',
            misuse: true,
            run: () => rejects(contract.evaluateTransaction('org.hyperledger.fabric:GetSecrets'), { type: 'GatewayError', code: 'UNKNOWN', message: /GetSecrets/ }),
        },
        {
            name: 'metadata is not to be had of Fabric’s own contracts',
            misuse: true,
            run: async (net) => refused(await net.process('org1', { contract: 'qscc', args: ['org.hyperledger.fabric:GetMetadata', net.channel] }), 500),
        },
    ],
};
