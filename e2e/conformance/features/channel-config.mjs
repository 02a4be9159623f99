// Changes of a channel's configuration by their wire form: what configtxlator and `peer channel update` make, and what they cannot.

import assert from 'node:assert/strict';
import * as crypto from 'node:crypto';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { eventually, newID, refused, succeeded } from '../lib/expect.mjs';
import { fetch } from '../lib/tools.mjs';
import { bytes, common, envelope, header, make, orderer, peer } from '../lib/wire.mjs';

const channel = newID('configured');

const map = (object = {}) => new Map(Object.entries(object));
const group = ({ groups, values, policies, ...fields } = {}) => make(common.ConfigGroup, {
    ...fields, groups: map(groups), values: map(values), policies: map(policies),
});
const value = (message, version = 0, modPolicy = 'Admins') => make(common.ConfigValue, { version, modPolicy, value: bytes(message) });

// configuration is the newest one, as a member's peer has it.
async function configuration(net, member = 'org1') {
    const answer = await net.process(member, { contract: 'cscc', args: ['GetChannelConfig', channel], channel: '', type: common.HeaderType.CONFIG });
    return common.Config.deserializeBinary(succeeded(answer));
}

// at is the group at a path: at(config, 'Application', 'org1').
const at = (config, ...names) => names.reduce((g, name) => g.getGroupsMap().get(name), config.getChannelGroup());

// within puts a change of one group below the groups above it, none of which changes.
const within = (names, change) => names.reduceRight((below, name) => group({ groups: { [name]: below } }), change);

// versioned is within for groups that may have changed before: each has its version.
function versioned(config, names, change) {
    const root = within(names, change);
    let [g, seen] = [root, config.getChannelGroup()];
    for (const name of names) {
        g.setVersion(seen.getVersion());
        [g, seen] = [g.getGroupsMap().get(name), seen.getGroupsMap().get(name)];
    }
    return root;
}

// update makes an update of one group: fields of it that are written, the versions that are read. What the group has not is not read.
async function update(net, names, { values = {}, more = {}, read = {} }) {
    const config = await configuration(net);
    const target = at(config, ...names);
    const version = target.getVersion();
    return make(common.ConfigUpdate, {
        channelId: channel,
        readSet: versioned(config, names, group({ version, ...read })),
        writeSet: versioned(config, names, group({ version, values, ...more })),
    });
}

// changed is a value of a group with another content, at the next version.
async function changed(net, names, key, message, modPolicy) {
    const has = at(await configuration(net), ...names).getValuesMap().get(key);
    return { [key]: value(message, has.getVersion() + 1, modPolicy) };
}

// members is an update of a group's members: all that stay are named by their versions.
async function members(net, names, change) {
    const config = await configuration(net);
    const has = at(config, ...names);
    const named = (from, Type) => Object.fromEntries([...from.entries()].map(([key, v]) => [key, make(Type, { version: v.getVersion() })]));
    const same = () => ({
        groups: named(has.getGroupsMap(), common.ConfigGroup), values: named(has.getValuesMap(), common.ConfigValue),
        policies: named(has.getPoliciesMap(), common.ConfigPolicy),
    });
    const [read, write] = [same(), same()];
    change(write, read);
    const version = has.getVersion();
    return make(common.ConfigUpdate, {
        channelId: channel,
        readSet: versioned(config, names, group({ version, ...read })),
        writeSet: versioned(config, names, group({ version: version + 1, modPolicy: 'Admins', ...write })),
    });
}

// afresh copies a member's group, as one that is new: all versions are 0.
function afresh(member) {
    const copy = common.ConfigGroup.deserializeBinary(bytes(member));
    for (const m of [copy.getValuesMap(), copy.getPoliciesMap()]) m.forEach((element) => element.setVersion(0));
    copy.setVersion(0);
    return copy;
}

// signed makes the signatures of an update, by name of the member whose administrator signs ('org1'), or by identities.
async function signed(net, made, by) {
    const raw = bytes(made);
    return Promise.all(by.map(async (who) => {
        const identity = typeof who === 'string' ? net.user(who, 'Admin') : who;
        const signatureHeader = bytes(make(common.SignatureHeader, { creator: identity.creator, nonce: crypto.randomBytes(24) }));
        return make(common.ConfigSignature, { signatureHeader, signature: await identity.sign(Buffer.concat([signatureHeader, raw])) });
    }));
}

// submit hands an update to the orderer: { status, info }. options: by, signatures, to (another channel), identity, configUpdate.
async function submit(net, made, { by = [], signatures, to = channel, identity = net.user('org1', 'Admin'), configUpdate = bytes(made) } = {}) {
    const data = make(common.ConfigUpdateEnvelope, { configUpdate, signatures: signatures ?? await signed(net, made, by) });
    const { message } = header({ identity, channel: to, type: common.HeaderType.CONFIG_UPDATE });
    const sealed = await envelope(message, data, identity.sign);
    // A new channel's orderer may not lead it yet.
    const answer = await eventually(async () => {
        const a = await net.broadcast(sealed);
        return a.status !== 'SERVICE_UNAVAILABLE' && a;
    }, 30);
    return { ...answer, envelope: sealed };
}

// accepted submits an update and waits until a peer has the configuration that comes of it.
async function accepted(net, made, options) {
    const before = (await configuration(net)).getSequence();
    const { status, info } = await submit(net, made, options);
    assert.equal(status, 'SUCCESS', info);
    return eventually(async () => {
        const config = await configuration(net);
        return config.getSequence() > before && config;
    });
}

// denied submits an update that must be refused, with a text, and looks that the configuration is as before.
async function denied(net, made, options, message, status = 'BAD_REQUEST') {
    const before = (await configuration(net)).getSequence();
    const answer = await submit(net, made, options);
    assert.equal(answer.status, status, answer.info);
    assert.match(answer.info, message);
    assert.equal((await configuration(net)).getSequence(), before);
}

const everybody = ['org1', 'org2', 'org3', 'orderer'];
const anchors = (...hosts) => make(peer.AnchorPeers, { anchorPeers: hosts.map((host) => make(peer.AnchorPeer, { host, port: 7051 })) });
const batch = (fields) => make(orderer.BatchSize, { maxMessageCount: 10, absoluteMaxBytes: 1 << 20, preferredMaxBytes: 1 << 19, ...fields });
const anchorUpdate = async (net, member, host = newID('host')) => update(net, ['Application', member], { values: await changed(net, ['Application', member], 'AnchorPeers', anchors(host)) });
const batchUpdate = async (net, fields) => update(net, ['Orderer'], { values: await changed(net, ['Orderer'], 'BatchSize', batch(fields)) });

// consensus gives the update that changes etcdraft's metadata.
async function consensus(net, change) {
    const has = at(await configuration(net), 'Orderer').getValuesMap().get('ConsensusType');
    const type = orderer.ConsensusType.deserializeBinary(has.getValue_asU8());
    const metadata = orderer.etcdraft.ConfigMetadata.deserializeBinary(type.getMetadata_asU8());
    change(metadata, type);
    type.setMetadata(bytes(metadata));
    return update(net, ['Orderer'], { values: await changed(net, ['Orderer'], 'ConsensusType', type) });
}

const consenter = (host, from) => make(orderer.etcdraft.Consenter, {
    host, port: 7050, clientTlsCert: from.getClientTlsCert_asU8(), serverTlsCert: from.getServerTlsCert_asU8(),
});

export default {
    area: 'Channel configuration',
    title: 'Configuration updates',
    about: 'what `peer channel update` submits: versions, read and write sets, signatures, policies, capabilities, consenters',
    setup: (net) => net.addChannel(channel, { members: ['org1', 'org2', 'org3'] }),
    cases: [{
        name: 'a member\'s administrator alone changes its anchor peers; all peers have the same configuration',
        run: async (net) => {
            const host = newID('anchor');
            const config = await accepted(net, await anchorUpdate(net, 'org1', host), { by: ['org1'] });
            const has = at(config, 'Application', 'org1').getValuesMap().get('AnchorPeers');
            assert.equal(peer.AnchorPeers.deserializeBinary(has.getValue_asU8()).getAnchorPeersList()[0].getHost(), host);
            for (const member of ['org2', 'org3']) {
                await eventually(async () => Buffer.from(bytes(at(await configuration(net, member), 'Application', 'org1'))).includes(host));
            }
        },
    }, {
        name: 'the block has the configuration and the update that made it; sequence and version count on',
        run: async (net) => {
            const before = await configuration(net);
            const made = await batchUpdate(net, { maxMessageCount: 11 });
            const config = await accepted(net, made, { by: ['orderer'] });
            assert.equal(config.getSequence(), before.getSequence() + 1);
            const versionOf = (c) => at(c, 'Orderer').getValuesMap().get('BatchSize').getVersion();
            assert.equal(versionOf(config), versionOf(before) + 1);
            const { blocks: [newest] } = await fetch(net, 'orderer', { channel, start: 'newest' });
            const payload = common.Payload.deserializeBinary(common.Envelope.deserializeBinary(newest.getData().getDataList_asU8()[0]).getPayload_asU8());
            const inBlock = common.ConfigEnvelope.deserializeBinary(payload.getData_asU8());
            assert.equal(inBlock.getConfig().getSequence(), config.getSequence());
            const last = common.Payload.deserializeBinary(inBlock.getLastUpdate().getPayload_asU8());
            assert.deepEqual(Buffer.from(common.ConfigUpdateEnvelope.deserializeBinary(last.getData_asU8()).getConfigUpdate_asU8()), bytes(made));
        },
    }, {
        name: 'an access rule is in force with the configuration',
        run: async (net) => {
            const ask = () => net.process('org1', { contract: 'qscc', args: ['GetChainInfo', channel], channel });
            succeeded(await ask());
            const acls = (ref) => {
                const message = new peer.ACLs();
                if (ref) message.getAclsMap().set('qscc/GetChainInfo', make(peer.APIResource, { policyRef: ref }));
                return message;
            };
            const added = await members(net, ['Application'], (write) => { write.values.ACLs = value(acls('/Channel/Application/Admins')); });
            await accepted(net, added, { by: ['org1', 'org2'] });
            refused(await ask(), 500, /access denied for \[GetChainInfo\]/);
            await accepted(net, await update(net, ['Application'], { values: await changed(net, ['Application'], 'ACLs', acls()) }), { by: ['org2', 'org3'] });
            succeeded(await ask());
        },
    }, {
        name: 'a member leaves by a majority, and may come back',
        run: async (net) => {
            const org3 = afresh(at(await configuration(net), 'Application', 'org3'));
            const left = await accepted(net, await members(net, ['Application'], (write) => { delete write.groups.org3; }), { by: ['org1', 'org2'] });
            assert.ok(!at(left, 'Application').getGroupsMap().has('org3'));
            const back = await accepted(net, await members(net, ['Application'], (write) => { write.groups.org3 = org3; }), { by: ['org1', 'org2'] });
            assert.ok(at(back, 'Application').getGroupsMap().has('org3'));
            await eventually(async () => at(await configuration(net, 'org3'), 'Application').getGroupsMap().has('org3'));
        },
    }, {
        name: 'signatures count in any order, and a stranger\'s beside them does no harm',
        run: async (net) => {
            const rule = make(common.ImplicitMetaPolicy, { rule: common.ImplicitMetaPolicy.Rule.ANY, subPolicy: 'Readers' });
            const policy = make(common.Policy, { type: common.Policy.PolicyType.IMPLICIT_META, value: bytes(rule) });
            const made = await members(net, ['Application'], (write) => { write.policies.Own = make(common.ConfigPolicy, { modPolicy: 'Admins', policy }); });
            await accepted(net, made, { by: ['org2', net.refused.unknownMember, 'org1'] });
        },
    }, {
        name: 'an update of another element still holds after an update',
        run: async (net) => {
            const [one, other] = [await anchorUpdate(net, 'org1'), await anchorUpdate(net, 'org2')];
            await accepted(net, one, { by: ['org1'] });
            await accepted(net, other, { by: ['org2'] });
        },
    }, {
        name: 'an update for versions that are past',
        misuse: true,
        run: async (net) => {
            const [one, late] = [await batchUpdate(net, { maxMessageCount: 12 }), await batchUpdate(net, { maxMessageCount: 13 })];
            await accepted(net, one, { by: ['orderer'] });
            await denied(net, late, { by: ['orderer'] }, /attempt to set key \[Value\]\s+\/Channel\/Orderer\/BatchSize to version \d+, but key is at version \d+/);
        },
    }, {
        name: 'the same update once more',
        misuse: true,
        run: async (net) => {
            const made = await batchUpdate(net, { maxMessageCount: 14 });
            const before = (await configuration(net)).getSequence();
            const first = await submit(net, made, { by: ['orderer'] });
            assert.equal(first.status, 'SUCCESS', first.info);
            await eventually(async () => (await configuration(net)).getSequence() > before);
            const again = await net.broadcast(first.envelope);
            assert.equal(again.status, 'BAD_REQUEST');
            assert.match(again.info, /error validating DeltaSet: attempt to set key/);
        },
    }, {
        name: 'a read set that names another version, or what is not there',
        misuse: true,
        run: async (net) => {
            const version = at(await configuration(net), 'Application', 'org1').getVersion() + 5;
            await denied(net, await update(net, ['Application', 'org1'], { read: { version } }), { by: ['org1'] }, /proposed update requires that key \[Group\]\s+\/Channel\/Application\/org1 be at version/);
            await denied(net, await update(net, ['Application', 'org1'], { read: { values: { None: new common.ConfigValue() } } }), { by: ['org1'] },
                /existing config does not contain element for \[Value\]\s+\/Channel\/Application\/org1\/None but was in the read set/);
        },
    }, {
        name: 'too few signatures, or of those who have no say',
        misuse: true,
        run: async (net) => {
            const made = await members(net, ['Application'], (write) => { delete write.groups.org3; });
            const missing = /policy for \[Group\]\s+\/Channel\/Application not satisfied: implicit policy evaluation failed - \d sub-policies were satisfied, but this policy requires 2 of the 'Admins' sub-policies to be satisfied/;
            await denied(net, made, { by: [] }, missing);
            await denied(net, made, { by: ['org1'] }, missing);
            await denied(net, made, { by: ['org1', 'org1', 'orderer'] }, missing);
            await denied(net, made, { by: [net.user('org1'), net.user('org2')] }, missing);
            await denied(net, await anchorUpdate(net, 'org1'), { by: ['org2', 'org3', 'orderer'] }, /policy for \[Value\]\s+\/Channel\/Application\/org1\/AnchorPeers not satisfied: signature set did not satisfy policy/);
        },
    }, {
        name: 'signatures over something else',
        misuse: true,
        run: async (net) => {
            const [made, other] = [await anchorUpdate(net, 'org1'), await anchorUpdate(net, 'org1')];
            await denied(net, made, { signatures: await signed(net, other, ['org1']) }, /signature set did not satisfy policy/);
            const [signature] = await signed(net, made, ['org1']);
            signature.setSignatureHeader(Buffer.from([0xff]));
            await denied(net, made, { signatures: [signature] }, /error authorizing update/);
        },
    }, {
        name: 'a mod_policy that is empty or has odd letters',
        misuse: true,
        run: async (net) => {
            const org1 = ['Application', 'org1'];
            for (const [modPolicy, want] of [['', /invalid mod_policy for element .*: mod_policy not set/], ['/Channel//Admins', /path element at 1 is invalid: config ID illegal, cannot be empty/]]) {
                await denied(net, await update(net, org1, { values: await changed(net, org1, 'AnchorPeers', anchors('h'), modPolicy) }), { by: ['org1'] }, want);
            }
        },
    }, {
        name: 'two consenters at once, none, and one with a certificate of nobody\'s',
        misuse: true,
        run: async (net) => {
            const by = ['orderer'];
            await denied(net, await consensus(net, (m) => m.setConsentersList([])), { by }, /empty consenter set/);
            await denied(net, await consensus(net, (m) => m.addConsenters(consenter('twice', m.getConsentersList()[0]))), { by }, /duplicate consenter/);
            const stranger = make(orderer.etcdraft.Consenter, {
                host: 'new', port: 7050, clientTlsCert: net.refused.stranger.credentials, serverTlsCert: net.refused.stranger.credentials,
            });
            await denied(net, await consensus(net, (m) => m.addConsenters(stranger)), { by }, /consenter new:7050 has invalid certificate/);
            await denied(net, await consensus(net, (m) => m.getOptions().setElectionTick(1)), { by }, /ElectionTick \(1\) must be greater than HeartbeatTick/);
            // Two that would be good one after the other: of a member that has just begun to order.
            const org1 = afresh(at(await configuration(net), 'Application', 'org1'));
            org1.getValuesMap().del('AnchorPeers');
            await accepted(net, await members(net, ['Orderer'], (write) => { write.groups.org1 = org1; }), { by });
            const certificates = ['Admin', 'User1'].map((user) => fs.readFileSync(path.join(net.user('org1', user).tls, 'client.crt')));
            const both = await consensus(net, (m) => certificates.forEach((cert, i) => m.addConsenters(make(orderer.etcdraft.Consenter, {
                host: `new${i}`, port: 7050, clientTlsCert: cert, serverTlsCert: cert,
            }))));
            await denied(net, both, { by: [...by, 'org1'] }, /update of more than one consenter at a time is not supported, requested changes: add 2 node\(s\), remove 0 node\(s\)/);
            await accepted(net, await members(net, ['Orderer'], (write) => { delete write.groups.org1; }), { by: [...by, 'org1'] });
        },
    }, {
        name: 'groups and values that a channel does not have',
        misuse: true,
        run: async (net) => {
            await denied(net, await members(net, [], (write) => { write.groups.Elsewhere = group({ modPolicy: 'Admins' }); }), { by: everybody }, /Disallowed channel group/);
            await denied(net, await members(net, ['Orderer'], (write) => { write.values.Colour = value(batch()); }), { by: everybody }, /Unexpected key Colour/);
            await denied(net, await members(net, [], (write) => { delete write.groups.Application; }), { by: everybody }, /current config has application section, but new config does not/);
            await denied(net, await members(net, ['Application'], (write) => { write.groups['a/b'] = group({ modPolicy: 'Admins' }); }), { by: everybody }, /illegal characters in key/);
        },
    }, {
        name: 'an update that changes nothing',
        misuse: true,
        run: async (net) => {
            await denied(net, await update(net, ['Application', 'org1'], {}), { by: everybody }, /delta set was empty -- update would have no effect/);
            await denied(net, make(common.ConfigUpdate, { channelId: channel }), { by: everybody }, /delta set was empty -- update would have no effect/);
        },
    }, {
        name: 'values out of bounds: a block of no messages, a timeout of nothing, another member\'s MSP',
        misuse: true,
        run: async (net) => {
            await denied(net, await batchUpdate(net, { maxMessageCount: 0 }), { by: ['orderer'] }, /Attempted to set the batch size max message count to an invalid value: 0/);
            await denied(net, await batchUpdate(net, { preferredMaxBytes: 1 << 21 }), { by: ['orderer'] }, /greater than the absolute max bytes/);
            const timeout = await changed(net, ['Orderer'], 'BatchTimeout', make(orderer.BatchTimeout, { timeout: '0s' }));
            await denied(net, await update(net, ['Orderer'], { values: timeout }), { by: ['orderer'] }, /Attempted to set the batch timeout to a non-positive value: 0s/);
            const org1 = ['Application', 'org1'];
            const other = at(await configuration(net), 'Application', 'org2').getValuesMap().get('MSP').getValue_asU8();
            await denied(net, await update(net, org1, { values: await changed(net, org1, 'MSP', other) }), { by: ['org1'] }, /attempted to change MSP ID from Org1MSP to Org2MSP/);
        },
    }, {
        name: 'a capability that no node knows',
        misuse: true,
        run: async (net) => {
            const capabilities = new common.Capabilities();
            ['V2_0', 'V9_9'].forEach((name) => capabilities.getCapabilitiesMap().set(name, new common.Capability()));
            for (const [where, by] of [[['Orderer'], ['orderer']], [[], everybody]]) {
                await denied(net, await update(net, where, { values: await changed(net, where, 'Capabilities', capabilities) }), { by }, /capability V9_9 is required but not supported/);
            }
        },
    }, {
        name: 'an update for another channel, an envelope for a channel that is not there, and bytes that are no update',
        misuse: true,
        run: async (net) => {
            const made = await anchorUpdate(net, 'org1');
            await denied(net, made, { by: ['org1'], to: net.channel }, new RegExp(`ConfigUpdate for channel '${channel}' but envelope for channel '${net.channel}'`));
            await denied(net, made, { by: ['org1'], to: 'elsewhere' }, /channel/, 'BAD_REQUEST');
            await denied(net, made, { signatures: [], configUpdate: Buffer.from([0xff]) }, /error authorizing update/);
        },
    }, {
        name: 'an update that somebody submits who may not write to the channel',
        misuse: true,
        run: async (net) => {
            const made = await anchorUpdate(net, 'org1');
            await denied(net, made, { by: ['org1'], identity: net.refused.stranger }, /config update for existing channel did not pass initial checks/, 'FORBIDDEN');
        },
    }],
};
