// State-based endorsement: keys with an endorsement policy of their own.

import assert from 'node:assert/strict';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';
import { put, reads, records } from '../lib/records.mjs';
import { invoke } from '../lib/tools.mjs';

let ours;

// guarded makes a key that the members name must endorse.
async function guarded(...members) {
    const key = newID('guarded');
    await ours.submitTransaction('PutWithEndorsers', key, 'first', members.join());
    return key;
}

const get = async (key) => text(await ours.evaluateTransaction('Get', key));
const endorsersOf = async (key) => JSON.parse(text(await ours.evaluateTransaction('GetEndorsers', key)));
const write = (net, members, ...args) => invoke(net, members, { contract: 'records', args });

export default {
    area: 'Contract features',
    title: 'State-based endorsement',
    about: 'Keys and private keys with a validation parameter of their own',
    setup: async (net) => { ours = await records(net, 'org1'); },
    cases: [{
        name: 'a key\'s own policy is set, read, and gathered by the gateway',
        run: async () => {
            const key = await guarded('Org1MSP', 'Org2MSP');
            assert.deepEqual(await endorsersOf(key), ['Org1MSP', 'Org2MSP']);
            await ours.submitTransaction('Put', key, 'second');
            assert.equal(await get(key), 'second');
        },
    }, {
        name: 'it takes the place of the contract\'s policy: one whom it names suffices',
        run: async (net) => {
            const key = await guarded('Org3MSP');
            assert.equal((await write(net, ['org3'], 'Put', key, 'by the third')).code, 'VALID');
            await eventually(async () => await get(key) === 'by the third');
        },
    }, {
        name: 'it stays when the value changes, and when the key is deleted it goes',
        run: async (net) => {
            const key = await guarded('Org2MSP');
            assert.equal((await write(net, ['org2'], 'Put', key, 'second')).code, 'VALID');
            assert.deepEqual(await endorsersOf(key), ['Org2MSP']);
            assert.equal((await write(net, ['org2'], 'Delete', key)).code, 'VALID');
            assert.equal((await write(net, ['org1'], 'Put', key, 'anew')).code, 'VALID');
            assert.deepEqual(await endorsersOf(key), []);
        },
    }, {
        name: 'whom it names may hand the key over to others',
        run: async (net) => {
            const key = await guarded('Org1MSP');
            assert.equal((await write(net, ['org1'], 'SetEndorsers', key, 'Org3MSP')).code, 'VALID');
            assert.equal((await write(net, ['org1'], 'Put', key, 'too late')).code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal((await write(net, ['org3'], 'Put', key, 'mine now')).code, 'VALID');
        },
    }, {
        name: 'an empty policy gives the key back to the contract\'s policy',
        run: async (net) => {
            const key = await guarded('Org2MSP');
            assert.equal((await write(net, ['org2'], 'ClearEndorsers', key)).code, 'VALID');
            await eventually(async () => (await endorsersOf(key)).length === 0);
            assert.equal((await write(net, ['org1'], 'Put', key, 'free')).code, 'VALID');
        },
    }, {
        name: 'a private key\'s own policy',
        run: async (net) => {
            const key = newID('private');
            await put(ours, 'shared', key, 'first');
            await ours.submitTransaction('SetPrivateEndorsers', 'shared', key, 'Org1MSP,Org2MSP');
            assert.deepEqual(JSON.parse(text(await ours.evaluateTransaction('GetPrivateEndorsers', 'shared', key))), ['Org1MSP', 'Org2MSP']);
            const alone = await invoke(net, ['org1'], { contract: 'records', args: ['PutPrivate', 'shared', key], transient: { value: 'alone' } });
            assert.equal(alone.code, 'ENDORSEMENT_POLICY_FAILURE');
            await put(ours, 'shared', key, 'together');
            await reads(ours, 'shared', key, 'together');
        },
    }, {
        name: 'fewer endorsements than the key asks for',
        misuse: true,
        run: async (net) => {
            const key = await guarded('Org1MSP', 'Org2MSP');
            for (const members of [['org1'], ['org2'], ['org1', 'org3']]) {
                assert.equal((await write(net, members, 'Put', key, 'forged')).code, 'ENDORSEMENT_POLICY_FAILURE', members.join());
            }
            assert.equal(await get(key), 'first');
        },
    }, {
        name: 'deleting a key without those whom it names',
        misuse: true,
        run: async (net) => {
            const key = await guarded('Org2MSP');
            assert.equal((await write(net, ['org1'], 'Delete', key)).code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal(await get(key), 'first');
        },
    }, {
        name: 'changing a key\'s policy without those whom it names',
        misuse: true,
        run: async (net) => {
            const key = await guarded('Org2MSP');
            assert.equal((await write(net, ['org1'], 'SetEndorsers', key, 'Org1MSP')).code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal((await write(net, ['org1'], 'ClearEndorsers', key)).code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.deepEqual(await endorsersOf(key), ['Org2MSP']);
        },
    }, {
        name: 'one guarded key among others in a transaction',
        misuse: true,
        run: async (net) => {
            const [key, free] = [await guarded('Org2MSP'), newID('free')];
            const many = JSON.stringify({ [free]: 'x', [key]: 'forged' });
            assert.equal((await write(net, ['org1'], 'Many', many)).code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal(await get(free), '');
            // The contract's own policy holds for the other key, so both are needed.
            assert.equal((await write(net, ['org1', 'org2'], 'Many', many)).code, 'VALID');
        },
    }, {
        name: 'a policy of members that are not there cannot be satisfied any more',
        misuse: true,
        run: async (net) => {
            const key = await guarded('Org9MSP');
            await rejects(ours.submitTransaction('Put', key, 'lost'), {
                type: 'EndorseError', code: 'FAILED_PRECONDITION',
                message: /no combination of peers can be derived which satisfy the endorsement policy: no peer combination can satisfy the endorsement policy/,
            });
            assert.equal((await write(net, ['org1', 'org2', 'org3'], 'Put', key, 'lost')).code, 'ENDORSEMENT_POLICY_FAILURE');
        },
    }, {
        name: 'a policy for a key that is not there vanishes',
        misuse: true,
        run: async (net) => {
            const key = newID('none');
            assert.equal((await write(net, ['org1'], 'SetEndorsers', key, 'Org2MSP')).code, 'VALID');
            assert.deepEqual(await endorsersOf(key), []);
            assert.equal((await write(net, ['org1'], 'Put', key, 'free')).code, 'VALID');
        },
    }],
};
