// Who may call what: the roles that Fabric asks for, and policies that a channel's configuration puts in their place.

import assert from 'node:assert/strict';
import { anyOf } from '../lib/contracts.mjs';
import { newID, refused, rejects, succeeded } from '../lib/expect.mjs';
import { records } from '../lib/records.mjs';
import { fetch } from '../lib/tools.mjs';
import { bytes, common, gateway, make, peer, unary } from '../lib/wire.mjs';

const { lifecycle } = peer;

const ask = (net, contract, method, argument, options) => net.process('org1', { contract, args: [method, argument], ...options });
const qscc = (net, options) => ask(net, 'qscc', 'GetChainInfo', net.channel, { channel: '', ...options });
const cscc = (net, method, options) => ask(net, 'cscc', method, options?.channel ?? net.channel, { type: common.HeaderType.CONFIG, ...options, channel: '' });

// A channel on which some functions are for administrators, and reading the blocks as well.
let strict;
const acls = {
    'qscc/GetChainInfo': '/Channel/Application/Admins',
    'event/Block': '/Channel/Application/Admins',
    'peer/Propose': '/Channel/Application/Admins',
    'cscc/GetConfigBlock': '/Channel/Application/Admins',
};
const Admins = /check policy .*\[\/Channel\/Application\/Admins\]/;

// commitStatus is a question for a transaction's fate as an identity signs it.
async function commitStatus(net, identity, txId) {
    const raw = bytes(make(gateway.CommitStatusRequest, { channelId: net.channel, transactionId: txId, identity: identity.creator }));
    const signed = make(gateway.SignedCommitStatusRequest, { request: raw, signature: await identity.sign(raw) });
    return unary(net.stub('gateway', 'org1'), 'commitStatus', signed);
}

export default {
    area: 'Channel configuration',
    title: 'Access control',
    about: 'Fabric\'s default ACLs, and those of a channel\'s configuration',
    setup: async (net) => {
        await records(net);
        strict = newID('strict');
        // One member, so that its administrator alone is a majority of them.
        await net.addChannel(strict, { members: ['org1'], acls });
    },
    cases: [{
        name: 'members of the channel read: chain, configuration, blocks, of any organization',
        run: async (net) => {
            for (const identity of [net.user('org1'), net.user('org2'), net.user('org3', 'Admin')]) {
                succeeded(await ask(net, 'qscc', 'GetChainInfo', net.channel, { identity }));
                succeeded(await ask(net, 'cscc', 'GetChannelConfig', net.channel, { identity }));
                assert.equal((await fetch(net, 'org1', { start: 0, identity })).status, 'SUCCESS');
                assert.equal((await fetch(net, 'org1', { kind: 'deliverFiltered', start: 0, identity })).status, 'SUCCESS');
            }
        },
    }, {
        name: 'members of the channel propose at each other\'s peers, and ask for commits',
        run: async (net) => {
            for (const identity of [net.user('org2'), net.user('org3')]) {
                succeeded(await net.process('org1', { contract: 'records', args: ['Get', 'x'], identity }));
            }
            const commit = await (await records(net)).submitAsync('Put', { arguments: [newID(), 'x'] });
            const status = await commitStatus(net, net.user('org3'), commit.getTransactionId());
            assert.equal(status.getResult(), peer.TxValidationCode.VALID);
        },
    }, {
        name: 'definitions are told to every writer of the channel, what is installed to the peer\'s administrator',
        run: async (net) => {
            const question = bytes(make(lifecycle.QueryChaincodeDefinitionArgs, { name: 'records' }));
            succeeded(await ask(net, '_lifecycle', 'QueryChaincodeDefinition', question, { identity: net.user('org2') }));
            succeeded(await ask(net, '_lifecycle', 'QueryInstalledChaincodes', Buffer.alloc(0), { user: 'Admin', channel: '' }));
        },
    }, {
        name: 'the peer\'s own members ask it for its channels',
        run: async (net) => {
            succeeded(await cscc(net, 'GetChannels'));
            succeeded(await cscc(net, 'GetChannels', { user: 'Admin' }));
        },
    }, {
        name: 'a channel\'s ACLs take the place of the defaults: administrators are let in',
        run: async (net) => {
            succeeded(await ask(net, 'qscc', 'GetChainInfo', strict, { user: 'Admin', channel: strict }));
            succeeded(await ask(net, 'cscc', 'GetConfigBlock', strict, { user: 'Admin', channel: strict }));
            assert.equal((await fetch(net, 'org1', { channel: strict, start: 0, user: 'Admin' })).status, 'SUCCESS');
        },
    }, {
        name: 'what the ACLs do not name stays as it is',
        run: async (net) => {
            assert.equal((await fetch(net, 'org1', { channel: strict, kind: 'deliverFiltered', start: 0 })).status, 'SUCCESS');
        },
    }, {
        name: 'a channel\'s ACLs keep its other members out',
        misuse: true,
        run: async (net) => {
            refused(await ask(net, 'qscc', 'GetChainInfo', strict, { channel: '' }), 500, new RegExp(`access denied for \\[GetChainInfo\\]\\[${strict}\\]: .*${Admins.source}`));
            refused(await cscc(net, 'GetConfigBlock', { channel: strict }), 500, new RegExp(`access denied for \\[GetConfigBlock\\]\\[${strict}\\]: .*${Admins.source}`));
            assert.equal((await fetch(net, 'org1', { channel: strict, start: 0 })).status, 'FORBIDDEN');
            // A contract's functions are the contract's own: system contracts decide for themselves.
            await rejects(net.process('org1', { contract: 'records', args: ['Get', 'x'], channel: strict }), { code: 'UNKNOWN', message: Admins });
        },
    }, {
        name: 'members of other channels are strangers to this one',
        misuse: true,
        run: async (net) => {
            const identity = net.user('org2');
            await rejects(net.process('org1', { contract: 'qscc', args: ['GetTransactionByID', strict, 'x'], channel: strict, identity }),
                { message: /access denied: channel \[.*\] creator org/ });
            assert.equal((await fetch(net, 'org1', { channel: strict, kind: 'deliverFiltered', start: 0, identity })).status, 'FORBIDDEN');
        },
    }, {
        name: 'other organizations\' members are strangers to a peer\'s own affairs',
        misuse: true,
        run: async (net) => {
            for (const identity of [net.user('org2'), net.user('org2', 'Admin')]) {
                for (const [contract, method] of [['cscc', 'GetChannels'], ['_lifecycle', 'QueryInstalledChaincodes'], ['cscc', 'JoinBySnapshotStatus']]) {
                    await rejects(ask(net, contract, method, Buffer.alloc(0), { identity, channel: '' }), { message: /access denied: channel \[\] creator org unknown/ });
                }
            }
        },
    }, {
        name: 'a member who is no administrator has no part in the peer\'s own affairs',
        misuse: true,
        run: async (net) => {
            const admins = /Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with policy \[Admins\]/;
            for (const [contract, method] of [['_lifecycle', 'QueryInstalledChaincodes'], ['_lifecycle', 'InstallChaincode'], ['cscc', 'JoinBySnapshotStatus'], ['cscc', 'JoinChainBySnapshot']]) {
                refused(await ask(net, contract, method, Buffer.from(contract === 'cscc' ? '/nowhere' : ''), { channel: '' }), 500, admins);
            }
        },
    }, {
        name: 'a peer\'s identity is no client\'s: it does not write',
        misuse: true,
        run: async (net) => {
            const node = await net.enroll('org1', { role: 'peer' });
            await rejects(net.process('org1', { contract: 'records', args: ['Get', 'x'], identity: node }), {
                code: 'UNKNOWN', message: /Failed evaluating policy on signed data during check policy on channel \[business\] with policy \[\/Channel\/Application\/Writers\]/,
            });
        },
    }, {
        name: 'the status of commits is for members of the channel',
        misuse: true,
        run: async (net) => {
            const commit = await (await records(net)).submitAsync('Put', { arguments: [newID(), 'x'] });
            assert.ok((await commit.getStatus()).successful);
            for (const identity of Object.values(net.refused)) {
                await rejects(commitStatus(net, identity, commit.getTransactionId()), { code: 'PERMISSION_DENIED' });
            }
        },
    }, {
        name: 'system contracts are not for contracts to call',
        misuse: true,
        run: async (net) => {
            await net.deploy('basic', { name: 'system-caller', policy: anyOf('Org1MSP.peer') });
            for (const [system, method, why] of [
                ['qscc', 'GetChainInfo', /Rejecting invoke of QSCC from another chaincode because of potential for deadlocks, original invocation for 'system-caller'/],
                ['cscc', 'GetChannelConfig', /Rejecting invoke of CSCC from another chaincode, original invocation for 'system-caller'/],
            ]) {
                const answer = await net.process('org1', { contract: 'system-caller', args: ['Ask', system, JSON.stringify([method, net.channel]), ''] });
                refused(answer, 500, why);
            }
        },
    }],
};
