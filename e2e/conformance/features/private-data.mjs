// Private data: collections of members, of one organization, and what each may see, write and needs.

import assert from 'node:assert/strict';
import { eventually, newID, rejects, text } from '../lib/expect.mjs';
import { get, notHere, put, reads, records } from '../lib/records.mjs';
import { invoke } from '../lib/tools.mjs';
import { sha256 } from '../lib/wire.mjs';

export default {
    area: 'Contract features',
    title: 'Private data',
    about: 'Collections, implicit ones, dissemination and late pull, memberOnlyRead and memberOnlyWrite, requiredPeerCount, a collection\'s own endorsement policy',
    setup: (net) => records(net),
    cases: [{
        name: 'a value reaches the peers of all members of its collection, and no block',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const [key, value] = [newID('deal'), newID('secret')];
            const commit = await ours.submitAsync('PutPrivate', { arguments: ['shared', key], transientData: { value }, endorsingOrganizations: ['Org1MSP'] });
            const { successful, blockNumber } = await commit.getStatus();
            assert.ok(successful);
            await reads(ours, 'shared', key, value);
            await reads(theirs, 'shared', key, value);
            const answers = await net.blocks('org1', { start: Number(blockNumber), stop: Number(blockNumber) });
            const block = Buffer.from((await answers.next()).serializeBinary());
            answers.close();
            assert.ok(block.includes(sha256(value)), 'the block has no hash of the value');
            assert.ok(!block.includes(value), 'the block has the value');
        },
    }, {
        name: 'every peer has the hash, a peer outside of the collection not the value',
        run: async (net) => {
            const [ours, outsider] = [await records(net, 'org1'), await records(net, 'org3')];
            const key = newID('deal');
            await put(ours, 'shared', key, 'ten tons of salt');
            await eventually(async () => text(await outsider.evaluateTransaction('PrivateHash', 'shared', key)) === sha256('ten tons of salt').toString('hex'));
            await rejects(get(outsider, 'shared', key), { type: 'GatewayError', message: notHere });
        },
    }, {
        name: 'who was told a value checks it against the ledger',
        run: async (net) => {
            const [ours, outsider] = [await records(net, 'org1'), await records(net, 'org3')];
            const key = newID('deal');
            await put(ours, 'shared', key, 'as agreed');
            const verify = async (value) => text(await outsider.evaluate('VerifyPrivate', { arguments: ['shared', key], transientData: { value } }));
            await eventually(async () => await verify('as agreed') === 'true');
            assert.equal(await verify('as I say'), 'false');
        },
    }, {
        name: 'ranges of private values are in order',
        run: async (net) => {
            const ours = await records(net, 'org1');
            const prefix = newID('range');
            for (const n of [3, 1, 2]) {
                await put(ours, 'shared', `${prefix}-${n}`, `value ${n}`);
            }
            const found = JSON.parse(text(await ours.evaluateTransaction('PrivateRange', 'shared', `${prefix}-1`, `${prefix}-3`)));
            assert.deepEqual(found, [1, 2].map((n) => ({ key: `${prefix}-${n}`, value: `value ${n}` })));
        },
    }, {
        name: 'a deleted value is gone at every member',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const key = newID('deal');
            await put(ours, 'shared', key, 'soon gone');
            await reads(theirs, 'shared', key, 'soon gone');
            await theirs.submitTransaction('DeletePrivate', 'shared', key);
            await reads(ours, 'shared', key, '');
            assert.equal(text(await theirs.evaluateTransaction('PrivateHash', 'shared', key)), '');
        },
    }, {
        name: 'a value that was not handed over at endorsement is pulled at the commit',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const key = newID('quiet');
            await put(ours, 'quiet', key, 'maxPeerCount is 0', 'Org1MSP');
            await reads(theirs, 'quiet', key, 'maxPeerCount is 0');
        },
    }, {
        name: 'requiredPeerCount: the endorsement comes with a copy at another member',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const key = newID('strict');
            await put(ours, 'strict', key, 'in two places', 'Org1MSP');
            await reads(theirs, 'strict', key, 'in two places');
        },
    }, {
        name: 'memberOnlyRead and memberOnlyWrite let members in',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const key = newID('guarded');
            await put(theirs, 'guarded', key, 'amber');
            await reads(ours, 'guarded', key, 'amber');
        },
    }, {
        name: 'a collection\'s own endorsement policy is found without naming members',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const key = newID('agreed');
            await put(ours, 'agreed', key, 'both signed');
            await reads(ours, 'agreed', key, 'both signed');
            await reads(theirs, 'agreed', key, 'both signed');
        },
    }, {
        name: 'an outsider gives a value without naming members',
        run: async (net) => {
            const [ours, outsider] = [await records(net, 'org1'), await records(net, 'org3')];
            const key = newID('gift');
            await put(outsider, 'shared', key, 'from outside');
            await reads(ours, 'shared', key, 'from outside');
            // What it endorsed it does not keep.
            await rejects(get(outsider, 'shared', key), { message: notHere });
        },
    }, {
        name: 'an organization\'s implicit collection is its own',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const [key, implicit] = [newID('note'), '_implicit_org_Org2MSP'];
            await put(theirs, implicit, key, 'to myself');
            await reads(theirs, implicit, key, 'to myself');
            await eventually(async () => text(await ours.evaluateTransaction('PrivateHash', implicit, key)) === sha256('to myself').toString('hex'));
            await rejects(get(ours, implicit, key), { message: notHere });
        },
    }, {
        name: 'a write into another organization\'s implicit collection is endorsed there',
        run: async (net) => {
            const [ours, theirs] = [await records(net, 'org1'), await records(net, 'org2')];
            const [key, implicit] = [newID('letter'), '_implicit_org_Org2MSP'];
            await put(ours, implicit, key, 'to you', 'Org2MSP');
            await reads(theirs, implicit, key, 'to you');
        },
    }, {
        name: 'memberOnlyRead keeps an outsider from reading, at a member\'s peer too',
        misuse: true,
        run: async (net) => {
            const [ours, outsider] = [await records(net, 'org1'), await records(net, 'org3')];
            const key = newID('guarded');
            await put(ours, 'guarded', key, 'amber');
            const refusal = /tx creator does not have read access permission on privatedata in chaincodeName:records collectionName: guarded/;
            await rejects(get(outsider, 'guarded', key), { type: 'GatewayError', message: refusal });
            const there = await records(net, 'org1', { identity: net.user('org3') });
            await rejects(get(there, 'guarded', key), { type: 'GatewayError', message: refusal });
        },
    }, {
        name: 'memberOnlyWrite keeps an outsider from writing and deleting',
        misuse: true,
        run: async (net) => {
            const there = await records(net, 'org1', { identity: net.user('org3') });
            const refusal = /tx creator does not have write access permission on privatedata in chaincodeName:records collectionName: guarded/;
            await rejects(put(there, 'guarded', newID(), 'fur', 'Org1MSP'), { type: 'EndorseError', code: 'ABORTED', message: refusal });
            await rejects(there.submit('DeletePrivate', { arguments: ['guarded', newID()], endorsingOrganizations: ['Org1MSP'] }), { type: 'EndorseError', message: refusal });
        },
    }, {
        name: 'a collection that is not defined',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const refusal = /collection business\/records\/nowhere could not be found/;
            await rejects(put(ours, 'nowhere', newID(), 'x'), { type: 'EndorseError', message: refusal });
            await rejects(get(ours, 'nowhere', newID()), { type: 'GatewayError', message: refusal });
            await rejects(ours.evaluateTransaction('PrivateHash', 'nowhere', newID()),
                { type: 'GatewayError', message: /collection \[nowhere\] not defined in the collection config for chaincode \[records\]/ });
        },
    }, {
        name: 'the implicit collection of an organization that is not there',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            await rejects(get(ours, '_implicit_org_Org9MSP', newID()),
                { type: 'GatewayError', message: /collection \[_implicit_org_Org9MSP\] not defined in the collection config for chaincode \[records\]/ });
        },
    }, {
        name: 'requiredPeerCount cannot be met',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            await rejects(put(ours, 'lonely', newID(), 'nobody to tell', 'Org1MSP'), {
                type: 'EndorseError', code: 'ABORTED',
                message: /could not build private data dissemination plan for chaincode records and collection lonely: required to disseminate to at least 1 peers, but know of only 0 eligible peers/,
            });
        },
    }, {
        name: 'fewer endorsements than the collection\'s policy asks for',
        misuse: true,
        run: async (net) => {
            const key = newID('agreed');
            const { code } = await invoke(net, ['org1'], { contract: 'records', args: ['PutPrivate', 'agreed', key], transient: { value: 'one signed' } });
            assert.equal(code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal(text(await (await records(net, 'org1')).evaluateTransaction('PrivateHash', 'agreed', key)), '');
        },
    }, {
        name: 'another organization\'s implicit collection, written without its endorsement',
        misuse: true,
        run: async (net) => {
            const { code } = await invoke(net, ['org1'], { contract: 'records', args: ['PutPrivate', '_implicit_org_Org2MSP', newID()], transient: { value: 'forged' } });
            assert.equal(code, 'ENDORSEMENT_POLICY_FAILURE');
        },
    }, {
        name: 'a private range, then a write in the same transaction',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            await rejects(ours.submitTransaction('PrivateRangeThenPut', 'shared', 'a', 'b', newID()), {
                type: 'EndorseError', message: /unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed/,
            });
            await rejects(ours.submitTransaction('PutThenPrivateRange', newID(), 'shared', 'a', 'b'), {
                type: 'EndorseError', message: /unsuppored transaction. Queries on pvt data is supported only in a read-only transaction/,
            });
        },
    }, {
        name: 'two changes of the same private value at once: one conflicts',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            const key = newID('race');
            await put(ours, 'shared', key, 'start');
            const late = await ours.newProposal('AppendPrivate', { arguments: ['shared', key, ' late'] }).endorse();
            await ours.submitTransaction('AppendPrivate', 'shared', key, ' early');
            const { code } = await (await late.submit()).getStatus();
            assert.equal(code, 11, 'MVCC_READ_CONFLICT is wanted');
            assert.equal(await get(ours, 'shared', key), 'start early');
        },
    }, {
        name: 'transient data is missing',
        misuse: true,
        run: async (net) => {
            const ours = await records(net, 'org1');
            await rejects(ours.submitTransaction('PutPrivate', 'shared', newID()), { type: 'EndorseError', message: /the transient map has no "value"/ });
        },
    }],
};
