// `peer lifecycle chaincode`, by its wire form: install, approve, commit, and the questions about them.

import assert from 'node:assert/strict';
import { gunzipSync, gzipSync } from 'node:zlib';
import { anyOf, archive, packageOf } from '../lib/contracts.mjs';
import { eventually, newID, refused, rejects, succeeded, text } from '../lib/expect.mjs';
import { invoke, sameBytes } from '../lib/tools.mjs';
import { bytes, make, peer } from '../lib/wire.mjs';

const { lifecycle } = peer;
const all = ['org1', 'org2', 'org3'];

// A package that no test before has made.
const newPackage = (label = newID('package')) => packageOf(label, '127.0.0.1:1');

// lscc makes one call of _lifecycle at a member's peer, locally or on the channel; the answer is a ProposalResponse.
const lscc = (net, where, member, method, fields = {}, options = {}) => net.contracts[where](member, method, make(lifecycle[`${method}Args`], fields), options);

const answerOf = (method, response) => lifecycle[`${method}Result`].deserializeBinary(succeeded(response));

const install = (net, member, raw, options) => lscc(net, 'local', member, 'InstallChaincode', { chaincodeInstallPackage: raw }, options);
// approve approves without naming a package.
const approve = (net, member, definition, options) => lscc(net, 'query', member, 'ApproveChaincodeDefinitionForMyOrg', {
    ...definition, source: make(lifecycle.ChaincodeSource, { unavailable: new lifecycle.ChaincodeSource.Unavailable() }),
}, options);
const commit = (net, member, definition, options) => lscc(net, 'query', member, 'CommitChaincodeDefinition', definition, options);
const readiness = (net, member, definition) => lscc(net, 'query', member, 'CheckCommitReadiness', definition);
const committed = async (net, member, name) => answerOf('QueryChaincodeDefinition', await lscc(net, 'query', member, 'QueryChaincodeDefinition', { name }));

// deployed commits a definition of the contract 'basic' under a name of its own.
async function deployed(net, options = {}) {
    const name = newID('contract');
    await net.deploy('basic', { name, policy: anyOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer'), ...options });
    return name;
}

const failure = (method, reason) => new RegExp(`failed to invoke backing implementation of '${method}': ${reason}`);

// relink makes the first entry of a tar.gz a symbolic link.
function relink(raw) {
    const tar = gunzipSync(raw);
    tar.write('2', 156);
    tar.write('        ', 148);
    const sum = tar.subarray(0, 512).reduce((n, b) => n + b, 0);
    tar.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return gzipSync(tar);
}

const packageWith = (code) => archive({ 'metadata.json': JSON.stringify({ type: 'ccaas', label: newID('package') }), 'code.tar.gz': code });

export default {
    area: 'Tools',
    title: '`peer lifecycle chaincode`',
    about: 'install, queryinstalled, getinstalledpackage, approveformyorg, checkcommitreadiness, commit, querycommitted, queryapproved, upgrade',
    cases: [{
        name: 'install tells the package\'s id; queryinstalled and getinstalledpackage know it',
        run: async (net) => {
            const made = newPackage();
            const installed = answerOf('InstallChaincode', await install(net, 'org1', made.raw));
            assert.deepEqual([installed.getPackageId(), installed.getLabel()], [made.id, made.label]);
            const list = answerOf('QueryInstalledChaincodes', await lscc(net, 'local', 'org1', 'QueryInstalledChaincodes')).getInstalledChaincodesList();
            assert.equal(list.find((p) => p.getPackageId() === made.id).getLabel(), made.label);
            const one = answerOf('QueryInstalledChaincode', await lscc(net, 'local', 'org1', 'QueryInstalledChaincode', { packageId: made.id }));
            assert.equal(one.getLabel(), made.label);
            const got = answerOf('GetInstalledChaincodePackage', await lscc(net, 'local', 'org1', 'GetInstalledChaincodePackage', { packageId: made.id }));
            sameBytes(got.getChaincodeInstallPackage_asU8(), made.raw);
            // The other members' peers know nothing of it.
            refused(await lscc(net, 'local', 'org2', 'QueryInstalledChaincode', { packageId: made.id }), 500, /could not find chaincode with package id/);
        },
    }, {
        name: 'approvals are counted, a majority of members commits, and the contract runs',
        run: async (net) => {
            const { id } = await net.contracts.install('basic', all);
            const definition = net.contracts.definition({ name: newID('contract'), policy: anyOf('Org1MSP.peer') });
            const approvals = async () => answerOf('CheckCommitReadiness', await readiness(net, 'org1', definition)).getApprovalsMap().toObject();
            assert.deepEqual(await approvals(), [['Org1MSP', false], ['Org2MSP', false], ['Org3MSP', false]]);
            await net.contracts.approve('org1', definition, { packageId: id });
            await eventually(async () => (await approvals())[0][1]);
            await net.contracts.approve('org2', definition, { packageId: id });
            await eventually(async () => (await approvals())[1][1]);
            assert.deepEqual(await approvals(), [['Org1MSP', true], ['Org2MSP', true], ['Org3MSP', false]]);
            await net.contracts.commit(['org1', 'org2'], definition);
            await net.contract('org1', definition.name).submitTransaction('Put', 'a', '1');
            assert.equal(text(await net.contract('org1', definition.name).evaluateTransaction('Get', 'a')), '1');
        },
    }, {
        name: 'querycommitted tells the definition and who approved it, and lists all',
        run: async (net) => {
            const name = await deployed(net, { version: '1.5' });
            const got = await committed(net, 'org2', name);
            assert.deepEqual([got.getSequence(), got.getVersion(), got.getEndorsementPlugin(), got.getValidationPlugin(), got.getInitRequired()], [1, '1.5', 'escc', 'vscc', false]);
            sameBytes(got.getValidationParameter_asU8(), net.contracts.definition({ name, policy: anyOf('Org1MSP.peer', 'Org2MSP.peer', 'Org3MSP.peer') }).validationParameter);
            assert.deepEqual(got.getApprovalsMap().toObject(), [['Org1MSP', true], ['Org2MSP', true], ['Org3MSP', true]]);
            const list = answerOf('QueryChaincodeDefinitions', await lscc(net, 'query', 'org2', 'QueryChaincodeDefinitions')).getChaincodeDefinitionsList();
            assert.equal(list.find((d) => d.getName() === name).getVersion(), '1.5');
        },
    }, {
        name: 'queryapproved tells what an organization approved, and with which package',
        run: async (net) => {
            const { id } = await net.contracts.install('basic', all);
            const definition = net.contracts.definition({ name: newID('contract') });
            await net.contracts.approve('org1', definition, { packageId: id });
            const approved = answerOf('QueryApprovedChaincodeDefinition',
                await lscc(net, 'query', 'org1', 'QueryApprovedChaincodeDefinition', { name: definition.name, sequence: 1 }));
            assert.equal(approved.getSource().getLocalPackage().getPackageId(), id);
            assert.equal(approved.getVersion(), '1.0');
            refused(await lscc(net, 'query', 'org2', 'QueryApprovedChaincodeDefinition', { name: definition.name, sequence: 1 }), 500,
                failure('QueryApprovedChaincodeDefinition', `could not fetch approved chaincode definition \\(name: '${definition.name}', sequence: '1'\\) on channel 'business'`));
        },
    }, {
        name: 'an upgrade changes version and policy; the state stays',
        run: async (net) => {
            const name = await deployed(net, { policy: anyOf('Org1MSP.peer') });
            await net.contract('org1', name).submitTransaction('Put', 'kept', 'through the upgrade');
            await net.deploy('basic', { name, version: '2.0', sequence: 2, policy: anyOf('Org3MSP.peer') });
            const got = await committed(net, 'org1', name);
            assert.deepEqual([got.getSequence(), got.getVersion()], [2, '2.0']);
            assert.equal(text(await net.contract('org1', name).evaluateTransaction('Get', 'kept')), 'through the upgrade');
            assert.equal((await invoke(net, ['org1'], { contract: name, args: ['Put', 'kept', 'x'] })).code, 'ENDORSEMENT_POLICY_FAILURE');
            assert.equal((await invoke(net, ['org3'], { contract: name, args: ['Put', 'kept', 'y'] })).code, 'VALID');
        },
    }, {
        name: 'a member that approves with its package after the commit endorses from then on',
        run: async (net) => {
            const { id } = await net.contracts.install('basic', all);
            const definition = net.contracts.definition({ name: newID('contract'), policy: anyOf('Org1MSP.peer', 'Org3MSP.peer') });
            await net.contracts.approve('org1', definition, { packageId: id });
            await net.contracts.approve('org2', definition);
            await net.contracts.commit(['org1', 'org2'], definition);
            await eventually(async () => refused(await net.process('org3', { contract: definition.name, args: ['Get', 'a'] }), 500,
                /chaincode definition for '.*' at sequence 1 on channel 'business' has not yet been approved by this org/));
            refused(await net.process('org2', { contract: definition.name, args: ['Get', 'a'] }), 500, /chaincode definition for '.*' exists, but chaincode is not installed/);
            await net.contracts.approve('org3', definition, { packageId: id });
            await eventually(async () => succeeded(await net.process('org3', { contract: definition.name, args: ['Get', 'a'] })));
        },
    }, {
        name: 'queryinstalled tells which definitions use a package',
        run: async (net) => {
            const name = await deployed(net, { version: '7' });
            const { id } = await net.contracts.install('basic', all);
            await eventually(async () => {
                const one = answerOf('QueryInstalledChaincode', await lscc(net, 'local', 'org1', 'QueryInstalledChaincode', { packageId: id }));
                return one.getReferencesMap().get(net.channel)?.getChaincodesList().some((c) => c.getName() === name && c.getVersion() === '7');
            });
        },
    }, {
        name: 'installing what is no package',
        misuse: true,
        run: async (net) => {
            const reason = 'could not parse as a chaincode install package: ';
            const refuses = async (raw, why) => refused(await install(net, 'org1', raw), 500, failure('InstallChaincode', reason + why));
            await refuses(Buffer.from('no archive'), '.*error reading as gzip stream');
            await refuses(gzipSync('no tar'), '.*error inspecting next tar header');
            await refuses(archive({ 'metadata.json': '{"type":"ccaas","label":"a"}' }), '.*did not find a code package inside the package');
            await refuses(archive({ 'code.tar.gz': archive({}) }), '.*did not find any package metadata \\(missing metadata.json\\)');
            await refuses(archive({ 'metadata.json': 'no json', 'code.tar.gz': archive({}) }), '.*could not unmarshal metadata.json as json');
            await refuses(archive({ 'metadata.json': '{"type":"ccaas","label":"../a"}', 'code.tar.gz': archive({}) }), ".*invalid label '../a'. Label must be non-empty");
        },
    }, {
        name: 'a package that would write outside of its folder, or holds a link',
        misuse: true,
        run: async (net) => {
            const code = (name) => archive({ [name]: 'evil', 'connection.json': '{"address":"127.0.0.1:1"}' });
            for (const name of ['../../evil', '/evil', 'META-INF/../../evil']) {
                refused(await install(net, 'org1', packageWith(code(name))), 500, /tar contains the absolute or escaping path/);
            }
            refused(await install(net, 'org1', packageWith(relink(archive({ link: '', 'connection.json': '{"address":"127.0.0.1:1"}' })))), 500,
                /invalid file type '50' contained in archive for file 'link'/);
        },
    }, {
        name: 'installing the same package twice',
        misuse: true,
        run: async (net) => {
            const made = newPackage();
            succeeded(await install(net, 'org1', made.raw));
            refused(await install(net, 'org1', made.raw), 500, failure('InstallChaincode', `chaincode already successfully installed \\(package ID '${made.id}'\\)`));
        },
    }, {
        name: 'packages that are not installed',
        misuse: true,
        run: async (net) => {
            const { id } = newPackage();
            refused(await lscc(net, 'local', 'org1', 'QueryInstalledChaincode', { packageId: id }), 500, new RegExp(`could not find chaincode with package id '${id}'`));
            refused(await lscc(net, 'local', 'org1', 'GetInstalledChaincodePackage', { packageId: id }), 500,
                failure('GetInstalledChaincodePackage', `could not load cc install package: chaincode install package '${id}' not found`));
        },
    }, {
        name: 'whoever is not the peer\'s own administrator installs and approves nothing',
        misuse: true,
        run: async (net) => {
            const made = newPackage();
            const acl = /Failed to authorize invocation due to failed ACL check: /;
            refused(await install(net, 'org1', made.raw, { user: 'User1' }), 500, acl);
            // The proposal of another member's administrator is not even let in, without a channel.
            await rejects(install(net, 'org1', made.raw, { identity: net.user('org2', 'Admin') }), { message: /access denied/ });
            const definition = net.contracts.definition({ name: newID('contract') });
            refused(await approve(net, 'org1', definition, { user: 'User1' }), 500, acl);
            refused(await approve(net, 'org1', definition, { identity: net.user('org2', 'Admin') }), 500, acl);
        },
    }, {
        name: 'wrong sequences',
        misuse: true,
        run: async (net) => {
            const name = newID('contract');
            const refuses = async (sequence, why) => refused(await approve(net, 'org1', net.contracts.definition({ name, sequence })), 500,
                failure('ApproveChaincodeDefinitionForMyOrg', why));
            await refuses(0, 'requested sequence is 0, but first definable sequence number is 1');
            await refuses(2, 'requested sequence 2 is larger than the next available sequence number 1');
            refused(await readiness(net, 'org1', net.contracts.definition({ name, sequence: 5 })), 500,
                failure('CheckCommitReadiness', 'requested sequence is 5, but new definition must be sequence 1'));
            const there = await deployed(net);
            await net.deploy('basic', { name: there, sequence: 2, policy: anyOf('Org1MSP.peer') });
            refused(await approve(net, 'org1', net.contracts.definition({ name: there, sequence: 1 })), 500,
                failure('ApproveChaincodeDefinitionForMyOrg', 'currently defined sequence 2 is larger than requested sequence 1'));
        },
    }, {
        name: 'approving again what is approved, and something else for a sequence that is committed',
        misuse: true,
        run: async (net) => {
            const definition = net.contracts.definition({ name: newID('contract') });
            await net.contracts.approve('org1', definition);
            refused(await approve(net, 'org1', definition), 500, failure('ApproveChaincodeDefinitionForMyOrg',
                `attempted to redefine uncommitted sequence \\(1\\) for namespace ${definition.name} with unchanged content`));
            const there = await deployed(net);
            refused(await approve(net, 'org1', net.contracts.definition({ name: there, version: '9' })), 500, failure('ApproveChaincodeDefinitionForMyOrg',
                `attempted to redefine the current committed sequence \\(1\\) for namespace ${there} with different parameters: expected Version '1.0' does not match passed Version '9'`));
        },
    }, {
        name: 'names and versions that are none',
        misuse: true,
        run: async (net) => {
            const refuses = async (fields, why) => refused(await approve(net, 'org1', { ...net.contracts.definition({ name: 'x' }), ...fields }), 500,
                failure('ApproveChaincodeDefinitionForMyOrg', `error validating chaincode definition: ${why}`));
            await refuses({ name: '../x' }, "invalid chaincode name '../x'. Names can only consist of alphanumerics, '_', and '-' and can only begin with alphanumerics");
            await refuses({ name: 'qscc' }, "chaincode name 'qscc' is the name of a system chaincode");
            await refuses({ version: '1 0' }, "invalid chaincode version '1 0'. Versions can only consist of alphanumerics, '_', '-', '\\+', and '.'");
        },
    }, {
        name: 'collections that could not work',
        misuse: true,
        run: async (net) => {
            const refuses = async (list, why) => refused(await approve(net, 'org1', net.contracts.definition({ name: newID('contract'), collections: list })), 500,
                failure('ApproveChaincodeDefinitionForMyOrg', `error validating chaincode definition: ${why}`));
            const good = { name: 'c', policy: anyOf('Org1MSP.member'), maxPeerCount: 1 };
            await refuses([{ ...good, policy: anyOf('Org9MSP.member') }], "collection-name: c -- collection member 'Org9MSP' is not part of the channel");
            await refuses([good, good], 'collection-name: c -- found duplicate in collection configuration');
            await refuses([{ ...good, name: '_c' }], "invalid collection name '_c'");
            await refuses([{ ...good, requiredPeerCount: 2 }], 'collection-name: c -- maximum peer count \\(1\\) cannot be less than the required peer count \\(2\\)');
            await refuses([{ ...good, policy: undefined }], "collection member policy is not set for collection 'c'");
        },
    }, {
        name: 'an upgrade that drops a collection or changes how long it keeps values',
        misuse: true,
        run: async (net) => {
            const one = { name: 'c', policy: anyOf('Org1MSP.member'), maxPeerCount: 1, blockToLive: 5 };
            const name = await deployed(net, { collections: [one] });
            const upgrade = (list) => approve(net, 'org1', net.contracts.definition({ name, sequence: 2, collections: list }));
            refused(await upgrade([]), 500, /the proposed collection config does not contain previously defined collections/);
            refused(await upgrade([{ ...one, name: 'd' }]), 500, /existing collection \[c\] missing in the proposed collection configuration/);
            refused(await upgrade([{ ...one, blockToLive: 6 }]), 500, /the BlockToLive in an existing collection \[c\] modified. Existing value \[5\]/);
        },
    }, {
        name: 'committing what the peer\'s own organization has not approved',
        misuse: true,
        run: async (net) => {
            const definition = net.contracts.definition({ name: newID('contract') });
            await net.contracts.approve('org1', definition);
            await eventually(async () => (await net.contracts.readiness('org2', definition)).Org1MSP);
            refused(await commit(net, 'org2', definition), 500, failure('CommitChaincodeDefinition', 'chaincode definition not agreed to by this org \\(Org2MSP\\)'));
            // Approved is what all fields say, not the name.
            refused(await commit(net, 'org1', { ...definition, version: '2' }), 500,
                failure('CommitChaincodeDefinition', 'chaincode definition not agreed to by this org \\(Org1MSP\\)'));
        },
    }, {
        name: 'committing without a majority',
        misuse: true,
        run: async (net) => {
            const definition = net.contracts.definition({ name: newID('contract') });
            await net.contracts.approve('org1', definition);
            const args = ['CommitChaincodeDefinition', bytes(make(lifecycle.CommitChaincodeDefinitionArgs, definition))];
            assert.equal((await invoke(net, ['org1'], { contract: '_lifecycle', user: 'Admin', args })).code, 'ENDORSEMENT_POLICY_FAILURE');
            refused(await lscc(net, 'query', 'org1', 'QueryChaincodeDefinition', { name: definition.name }), 404, /namespace .* is not defined/);
        },
    }, {
        name: 'questions for what is not defined, and functions that are not there',
        misuse: true,
        run: async (net) => {
            refused(await lscc(net, 'query', 'org1', 'QueryChaincodeDefinition', { name: 'nothing' }), 404, /namespace nothing is not defined/);
            const ask = (...args) => net.process('org1', { contract: '_lifecycle', user: 'Admin', args });
            refused(await ask('NoSuchFunction', ''), 500, /Failed to authorize invocation due to failed ACL check: Unmapped policy for _lifecycle\/NoSuchFunction/);
            refused(await ask('QueryChaincodeDefinition'), 500, /lifecycle scc operations require exactly two arguments but received 1/);
            refused(await ask('QueryChaincodeDefinition', Buffer.from([0xff])), 500, /could not decode input arg for \*lifecycle.Invocation.QueryChaincodeDefinition/);
        },
    }],
};
